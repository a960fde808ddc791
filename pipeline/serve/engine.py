"""Texts to sound for many people at once: tokens of all sentences in one batch per base, sound on threads of its own.

One thread draws tokens: rows of different voices side by side (`models/text2semantic/rows.py`), each sentence with its
candidates and its further tries, as `voxline say` draws them. Other threads make sound of finished sentences, the first
sentence of a request before later ones of others. A voice that is not in memory is loaded on a thread of its own, so
that nobody else waits for it.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import torch

from models.errors import ModelsError
from models.loading.shared import SharedBase
from models.speaking.voice import Manner, Sentence
from models.text2semantic.attempts import (
    Attempt,
    Task,
    Tempo,
    best_of,
    chosen_last,
    derive_seed,
    judge,
    task_sampling,
    task_tempo,
)
from models.text2semantic.decoding import Generation, Request
from models.text2semantic.laying import symbol_spans
from models.text2semantic.rows import Row
from pipeline.errors import PipelineError, SettingsError, TextRefused, UsageError
from pipeline.jobs.speak import read_sentence
from pipeline.records.phones import Language
from pipeline.records.serving import Asked, FailureCode, SaidSentence, Word, WorkerSettings, WorkerState
from pipeline.records.spoken import SpokenPart
from pipeline.serve.residents import Resident, Residents
from pipeline.text.frontend import phonemize_for_synthesis
from pipeline.text.speakable import check_scripts, check_text, choose_language
from pipeline.text.splitting import split_sentences
from pipeline.text.words import phones_of_words, words_of

AHEAD = 3  # sentences of one request that may be drawn or sounded before the one that its reader has come to
ATTEMPTS = 3

Emit = Callable[[int, str, dict[str, Any], bytes], None]
"""Tells the server: of which request, what happened, with which details and sound."""


@dataclass(eq=False)
class Utterance:
    """One request on its way."""

    asked: Asked
    resident: Resident | None = None
    language: Language = "en"
    pieces: list[str] = field(default_factory=list)
    drawn: int = 0  # sentences that were taken up
    sounded: int = 0  # sentences that have become sound
    heard: int = 0  # sentences that the reader has taken
    spoken_samples: int = 0
    pause: torch.Tensor | None = None  # silence before the next sentence
    is_over: bool = False
    is_rendering: bool = False
    drawing: set[Drawing] = field(default_factory=set)
    ready: dict[int, Drawing] = field(default_factory=dict)

    @property
    def speaker(self) -> Resident:
        assert self.resident is not None
        return self.resident


@dataclass(eq=False)
class Drawing:
    """One sentence whose tokens are being drawn."""

    utterance: Utterance
    index: int
    text: str
    sentence: Sentence | None  # None: nothing in it can be said
    task: Task | None = None
    tempo: Tempo | None = None
    tries: list[Attempt] = field(default_factory=list)
    rows: dict[Row, int] = field(default_factory=dict)  # with their seeds
    found: list[Attempt] = field(default_factory=list)  # candidates of the present try
    attempts: tuple[Attempt, ...] = ()


class Engine:
    """Says what is asked for. ``ask``, ``cancel``, ``heard`` may be called from any thread."""

    def __init__(self, settings: WorkerSettings, emit: Emit) -> None:
        self.settings, self.emit = settings, emit
        self.residents = Residents(settings)
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._loads: queue.SimpleQueue[Utterance | None] = queue.SimpleQueue()
        self._renders: queue.PriorityQueue[tuple[int, int, Drawing | None]] = queue.PriorityQueue()
        self._order = count()
        self._utterances: dict[int, Utterance] = {}
        self._turns: OrderedDict[str, deque[Utterance]] = OrderedDict()  # who waits to be drawn, by owner
        self._owners: dict[Row, Drawing] = {}
        self._busy: Counter[SharedBase] = Counter()  # sentences that are being drawn
        self._threads = [threading.Thread(target=self._draw_forever, name="draw", daemon=True)]
        self._threads += [threading.Thread(target=self._load_forever, name="load", daemon=True)]
        self._threads += [
            threading.Thread(target=self._render_forever, name=f"sound-{number}", daemon=True)
            for number in range(max(1, settings.renderers))
        ]

    def start(self) -> None:
        for voice in self.settings.warm:
            try:
                self.residents.of(voice)
            except PipelineError:
                continue  # told to whoever asks for it
        for thread in self._threads:
            thread.start()

    # -- from outside ---------------------------------------------------------------------------------------------

    def ask(self, asked: Asked) -> None:
        self._inbox.put(lambda: self._take(asked))

    def cancel(self, request: int) -> None:
        self._inbox.put(lambda: self._drop(request))

    def heard(self, request: int, sentences: int) -> None:
        """The reader of a request has come so far; more may be made for it."""

        def note() -> None:
            if found := self._utterances.get(request):
                found.heard = max(found.heard, sentences)

        self._inbox.put(note)

    def state(self) -> WorkerState:
        residents = self.residents
        return WorkerState(
            bases=tuple(sorted(base.base.name for base in list(residents.bases.values()))),
            resident_voices=residents.count,
            resident_bytes=residents.size_bytes,
            rows=len(self._owners),
            waiting=len(self._utterances),
            loads=residents.loads,
            evictions=residents.evictions,
        )

    # -- the thread that draws ------------------------------------------------------------------------------------

    def _draw_forever(self) -> None:
        while True:
            self._read_inbox(block=not self._owners)
            self._admit()
            for base in list(self.residents.bases.values()):
                if base.rows.live:
                    self._step(base)

    def _read_inbox(self, block: bool) -> None:
        try:
            while True:
                action = self._inbox.get(block)
                block = False
                if action is not None:
                    action()
        except queue.Empty:
            return

    def _step(self, base: SharedBase) -> None:
        try:
            ended = base.rows.step()
        except (RuntimeError, MemoryError) as error:
            for drawing in {id(one): one for row in base.rows.live.values() if (one := self._owners[row])}.values():
                self._fail(drawing.utterance, "out_of_memory", type(error).__name__)
            return
        for row, generated in ended:
            self._row_ended(row, generated)

    def _take(self, asked: Asked) -> None:
        utterance = Utterance(asked)
        self._utterances[asked.id] = utterance
        found = self.residents.find(asked.voice)
        if found is None:
            self._loads.put(utterance)
        else:
            self._begin(utterance, found)

    def _begin(self, utterance: Utterance, resident: Resident) -> None:
        if utterance.is_over:
            return
        utterance.resident, asked, base = resident, utterance.asked, resident.base.base
        try:
            check_text(asked.text)
            language = choose_language(asked.language, asked.voice.language, base.text.languages, base.name)
            check_scripts(asked.text, language, base.text.languages, base.name)
        except TextRefused as error:
            self._fail(utterance, "text_refused", error.message)
        except UsageError as error:
            self._fail(utterance, "language_not_spoken" if asked.language else "text_refused", error.message)
        else:
            utterance.language, utterance.pieces = language, split_sentences(asked.text, language)
            if not utterance.pieces:
                self._fail(utterance, "nothing_to_say", f"nothing to pronounce in {asked.text[:40]!r}")
                return
            self._turns.setdefault(asked.owner, deque()).append(utterance)

    def _admit(self) -> None:
        """Take up sentences while there are rows for them, a sentence of each owner in turn."""
        passed = 0
        while self._turns and passed < len(self._turns):
            owner, waiting = next(iter(self._turns.items()))
            self._turns.move_to_end(owner)
            passed += 1
            for utterance in list(waiting):
                if utterance.is_over or utterance.drawn == len(utterance.pieces):
                    waiting.remove(utterance)
                elif self._may_draw(utterance):
                    waiting.rotate(-1)
                    self._draw_next(utterance)
                    passed = 0
                    break
            if not waiting:
                del self._turns[owner]

    def _may_draw(self, utterance: Utterance) -> bool:
        """A sentence keeps room for all its candidates until it is drawn: it may have to be tried again."""
        base = utterance.speaker.base
        has_room = (self._busy[base] + 1) * base.rows.sampling.candidates <= base.rows.most
        return has_room and utterance.drawn - utterance.heard < AHEAD

    def _draw_next(self, utterance: Utterance) -> None:
        index = utterance.drawn
        utterance.drawn += 1
        drawing = Drawing(utterance, index, utterance.pieces[index], None)
        base = utterance.speaker.base
        try:
            found, _ = read_sentence(drawing.text, utterance.language, base.base.text.symbols, base.bert)
        except PipelineError as error:
            self._fail(utterance, "text_refused", error.message)
            return
        if found is None:
            self._hand_over(drawing)
            return
        drawing.sentence = found
        drawing.task = base.voice.task(drawing.sentence, utterance.speaker.reference)
        drawing.tempo = task_tempo(drawing.task, base.voice.token_rate_hz)
        utterance.drawing.add(drawing)
        self._busy[base] += 1
        self._try(drawing)

    def _try(self, drawing: Drawing) -> None:
        """Put the candidates of one more try into the batch."""
        assert drawing.task is not None and drawing.tempo is not None
        utterance, task = drawing.utterance, drawing.task
        rows, rate_hz = utterance.speaker.base.rows, utterance.speaker.base.voice.token_rate_hz
        limit = task_sampling(drawing.tempo, rate_hz, rows.sampling).max_tokens
        first = len(drawing.tries) * rows.sampling.candidates
        drawing.found = []
        for number in range(first, first + rows.sampling.candidates):
            seed = derive_seed(utterance.asked.seed, task.phones[-task.own_phones :], number)
            request = Request(task.phones, seed, task.bert, task.prompt)
            row = Row(request, utterance.speaker.adapters.text2semantic, limit)
            drawing.rows[row], self._owners[row] = seed, drawing
        rows.join(list(drawing.rows))

    def _row_ended(self, row: Row, generated: Generation) -> None:
        drawing = self._owners.pop(row)
        seed = drawing.rows.pop(row)
        utterance = drawing.utterance
        assert drawing.task is not None and drawing.tempo is not None
        decoder = utterance.speaker.base.voice.decoder
        drawing.found.append(judge(decoder, drawing.task, drawing.tempo, seed, generated))
        if drawing.rows:
            return
        drawing.tries.append(best_of(drawing.found, drawing.tempo))
        if drawing.tries[-1].problems and len(drawing.tries) < ATTEMPTS:
            self._try(drawing)
            return
        utterance.drawing.discard(drawing)
        self._busy[utterance.speaker.base] -= 1
        drawing.attempts = chosen_last(drawing.tries, drawing.tempo)
        self._hand_over(drawing)

    def _hand_over(self, drawing: Drawing) -> None:
        drawing.utterance.ready[drawing.index] = drawing
        self._render_next(drawing.utterance)

    def _render_next(self, utterance: Utterance) -> None:
        """One sentence of a request at a time, in their order."""
        drawing = utterance.ready.pop(utterance.sounded, None) if not utterance.is_rendering else None
        if drawing is not None and not utterance.is_over:
            utterance.is_rendering = True
            self._renders.put((drawing.index, next(self._order), drawing))

    def _sounded(self, utterance: Utterance) -> None:
        utterance.is_rendering = False
        utterance.sounded += 1
        if utterance.is_over:
            return
        if utterance.sounded == len(utterance.pieces):
            if not utterance.spoken_samples:
                self._fail(utterance, "nothing_to_say", "nothing to pronounce")
                return
            self._close(utterance)
            self.emit(utterance.asked.id, "done", {}, b"")
            return
        self._render_next(utterance)

    def _drop(self, request: int) -> None:
        if utterance := self._utterances.get(request):
            self._close(utterance)

    def _fail(self, utterance: Utterance, code: FailureCode, message: str) -> None:
        if not utterance.is_over:
            self._close(utterance)
            self.emit(utterance.asked.id, "failed", {"code": code, "message": message}, b"")

    def _close(self, utterance: Utterance) -> None:
        """Its rows leave the batch before the next token."""
        utterance.is_over = True
        self._utterances.pop(utterance.asked.id, None)
        if not utterance.drawing:
            return
        rows = [row for drawing in utterance.drawing for row in drawing.rows]
        for row in rows:
            self._owners.pop(row, None)
        base = utterance.speaker.base
        base.rows.leave(rows)
        self._busy[base] -= len(utterance.drawing)
        utterance.drawing.clear()

    # -- the thread that loads ------------------------------------------------------------------------------------

    def _load_forever(self) -> None:
        while (utterance := self._loads.get()) is not None:
            if utterance.is_over:
                continue
            try:
                resident = self.residents.of(utterance.asked.voice)
            except PipelineError as error:
                code: FailureCode = "base_missing" if isinstance(error, SettingsError) else "voice_damaged"
                self._later(self._fail, utterance, code, error.message)
            except (OSError, RuntimeError, ValueError, MemoryError) as error:
                self._later(self._fail, utterance, "voice_damaged", type(error).__name__)
            else:
                self._later(self._begin, utterance, resident)

    def _later(self, action: Callable[..., None], *arguments: Any) -> None:
        self._inbox.put(lambda: action(*arguments))

    # -- the threads that make sound ------------------------------------------------------------------------------

    def _render_forever(self) -> None:
        while (drawing := self._renders.get()[2]) is not None:
            utterance = drawing.utterance
            try:
                self._render(drawing)
            except (RuntimeError, ModelsError, MemoryError, ValueError) as error:
                self._later(self._fail, utterance, "worker_failed", type(error).__name__)
            self._later(self._sounded, utterance)

    def _render(self, drawing: Drawing) -> None:
        utterance, request = drawing.utterance, drawing.utterance.asked.id
        if drawing.sentence is None or utterance.is_over:
            return
        rate_hz = utterance.speaker.base.voice.sample_rate_hz
        if utterance.pause is not None:
            self._send(utterance, utterance.pause)
        start = utterance.spoken_samples
        for wave in self._waves(drawing):
            if utterance.is_over:
                return
            self._send(utterance, wave)
        utterance.pause = utterance.speaker.base.voice.pause(drawing.sentence)
        last = drawing.attempts[-1]
        part = SpokenPart(
            start_s=round(start / rate_hz, 3),
            duration_s=round((utterance.spoken_samples - start) / rate_hz, 3),
            attempts=len(drawing.attempts),
            problems=last.problems,
            phone_error_rate=None if last.coverage is None else last.coverage.error_rate,
            longest_gap=None if last.coverage is None else last.coverage.longest_gap,
        )
        words = words_said(drawing, part) if utterance.asked.wants_words else ()
        said = SaidSentence(index=drawing.index, text=drawing.text, part=part, words=words)
        self.emit(request, "sentence", said.model_dump(mode="json"), b"")

    def _waves(self, drawing: Drawing) -> Iterator[torch.Tensor]:
        """The sound of a sentence, (N,) each, as it becomes ready."""
        assert drawing.sentence is not None
        speaker, asked = drawing.utterance.speaker, drawing.utterance.asked
        tokens = list(drawing.attempts[-1].tokens)
        if not tokens:
            return
        said = speaker.base.voice.delivery(drawing.sentence, speaker.reference, Manner(asked.seed, asked.speed))
        with speaker.base.carrying(speaker.adapters):
            if speaker.base.voice.renderer.streams_exactly:
                yield from speaker.base.voice.renderer.render_stream(iter([tokens]), said)
            else:
                yield speaker.base.voice.renderer.render(torch.tensor(tokens), said)

    def _send(self, utterance: Utterance, wave: torch.Tensor) -> None:
        if not len(wave):
            return
        samples = (wave.detach().float().cpu().clamp(-1, 1).numpy() * 32767).round().astype("<i2")
        utterance.spoken_samples += len(samples)
        rate_hz = utterance.speaker.base.voice.sample_rate_hz
        self.emit(utterance.asked.id, "sound", {"rate_hz": rate_hz}, np.ascontiguousarray(samples).tobytes())


def words_said(drawing: Drawing, part: SpokenPart) -> tuple[Word, ...]:
    """When each word of a sentence is said: as its tokens tell, else shared out by the number of phones."""
    assert drawing.sentence is not None
    utterance, phones = drawing.utterance, drawing.sentence.phones
    language, guide = utterance.language, utterance.speaker.base.voice.decoder.network.guide
    symbols = phonemize_for_synthesis(drawing.text, language).symbols
    words = words_of(drawing.text)
    tokens = torch.tensor(drawing.attempts[-1].tokens)
    spans = symbol_spans(tokens, phones, guide) if guide is not None and len(tokens) else None
    share = part.duration_s / max(1, len(tokens if spans else phones))
    found, end = [], 0.0
    for word, places in zip(words, phones_of_words(words, symbols, language), strict=True):
        known = [span for place in places if (span := spans[place] if spans else (place, place + 1)) is not None]
        start = max(end, known[0][0] * share) if known else end
        end = max(start, known[-1][1] * share) if known else start
        told = {"start": round(part.start_s + start, 3), "end": round(part.start_s + end, 3)}
        found.append(Word(word=word, **told))
    return tuple(found)
