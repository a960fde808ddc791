"""The networks that a validation asks: what the settings want and this installation has, and why others are missing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import MissingExtraError, SettingsError
from pipeline.io.answers import Answers
from pipeline.io.audio import resample
from pipeline.records.settings import ValidateSettings
from pipeline.signal.clip_rules import Words
from pipeline.signal.dnsmos import Opinion, calibrated, own_windows
from pipeline.signal.frames import ANALYSIS_RATE_HZ, HOP_SAMPLES, POWER_SCALE, WINDOW_SAMPLES, Floats
from pipeline.signal.packaged import dnsmos_file, silero_file
from pipeline.signal.speaker import speaker_mel
from pipeline.signal.vad import Detector, silero_probabilities
from pipeline.stages.validate.digests import (
    DENOISER,
    RECOGNISER_BASE,
    denoiser_folder,
    likeness_weights,
    recogniser_weights,
    tool_digests,
    words_folder,
)
from pipeline.text.frontend import phonemize
from pipeline.text.languages import known_language
from pipeline.text.listening import compare

if TYPE_CHECKING:
    from models.encoders.fast_phone_encoder import PhoneListener
    from models.judges.whisper import Whisper

PARTIAL_STEP_FRAMES = 50
RECOGNISED = ("en", "zh")
LIKENESS_MAX_S = 30
HEARD_AT_ONCE = 2  # recordings
ASKED = 1  # to be raised when a network is asked in another way: what it said before is then asked again
_SPECTRA = (ANALYSIS_RATE_HZ, WINDOW_SAMPLES, WINDOW_SAMPLES, HOP_SAMPLES)  # of `Frames`


@dataclass(frozen=True)
class Tools:
    """Networks that the core may ask, and why those that are missing are missing.

    Attributes:
        opinion: DNSMOS of mono 16 kHz samples.
        embed: partial speaker embeddings (partials, 256) of mono 16 kHz speech.
        denoise: DeepFilterNet: mono samples and their rate -> the same without noise.
        recognise: phones of a power spectrogram of `Frames`, (257, frames), in the classes of `spell`.
        spell: a text and its language -> the phones to expect, None for a language that the recogniser does not know.
        absent: what cannot be measured here, and why.
        digests: sha256 of the weights in use.
        silero: probability of speech of mono 16 kHz samples.
        likeness: ECAPA's cosine of two mono sounds of one rate.
        listen: Whisper: mono 16 kHz samples, their text and its language -> what was heard; None where it cannot tell.
    """

    opinion: Callable[[Floats], Opinion] | None = None
    embed: Callable[[Floats], Floats] | None = None
    denoise: Callable[[Floats, int], Floats] | None = None
    recognise: Callable[[Floats], list[str]] | None = None
    spell: Callable[[str, str], list[str] | None] | None = None
    absent: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    silero: Detector = silero_probabilities
    likeness: Callable[[Floats, Floats, int], float] | None = None
    listen: Callable[[Floats, str, str], Words | None] | None = None


@dataclass(frozen=True)
class Terms:
    """What recordings are judged by, and whose they are.

    Attributes:
        language: of recordings that name none.
    """

    settings: ValidateSettings
    tools: Tools
    voice: str = ""
    language: str | None = None


def load_tools(settings: ValidateSettings, cache: Path, answers: Answers | None = None) -> Tools:
    """The networks that the settings ask for and this installation has; the others are named with the reason.

    ``answers``: what DNSMOS and Whisper said of recordings before.
    """
    known = answers or Answers()
    absent: dict[str, str] = {}
    whisper = _begin_whisper(cache) if settings.acoustic else None  # comes while the others do
    digests = tool_digests(settings, cache)
    opinion = _load_dnsmos(absent, known, digests.get("dnsmos", "")) if settings.dnsmos else None
    embed = _load_embedder() if settings.speakers else None
    denoise = _load_denoiser(settings, cache, absent) if settings.denoise != "off" else None
    recognise = _load_recogniser(absent, cache) if settings.acoustic else None
    spell = _speller(absent) if recognise else None
    likeness = _load_likeness(cache) if denoise else None
    listen = _listener(whisper, absent, known, digests.get("whisper", "")) if settings.acoustic else None
    return Tools(opinion, embed, denoise, recognise, spell, absent, digests, _load_silero(), likeness, listen)


def _load_silero() -> Detector:
    """Silero in torch; where that is not installed, or the package holds another network, by ONNX Runtime."""
    path = silero_file()
    if path is None or find_spec("torch") is None:
        return silero_probabilities
    import torch

    from models.errors import WeightsError
    from models.judges.silero import load_silero
    from models.machine.precision import quick_dtype

    try:
        network = load_silero(path, quick_dtype())
    except WeightsError:
        return silero_probabilities
    return lambda samples: np.asarray(network(torch.from_numpy(np.ascontiguousarray(samples))))


def _load_recogniser(absent: dict[str, str], cache: Path) -> Callable[[Floats], list[str]] | None:
    """The phone encoder of base nano, which lies in the package. Loaded when the first text asks for it."""
    path = recogniser_weights(cache)
    if path is None or not path.is_file():
        absent["text_by_acoustic_model"] = f"base {RECOGNISER_BASE} has no trained encoder here"
        return None
    import torch

    lock = Lock()
    loaded: list[PhoneListener] = []

    def recognise(power: Floats) -> list[str]:
        with lock:
            if not loaded:
                loaded.append(_recogniser(cache))
        return loaded[0].recognise(torch.from_numpy(power * np.float32(1 / POWER_SCALE)))

    return recognise


def _speller(absent: dict[str, str]) -> Callable[[str, str], list[str] | None]:
    """Texts in the classes of the recogniser; a front end that is not installed is noted in `absent` when needed."""
    from models.phones.phone_classes import sounds_of_symbols

    def spell(text: str, language: str) -> list[str] | None:
        if language not in RECOGNISED or f"text_by_acoustic_model_{language}" in absent:
            return None
        try:
            symbols = phonemize(text, "zh" if language == "zh" else "en").symbols
        except MissingExtraError as error:
            absent[f"text_by_acoustic_model_{language}"] = error.message
            return None
        return [sound for symbol in symbols for sound in sounds_of_symbols().get(symbol, ())]

    return spell


def _recogniser(cache: Path) -> PhoneListener:
    from models.encoders.fast_phone_encoder import PhoneListener
    from models.loading.bases import load_base
    from models.loading.networks import load_phone_recogniser
    from models.machine.precision import quick_dtype

    encoder = load_phone_recogniser(load_base(RECOGNISER_BASE), cache)
    if encoder is None:
        raise TypeError(f"base {RECOGNISER_BASE}: its content encoder recognises no phones")
    mel = encoder.config.mel
    if (mel.sample_rate_hz, mel.n_fft, mel.win_samples, mel.hop_samples) != _SPECTRA:
        raise ValueError(f"base {RECOGNISER_BASE}: its mels are not made from the spectra of the measures")
    return PhoneListener(encoder, quick_dtype())


def _load_dnsmos(absent: dict[str, str], known: Answers, digest: str) -> Callable[[Floats], Opinion] | None:
    path = dnsmos_file()
    if path is None:
        absent["dnsmos"] = "the package speechmos is not installed"
        return None
    import torch

    from models.judges.dnsmos import load_dnsmos
    from models.machine.precision import quick_dtype

    network, judge = load_dnsmos(path), f"opinion {ASKED} {digest} {quick_dtype()}"

    def ask(samples: Floats) -> list[float | None]:
        raw = [network(torch.from_numpy(window)).numpy() for window in own_windows(samples)]
        return list(astuple(calibrated(np.stack(raw))))

    return lambda samples: Opinion(*known.several(judge, samples, len(fields(Opinion)), lambda: ask(samples)))


def _load_embedder() -> Callable[[Floats], Floats]:
    import torch

    from models.encoders.ge2e import embed_partials
    from models.machine.precision import quick_dtype

    def embed(speech: Floats) -> Floats:
        mel = torch.from_numpy(speaker_mel(speech))
        partials: Floats = embed_partials(mel, step_frames=PARTIAL_STEP_FRAMES, dtype=quick_dtype()).numpy()
        return partials

    return embed


def _load_denoiser(
    settings: ValidateSettings, cache: Path, absent: dict[str, str]
) -> Callable[[Floats, int], Floats] | None:
    """DeepFilterNet from the folder in the settings or the cache. Never downloads.

    Raises:
        SettingsError: the settings insist on it (a folder is named, or denoise = on) and it cannot be loaded.
    """
    folder = denoiser_folder(settings, cache)
    is_needed = bool(settings.denoise_weights) or settings.denoise == "on"
    if not folder.is_dir() and not is_needed:
        absent["denoise"] = f"no DeepFilterNet weights; `voxline artifacts pull {DENOISER}` fetches them"
        return None
    from models.errors import WeightsError

    try:
        from models.judges.deepfilter import Denoiser

        denoiser = Denoiser(folder)
    except (WeightsError, ModuleNotFoundError) as error:
        if is_needed:
            hint = f"voxline artifacts pull {DENOISER}, or set validate.denoise = off"
            raise SettingsError(f"validate.denoise: {error}", hint=hint) from None
        absent["denoise"] = str(error)
        return None

    def denoise(samples: Floats, sample_rate_hz: int) -> Floats:
        cleaned = denoiser(resample(samples, sample_rate_hz, denoiser.sample_rate_hz))
        back = resample(cleaned, denoiser.sample_rate_hz, sample_rate_hz)
        return np.pad(back, (0, max(0, len(samples) - len(back))))[: len(samples)]

    return denoise


def _load_likeness(cache: Path) -> Callable[[Floats, Floats, int], float] | None:
    """ECAPA, asked only where noise was taken off."""
    path = likeness_weights(cache)
    if path is None:
        return None
    import torch

    from models.judges.ecapa import SAMPLE_RATE_HZ, load_ecapa

    def likeness(one: Floats, other: Floats, sample_rate_hz: int) -> float:
        sounds = (torch.from_numpy(resample(sound, sample_rate_hz, SAMPLE_RATE_HZ)) for sound in (one, other))
        first, second = (load_ecapa(path)(sound[: LIKENESS_MAX_S * SAMPLE_RATE_HZ]) for sound in sounds)
        return float(first @ second)

    return likeness


def _begin_whisper(cache: Path) -> Future[Whisper] | None:
    """Whisper, None where it is not here. It takes more than a second to load, mostly outside Python: by a thread."""
    folder = words_folder(cache)
    if folder is None:
        return None
    from models.judges.whisper import Whisper

    return ThreadPoolExecutor(1).submit(Whisper, folder, HEARD_AT_ONCE)


def _listener(
    whisper: Future[Whisper] | None, absent: dict[str, str], known: Answers, digest: str
) -> Callable[[Floats, str, str], Words | None] | None:
    """The words of recordings. A front end that is not installed is noted when it is needed."""
    if whisper is None:
        absent["text_by_words"] = "no Whisper; `voxline artifacts pull whisper-base` fetches it (extra ears)"
        return None
    from models.judges.whisper import ASKED as WHISPER_ASKED
    from models.judges.whisper import LANGUAGES, LONGEST_S

    def ask(samples: Floats, language: str) -> tuple[str, float]:
        heard = whisper.result().hear(samples, language)
        return heard.text, heard.mean_logprob

    def listen(samples: Floats, text: str, language: str) -> Words | None:
        if language not in LANGUAGES or len(samples) > LONGEST_S * ANALYSIS_RATE_HZ:
            return None
        judge = f"written {ASKED} {digest} {WHISPER_ASKED} {language}"
        heard, sureness = known.several(judge, samples, 2, lambda: ask(samples, language))
        try:
            return Words(heard, sureness, compare(text, heard, known_language(language)))
        except MissingExtraError as error:
            absent[f"text_by_words_{language}"] = error.message
            return None

    return listen
