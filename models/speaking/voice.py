"""A voice that speaks: a reference clip and phones in, sound out, for every family (docs/networks/speaking.md).

Text is not read here: sentences come as phone ids. What a reference clip is worth (tokens, speaker, mel prompt) is
computed once and kept by content. The same seed gives the same audio, whatever else is said in the same call.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.configs.text2semantic import SamplingConfig
from models.errors import ModelsError
from models.sound.resampling import resample
from models.sound.upstream_audio import resample_sinc
from models.speaking.rendering import Delivery, PreparedReference, Renderer, mean_reference, pieces_of
from models.text2semantic.attempts import (
    Attempt,
    Effort,
    Task,
    Watch,
    derive_seed,
    find_problems,
    generate_checked,
    join_bert,
    task_sampling,
    task_tempo,
    unwatched,
)
from models.text2semantic.decoding import Decoder, Request

CONTENT_RATE_HZ = 16_000
TAIL_S = 0.3  # silence after the reference clip, so that its last sound does not run into the first new one
KEPT_REFERENCES = 16
RENDER_SEED_ATTEMPT = -1  # the noise of the synthesizer has its own seed, the same for every attempt


@dataclass(frozen=True, eq=False)
class Reference:
    """A clip to speak like. Without phones the networks hear who speaks, but are not prompted with the clip.

    A base whose text-to-semantic network is not `prompted` makes no use of phones here.
    """

    wave: Tensor  # (N,) mono, in [-1, 1]
    sample_rate_hz: int
    phones: Tensor | None = None  # (X,) ids of what is said
    bert: Tensor | None = None  # (bert_dim, X)
    speaker: Tensor | None = None  # (speaker_dim,) where the base has no speaker encoder of its own
    others: tuple["Reference", ...] = ()  # v2 family: more clips of the speaker; the mean of all is spoken like

    @property
    def digest(self) -> str:
        """sha256 of the content."""
        digest = hashlib.sha256(f"{self.sample_rate_hz}".encode())
        for part in (self.wave, self.phones, self.bert, self.speaker):
            digest.update(b"-" if part is None else str(tuple(part.shape)).encode() + part.cpu().numpy().tobytes())
        for other in self.others:
            digest.update(other.digest.encode())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Sentence:
    """What to say: phone ids (X,), BERT features (bert_dim, X), and the silence after it."""

    phones: Tensor
    bert: Tensor | None = None
    pause_s: float = 0.3


@dataclass(frozen=True)
class SpokenSentence:
    """How a sentence came out; the last attempt is the one to be heard."""

    attempts: tuple[Attempt, ...]
    start_s: float
    duration_s: float

    @property
    def is_sound(self) -> bool:
        return not self.attempts[-1].problems


@dataclass(frozen=True, eq=False)
class Speech:
    """wave: (N,) float32 in [-1, 1]."""

    wave: Tensor
    sample_rate_hz: int
    sentences: tuple[SpokenSentence, ...]

    @property
    def is_sound(self) -> bool:
        """Whether no sentence has a known problem."""
        return all(sentence.is_sound for sentence in self.sentences)


@dataclass(frozen=True, eq=False)
class SpeechChunk:
    """A piece of a stream; `sentence` comes with its last piece."""

    wave: Tensor  # (N,)
    sentence_index: int
    sentence: SpokenSentence | None = None


@dataclass(frozen=True)
class Manner:
    """How to say it.

    speed: of the sound, not of the tokens. sampling: None: as the base says. attempts: at most, for a sentence whose
    tokens repeat, break off, never end or do not say the text.
    """

    seed: int = 0
    speed: float = 1.0
    sampling: SamplingConfig | None = None
    attempts: int = 3


PLAIN = Manner()


class Voice:
    """Networks that speak together. `models.loading.voices.load_voice` builds one from a base and adapters."""

    def __init__(
        self,
        decoder: Decoder,
        renderer: Renderer,
        hear: Callable[[Tensor], Tensor],
        embed_speaker: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """hear: 16 kHz speech (N,) -> tokens (T25,). embed_speaker: 16 kHz speech (N,) -> vector."""
        self.decoder, self.renderer, self.hear, self.embed_speaker = decoder, renderer, hear, embed_speaker
        self._prepared: OrderedDict[str, PreparedReference] = OrderedDict()

    @property
    def sample_rate_hz(self) -> int:
        return self.renderer.sample_rate_hz

    @property
    def token_rate_hz(self) -> float:
        return self.decoder.config.token_rate_hz

    @torch.no_grad()
    def prepare(self, reference: Reference) -> PreparedReference:
        """Everything about a reference clip; the last few are kept by content."""
        key = reference.digest
        if key not in self._prepared:
            self._prepared[key] = self._prepare(reference)
            if len(self._prepared) > KEPT_REFERENCES:
                self._prepared.popitem(last=False)
        self._prepared.move_to_end(key)
        return self._prepared[key]

    def _prepare(self, reference: Reference) -> PreparedReference:
        if reference.others and not self.renderer.takes_several:
            raise ModelsError("v3 and v4 continue from one clip: several references are for the v2 family")
        if reference.wave.dim() != 1 or not len(reference.wave) or not reference.wave.isfinite().all():
            raise ModelsError(f"a reference clip is one channel of finite samples, not {list(reference.wave.shape)}")
        wave = reference.wave.float() / max(1.0, float(reference.wave.abs().max()))
        speech = resample(wave, reference.sample_rate_hz, CONTENT_RATE_HZ)
        device = self.decoder.device
        tail = torch.zeros(int(TAIL_S * CONTENT_RATE_HZ))
        tokens = self.hear(torch.cat([speech, tail]))
        speaker = reference.speaker
        rates = self.renderer.reference_rates_hz
        waves = {rate_hz: resample(wave, reference.sample_rate_hz, rate_hz) for rate_hz in rates}
        if speaker is None and self.embed_speaker is not None:
            speaker = self.embed_speaker(resample_sinc(waves[rates[0]], rates[0], CONTENT_RATE_HZ).to(device))
        prepared = self.renderer.reference(waves, speaker, tokens, reference.phones)
        if reference.others:
            prepared = mean_reference(prepared, [self.prepare(other) for other in reference.others])
        if not self.decoder.config.prompted:
            return prepared
        return replace(prepared, phones=reference.phones, bert=reference.bert)

    def speak(
        self,
        sentences: Sequence[Sentence],
        reference: Reference,
        manner: Manner = PLAIN,
        batch_size: int = 8,
        watch: Watch = unwatched,
    ) -> Speech:
        """Say the sentences one after another. How each attempt at a sentence went is in the result."""
        if not sentences:
            raise ModelsError("nothing to say: no sentences")
        prepared = self.prepare(reference)
        tasks = [self.task(sentence, prepared) for sentence in sentences]
        tries = generate_checked(self.decoder, tasks, self._effort(manner, batch_size), watch)
        waves: list[Tensor] = []
        spoken: list[SpokenSentence] = []
        position = 0
        pairs = list(zip(sentences, tries, strict=True))
        for index, (sentence, found) in enumerate(watch(pairs, "making sound")):
            wave = self._render(found[-1].tokens, sentence, prepared, manner)
            spoken.append(self._spoken(found, position, len(wave)))
            waves.append(wave)
            if index + 1 < len(sentences):
                waves.append(self.pause(sentence))
            position = sum(len(wave) for wave in waves)
        return Speech(torch.cat(waves), self.sample_rate_hz, tuple(spoken))

    def stream(
        self,
        sentences: Sequence[Sentence],
        reference: Reference,
        manner: Manner = PLAIN,
        within_sentences: bool = True,
    ) -> Iterator[SpeechChunk]:
        """The same as it becomes ready. Within sentences (v2 family) the first sound comes after less than a second
        of tokens, but what was heard cannot be tried again: problems are then only reported. A base whose tokens can
        be compared with the text is small: it draws and checks a sentence's tokens before the first sound."""
        prepared = self.prepare(reference)
        effort = self._effort(manner, batch_size=1)
        within_sentences = within_sentences and self.renderer.streams_within
        position = 0
        for index, sentence in enumerate(sentences):
            task = self.task(sentence, prepared)
            found: list[Attempt] = []
            tokens: Iterable[int]
            if within_sentences and self.decoder.network.guide is None:
                tokens = self._watched(task, effort, found)
            else:
                found += generate_checked(self.decoder, [task], effort)[0]
                tokens = found[-1].tokens
            if within_sentences:
                waves = self.renderer.render_stream(pieces_of(tokens), self.delivery(sentence, prepared, manner))
            else:
                waves = iter([self._render(found[-1].tokens, sentence, prepared, manner)])
            start, length = position, 0
            for wave in waves:
                length += len(wave)
                yield SpeechChunk(_limited(wave).cpu(), index)
            ending = self.pause(sentence) if index + 1 < len(sentences) else torch.zeros(0)
            position += length + len(ending)
            yield SpeechChunk(ending, index, self._spoken(tuple(found), start, length))

    def _effort(self, manner: Manner, batch_size: int) -> Effort:
        return Effort(manner.seed, manner.sampling or self.decoder.config.sampling, manner.attempts, batch_size)

    def _watched(self, task: Task, effort: Effort, found: list[Attempt]) -> Iterator[int]:
        """Tokens as they come; what went wrong is appended to `found` at the end."""
        rate_hz, tempo = self.token_rate_hz, task_tempo(task, self.token_rate_hz)
        row_seed = derive_seed(effort.seed, task.phones[-task.own_phones :], 0)
        tokens: list[int] = []
        stream = self.decoder.stream(
            Request(task.phones, row_seed, task.bert, task.prompt), task_sampling(tempo, rate_hz, effort.sampling)
        )
        while True:
            try:
                tokens.append(next(stream))
            except StopIteration as stop:
                problems = find_problems(tokens, bool(stop.value), tempo, rate_hz)
                found.append(Attempt(row_seed, tuple(tokens), problems))
                return
            yield tokens[-1]

    def task(self, sentence: Sentence, prepared: PreparedReference) -> Task:
        """What the text-to-semantic network is asked for."""
        count = len(sentence.phones)
        if not count:
            raise ModelsError("a sentence has no phones: there is nothing to say")
        if prepared.phones is None:
            bert = join_bert([(count, sentence.bert)], self.decoder.config.bert_dim)
            return Task(sentence.phones, count, bert, None)
        parts = [(len(prepared.phones), prepared.bert), (count, sentence.bert)]
        bert = join_bert(parts, self.decoder.config.bert_dim)
        return Task(torch.cat([prepared.phones, sentence.phones]).long(), count, bert, prepared.tokens)

    def _render(self, tokens: Sequence[int], sentence: Sentence, prepared: PreparedReference, manner: Manner) -> Tensor:
        if not tokens:
            return torch.zeros(0)
        with torch.no_grad():
            wave = self.renderer.render(torch.tensor(tokens), self.delivery(sentence, prepared, manner))
        return _limited(wave).cpu()

    def delivery(self, sentence: Sentence, prepared: PreparedReference, manner: Manner) -> Delivery:
        """What the renderer is told beside the tokens."""
        row_seed = derive_seed(manner.seed, sentence.phones, RENDER_SEED_ATTEMPT)
        generator = torch.Generator(device=self.decoder.device).manual_seed(row_seed)
        return Delivery(sentence.phones, prepared, manner.speed, generator)

    def pause(self, sentence: Sentence) -> Tensor:
        """The silence after a sentence, (N,)."""
        return torch.zeros(round(sentence.pause_s * self.sample_rate_hz))

    def _spoken(self, found: tuple[Attempt, ...], start: int, length: int) -> SpokenSentence:
        return SpokenSentence(found, start / self.sample_rate_hz, length / self.sample_rate_hz)


def _limited(wave: Tensor) -> Tensor:
    """Scaled down where it would clip."""
    return (wave / wave.abs().max().clamp(min=1.0)).float() if len(wave) else wave
