"""What listens to free speech and to the speaker's own recordings alike: judges that no base was trained with.

Those that are fetched (`voxline artifacts pull gate`) may be absent: then nobody measures, and the report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.encoders.content import PhoneEncoder
from models.encoders.ge2e import embed_speaker
from models.judges.distillmos import load_distillmos
from models.judges.dnsmos import load_dnsmos
from models.judges.ecapa import load_ecapa
from models.judges.transcriber import load_recogniser
from models.judges.whisper import ASKED as WHISPER_ASKED
from models.judges.whisper import LANGUAGES, load_whisper
from models.loading.networks import load_phone_recogniser
from pipeline.io.answers import Answers
from pipeline.io.artifacts.cache import file_digest
from pipeline.io.artifacts.ears import ear_digests, ear_folder
from pipeline.io.audio import resample
from pipeline.records.phones import Language
from pipeline.signal.dnsmos import calibrated, own_windows
from pipeline.signal.packaged import dnsmos_file
from pipeline.signal.speaker import speaker_mel
from pipeline.stages.evaluate.studio import FreeSentence, Studio, Wave
from pipeline.text.languages import known_language

RATE_HZ = 16_000
ASKED = 1  # to be raised when a network is asked in another way: what it said before is then asked again
CENTROID_CLIPS = 12  # of the training clips, spread over all of them

STRANGER_COSINE = 0.4  # ECAPA, of 14 voices: the same speaker 0.40 and more (one voice 0.33), strangers up to 0.36

Embed = Callable[[Wave], Tensor]


@dataclass(frozen=True, eq=False)
class Utterance:
    """Speech at 16 kHz with its text. ``sentence``: as it was spoken, where a voice spoke it."""

    wave: Wave
    symbols: tuple[str, ...]
    text: str
    sentence: FreeSentence | None = None

    @classmethod
    def of(cls, said: FreeSentence) -> Utterance:
        """A sentence as a voice spoke it."""
        return cls(resample(said.wave, said.sample_rate_hz, RATE_HZ), said.symbols, said.text, said)

    def lasts(self, seconds: float) -> bool:
        """Whether it is that long, and not silence."""
        return len(self.wave) >= seconds * RATE_HZ and bool(np.any(self.wave))


@dataclass(frozen=True)
class Speaker:
    """Who speaks: an encoder of voices, and the mean direction of the speaker's own clips.

    Attributes:
        strange: clips of the training set that sound like another person than the rest.
    """

    embed: Embed
    centroid: Tensor
    strange: tuple[str, ...] = ()

    def likeness(self, vector: Tensor) -> float:
        return float(vector @ self.centroid)


@dataclass(frozen=True)
class Ears:
    """None: not here.

    What a judge said of a recording is remembered by what it heard, beyond this run where ``recorded`` has a memory;
    what it said of speech, for this run.

    Attributes:
        recogniser: the base's own, of phones. ``words``: what a recogniser of another lineage writes down.
        conditioning: GE2E, which conditions some bases. ``speaker``: ECAPA-TDNN, which conditions none.
        opinion: DNSMOS overall. ``listener``: DistillMOS.
        digests: ear -> digest of its weights.
        judges: kind of answer -> which network gives it and how it is asked, of those whose answers may be kept.
    """

    language: Language
    conditioning: Speaker
    opinion: Callable[[Wave], float]
    recogniser: PhoneEncoder | None = None
    words: Callable[[Wave], str] | None = None
    speaker: Speaker | None = None
    listener: Callable[[Wave], float] | None = None
    digests: dict[str, str] = field(default_factory=dict)
    judges: dict[str, str] = field(default_factory=dict)
    recorded: Answers = field(default_factory=Answers)
    spoken: Answers = field(default_factory=Answers)

    def listen(self, said: Iterable[Utterance], threads: int) -> None:
        """Hear all of it, several at a time; what was heard is then remembered."""
        tools = (self.read, self.like, self.score, self.resembles, self.grade)
        with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
            list(pool.map(lambda job: job[0](job[1]), [(tool, one) for one in said for tool in tools]))

    def read(self, said: Utterance) -> str | None:
        """What was heard; None without a recogniser, or for less than a quarter of a second."""
        if self.words is None or not said.lasts(0.25):
            return None
        words = self.words
        return self._answers("words", said).text(self._judge("words"), said.wave, lambda: words(said.wave))

    def like(self, said: Utterance) -> float | None:
        """Cosine to the speaker's own clips by ECAPA; None without it, or for less than half a second."""
        return self._likeness("ecapa", said, self.speaker)

    def resembles(self, said: Utterance) -> float | None:
        """Cosine to the speaker's own clips by GE2E."""
        return self._likeness("ge2e", said, self.conditioning)

    def score(self, said: Utterance) -> float | None:
        """DNSMOS overall."""
        return self._number("dnsmos", said, self.opinion)

    def grade(self, said: Utterance) -> float | None:
        """DistillMOS."""
        return None if self.listener is None else self._number("distillmos", said, self.listener)

    def _likeness(self, kind: str, said: Utterance, speaker: Speaker | None) -> float | None:
        if speaker is None or not said.lasts(0.5):
            return None
        answers, judge = self._answers(kind, said), self._judge(kind)
        return speaker.likeness(embedded(speaker.embed, said.wave, answers, judge))

    def _number(self, kind: str, said: Utterance, tool: Callable[[Wave], float]) -> float | None:
        if not said.lasts(0.5):
            return None
        return self._answers(kind, said).number(self._judge(kind), said.wave, lambda: tool(said.wave))

    def _answers(self, kind: str, said: Utterance) -> Answers:
        return self.recorded if said.sentence is None and kind in self.judges else self.spoken

    def _judge(self, kind: str) -> str:
        return self.judges.get(kind, kind)


