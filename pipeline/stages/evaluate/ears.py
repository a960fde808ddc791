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
from models.judges.whisper import LANGUAGES, load_whisper
from models.loading.networks import load_phone_recogniser
from pipeline.io.artifacts.ears import ear_digests, ear_folder
from pipeline.io.audio import resample
from pipeline.records.phones import Language
from pipeline.signal.dnsmos import calibrated, own_windows
from pipeline.signal.packaged import dnsmos_file
from pipeline.signal.speaker import speaker_mel
from pipeline.stages.evaluate.studio import FreeSentence, Studio, Wave
from pipeline.text.languages import known_language

RATE_HZ = 16_000
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

    Attributes:
        recogniser: the base's own, of phones. ``words``: what a recogniser of another lineage writes down.
        conditioning: GE2E, which conditions some bases. ``speaker``: ECAPA-TDNN, which conditions none.
        opinion: DNSMOS overall. ``listener``: DistillMOS.
        digests: ear -> digest of its weights.
    """

    language: Language
    conditioning: Speaker
    opinion: Callable[[Wave], float]
    recogniser: PhoneEncoder | None = None
    words: Callable[[Wave], str] | None = None
    speaker: Speaker | None = None
    listener: Callable[[Wave], float] | None = None
    digests: dict[str, str] = field(default_factory=dict)
    _heard: dict[tuple[str, Utterance], object] = field(default_factory=dict)

    def listen(self, said: Iterable[Utterance], threads: int) -> None:
        """Hear all of it, several at a time; what was heard is then remembered."""
        tools = (self.read, self.like, self.score, self.resembles, self.grade)
        with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
            list(pool.map(lambda job: job[0](job[1]), [(tool, one) for one in said for tool in tools]))

    def read(self, said: Utterance) -> str | None:
        """What was heard; None without a recogniser, or for less than a quarter of a second."""
        if self.words is None or not said.lasts(0.25):
            return None
        return str(self._once("words", said, self.words))

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
        vector = self._once(kind, said, speaker.embed)
        return speaker.likeness(vector) if isinstance(vector, Tensor) else None

    def _number(self, kind: str, said: Utterance, tool: Callable[[Wave], float]) -> float | None:
        number = self._once(kind, said, tool) if said.lasts(0.5) else None
        return number if isinstance(number, float) else None

    def _once(self, kind: str, said: Utterance, tool: Callable[[Wave], object]) -> object:
        if (kind, said) not in self._heard:
            self._heard[kind, said] = tool(said.wave)
        return self._heard[kind, said]


def open_ears(studio: Studio, language: str, transcriber: str, threads: int) -> Ears:
    """All that are here. ``transcriber``: a model of transformers that writes down words instead, or empty."""
    digests = ear_digests(studio.cache)
    rate_hz, training = studio.features.sample_rate_hz, _spread(studio.training)
    clips = {studio.features.clips[i].clip: resample(studio.wave(i), rate_hz, RATE_HZ) for i in training}

    def folder(ear: str) -> Path:
        return ear_folder(studio.cache, ear)

    speaker = listener = None
    if "speaker" in digests:
        ecapa = load_ecapa(folder("speaker") / "ecapa.safetensors")
        speaker = know_speaker(lambda wave: ecapa(torch.from_numpy(wave)), clips)
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
    )


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


def know_speaker(embed: Embed, clips: Mapping[str, Wave]) -> Speaker:
    """The speaker of these clips, and which of them are somebody else's: nearer to strangers than to all the others."""
    vectors = torch.stack([embed(clip) for clip in clips.values()])  # (clips, D), of length 1
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
