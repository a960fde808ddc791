"""Speech that no gate may let through: a good sentence, broken in one way. Mono samples (N,) in [-1, 1] in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

Wave = npt.NDArray[np.float32]
SoundMutant = Callable[[Wave, int, np.random.Generator], Wave]  # wave, rate, chance

NOISE_DB = -10.0  # against the speech
TELEPHONE_HZ = 3_400
FASTER = 1.08
ROBOT_HOP_S = 0.008  # one phase for every frame: a voice of 125 Hz that never moves
KEPT_SHARE = 0.55


def truncated(wave: Wave, _: int, __: np.random.Generator) -> Wave:
    """The beginning alone."""
    return wave[: int(KEPT_SHARE * len(wave))]


def repeated(wave: Wave, _: int, __: np.random.Generator) -> Wave:
    """Its first half twice."""
    return np.concatenate([wave[: len(wave) // 2], wave])


def noisy(wave: Wave, _: int, chance: np.random.Generator) -> Wave:
    """White noise, 10 dB below the speech."""
    level = float(np.sqrt(np.mean(np.square(wave)))) * 10 ** (NOISE_DB / 20)
    return _limited(wave + level * chance.standard_normal(len(wave)))


def clipped(wave: Wave, _: int, __: np.random.Generator) -> Wave:
    """Twenty times too loud."""
    return _limited(wave * (20.0 / max(1e-6, float(np.max(np.abs(wave))))))


def narrow(wave: Wave, rate_hz: int, _: np.random.Generator) -> Wave:
    """As by telephone: nothing above 3.4 kHz."""
    low = soxr.resample(wave, rate_hz, 2 * TELEPHONE_HZ)
    return _limited(soxr.resample(low, 2 * TELEPHONE_HZ, rate_hz))


def faster(wave: Wave, rate_hz: int, _: np.random.Generator) -> Wave:
    """As a tape that runs 8 % too fast: higher, too."""
    return _limited(soxr.resample(wave, rate_hz, rate_hz / FASTER))


def robotic(wave: Wave, rate_hz: int, _: np.random.Generator) -> Wave:
    """Every frame with phase zero: one pitch from the first sound to the last."""
    hop = round(ROBOT_HOP_S * rate_hz)
    window = np.hanning(4 * hop + 1)[:-1]
    padded = np.pad(wave, (2 * hop, 4 * hop))
    out, weight = np.zeros(len(padded)), np.zeros(len(padded))
    for start in range(0, len(padded) - len(window), hop):
        magnitude = np.abs(np.fft.rfft(padded[start : start + len(window)] * window))
        frame = np.fft.fftshift(np.fft.irfft(magnitude)) * window
        out[start : start + len(window)] += frame
        weight[start : start + len(window)] += window**2
    spoken = (out / np.maximum(weight, 0.1))[2 * hop : 2 * hop + len(wave)]
    return _limited(spoken * (np.sqrt(np.mean(np.square(wave))) / max(1e-9, np.sqrt(np.mean(np.square(spoken))))))


def silent(wave: Wave, _: int, __: np.random.Generator) -> Wave:
    return np.zeros_like(wave)


def _limited(wave: npt.NDArray[np.floating[Any]]) -> Wave:
    return np.clip(wave, -1.0, 1.0).astype(np.float32)


SOUND_MUTANTS: dict[str, SoundMutant] = {
    "sentences truncated": truncated,
    "sentences repeated": repeated,
    "noise 10 dB below": noisy,
    "clipped": clipped,
    "nothing above 3.4 kHz": narrow,
    "8 % faster": faster,
    "one pitch": robotic,
    "silence": silent,
}


def swapped_words(text: str, others: str, share: float, chance: np.random.Generator) -> str:
    """The text with a share of its words (characters where it writes no spaces) from other texts in their place."""
    is_spaced = " " in text.strip()
    words, strange = (text.split(), others.split()) if is_spaced else (list(text), [c for c in others if c.isalnum()])
    places = [place for place, word in enumerate(words) if any(letter.isalnum() for letter in word)]
    chosen = chance.choice(places, max(1, round(share * len(places))), replace=False)
    for place in chosen:
        different = [word for word in strange if word.casefold() != words[place].casefold()]
        words[place] = str(chance.choice(different))
    return (" " if is_spaced else "").join(words)