def embedded(embed: Embed, wave: Wave, answers: Answers, judge: str) -> Tensor:
    """Who speaks, as a direction (D,); asked once."""
    return torch.from_numpy(answers.vector(judge, wave, lambda: embed(wave).detach().numpy()))


def open_ears(studio: Studio, language: str, transcriber: str, threads: int, recorded: Answers) -> Ears:
    """All that are here.

    Args:
        transcriber: a model of transformers that writes down words instead, or empty.
        recorded: what is known of recordings.
    """
    digests = ear_digests(studio.cache)
    judges = _judges(digests, language, is_whisper=not transcriber)
    rate_hz, training = studio.features.sample_rate_hz, _spread(studio.training)
    clips = {studio.features.clips[i].clip: resample(studio.wave(i), rate_hz, RATE_HZ) for i in training}

    def folder(ear: str) -> Path:
        return ear_folder(studio.cache, ear)

    speaker = listener = None
    if "speaker" in digests:
        ecapa = load_ecapa(folder("speaker") / "ecapa.safetensors")
        speaker = know_speaker(lambda wave: ecapa(torch.from_numpy(wave)), clips, recorded, judges["ecapa"])
    if "listener" in digests:
        mos = load_distillmos(folder("listener") / "distillmos.safetensors")
        listener = lambda wave: float(mos(torch.from_numpy(wave)))  # noqa: E731
    return Ears(
        language=known_language(language),
        conditioning=know_speaker(lambda wave: embed_speaker(torch.from_numpy(speaker_mel(wave))), clips),
        opinion=dnsmos(),
        recogniser=_phone_recogniser(studio, language),
        words=_words(studio, language, transcriber, threads) if transcriber or "words" in digests else None,
        speaker=speaker,
        listener=listener,
        digests=digests,
        judges=judges,
        recorded=recorded,
    )


def _judges(digests: Mapping[str, str], language: str, *, is_whisper: bool) -> dict[str, str]:
    """Kind of answer -> the network by its digest, and the way it is asked. GE2E is quicker asked than looked up."""
    opinion = dnsmos_file()
    found = {kind: digests[ear] for kind, ear in (("ecapa", "speaker"), ("distillmos", "listener")) if ear in digests}
    if is_whisper and "words" in digests:
        found["words"] = f"{digests['words']} {WHISPER_ASKED} {language}"
    if opinion is not None:
        found["dnsmos"] = file_digest(opinion)
    return {kind: f"{kind} {ASKED} {digest}" for kind, digest in found.items()}


def dnsmos() -> Callable[[Wave], float]:
    """DNSMOS overall of a clip as long as it is: a tenth of the time of the original, which repeats short ones."""
    path = dnsmos_file()
    if path is None:
        raise ModuleNotFoundError("speechmos")
    network = load_dnsmos(path, is_exact=True)

    def overall(wave: Wave) -> float:
        raw = [network(torch.from_numpy(window)).numpy() for window in own_windows(wave)]
        return calibrated(np.stack(raw)).ovr

    return overall


def _spread(clips: Sequence[int]) -> Sequence[int]:
    step = max(1, len(clips) // CENTROID_CLIPS)
    return clips[::step][:CENTROID_CLIPS]


def know_speaker(embed: Embed, clips: Mapping[str, Wave], recorded: Answers | None = None, judge: str = "") -> Speaker:
    """The speaker of these clips, and which of them are somebody else's: nearer to strangers than to all the others.

    ``recorded``: what ``judge`` said of some of them already.
    """
    known = recorded or Answers()
    vectors = torch.stack([embedded(embed, clip, known, judge) for clip in clips.values()])  # (clips, D), of length 1
    total = vectors.sum(0)
    others = total - vectors
    nearness = (vectors * others).sum(1) / others.norm(dim=1).clamp_min(1e-9)
    strange = [name for name, near in zip(clips, nearness.tolist(), strict=True) if near < STRANGER_COSINE]
    return Speaker(embed, total / total.norm(), tuple(strange) if len(clips) > 2 else ())


def _words(studio: Studio, language: str, source: str, threads: int) -> Callable[[Wave], str] | None:
    """Who writes down words of this language; None where nobody was tried with it."""
    if source:
        transcribe = load_recogniser(source, studio.device, language)
        return lambda wave: transcribe(torch.from_numpy(wave))
    if language not in LANGUAGES:
        return None
    whisper = load_whisper(ear_folder(studio.cache, "words"), threads)
    return lambda wave: whisper.hear(wave, language).text


def _phone_recogniser(studio: Studio, language: str) -> PhoneEncoder | None:
    is_spoken = language in studio.base.text.languages
    return load_phone_recogniser(studio.base, studio.cache) if is_spoken else None
