"""Which channel of a stereo or multichannel file holds the voice, and whether two people are on it.

Channels are never averaged: in antiphase they cancel, with a delay between them they comb. One voice in front of two
microphones makes both levels rise and fall together, even in a room that decorrelates the waveforms; two people do
not speak in step.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.signal.frames import Floats

Series = npt.NDArray[np.floating[Any]]
ChannelKind = Literal["mono", "copies", "antiphase", "one_source", "one_silent", "two_sources"]

_FRAME_S = 0.02
_SILENT_DB = -40.0  # below the loudest channel: cross-talk or nothing
_SAME = 0.98
_IN_STEP = 0.5


@dataclass(frozen=True)
class Channels:
    """`chosen`: an index; `correlation` of waveforms, `envelope_correlation` of levels: the lowest of all pairs."""

    kind: ChannelKind
    count: int
    chosen: int
    correlation: float
    envelope_correlation: float


def compare_channels(samples: Floats, sample_rate_hz: int) -> Channels:
    """`samples`: finite, without DC, (channels, n)."""
    if len(samples) == 1:
        return Channels("mono", 1, 0, 1.0, 1.0)
    powers = np.array([float(np.dot(channel, channel)) for channel in samples])
    loudest = int(powers.argmax())
    heard = [i for i, power in enumerate(powers) if power > powers[loudest] * 10 ** (_SILENT_DB / 10) and power > 0]
    others = [i for i in heard if i != loudest]
    if not others:
        return Channels("one_silent", len(samples), loudest, 0.0, 0.0)
    correlations = [_correlation(samples[loudest], samples[i]) for i in others]
    lowest = min(correlations)
    if all(abs(value) >= _SAME for value in correlations):
        return Channels("antiphase" if lowest < 0 else "copies", len(samples), loudest, lowest, 1.0)
    envelopes = [_levels_db(samples[i], sample_rate_hz) for i in (loudest, *others)]
    in_step = min(_correlation(envelopes[0] - envelopes[0].mean(), other - other.mean()) for other in envelopes[1:])
    chosen = (loudest, *others)[int(np.argmax([_range_db(envelope) for envelope in envelopes]))]
    kind: ChannelKind = "two_sources" if in_step < _IN_STEP else "antiphase" if lowest < -_IN_STEP else "one_source"
    return Channels(kind, len(samples), chosen, lowest, in_step)


def _correlation(one: Series, other: Series) -> float:
    return float(np.dot(one, other) / max(np.sqrt(float(np.dot(one, one)) * float(np.dot(other, other))), 1e-20))


def _levels_db(samples: Floats, sample_rate_hz: int) -> Series:
    """Level every 20 ms, floored 50 dB below the loudest: the noise of two preamplifiers is not in step."""
    size = max(1, int(_FRAME_S * sample_rate_hz))
    count = max(1, len(samples) // size)
    power = np.square(np.resize(samples, count * size).reshape(count, size)).mean(axis=1, dtype=np.float64)
    return np.asarray(10 * np.log10(np.maximum(power, max(power.max() * 1e-5, 1e-12))))


def _range_db(levels_db: Series) -> float:
    """Loud over quiet frames: the channel with less noise has more of it."""
    return float(np.percentile(levels_db, 95) - np.percentile(levels_db, 10))
