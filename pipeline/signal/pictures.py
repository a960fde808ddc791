"""Small pictures of sound for reports: SVG in the colours of the page, PNG for spectrograms. No plotting library."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.signal.quality import spectrogram

Signal = npt.NDArray[Any]  # mono (samples,)

_SHADES = 16  # 4.7 dB each: with 240 by 64 points a quarter of the bytes that 400 by 112 in 32 shades take

# Dark to bright with even steps of lightness, so that it reads on paper and without colour vision.
_COLOURS = np.array(
    [(9, 8, 30), (45, 17, 96), (114, 31, 129), (182, 54, 121), (240, 96, 93), (254, 159, 109), (252, 253, 191)], float
)


def waveform_path(signal: Signal, width: int = 600, height: int = 60, columns: int = 200) -> str:
    """SVG path of the envelope: for every column the lowest and the highest sample, with a little air around.

    What goes beyond full scale makes the whole picture smaller; it is not cut off.
    """
    if not len(signal):
        return ""
    edges = _edges(len(signal), columns)
    highest, lowest = np.maximum.reduceat(signal, edges), np.minimum.reduceat(signal, edges)
    places = np.linspace(0, width, len(edges))
    middle = height / 2
    unit = 0.95 * middle / max(1.0, float(np.abs(signal).max()))
    upper = [f"{x:.0f},{middle - y * unit:.1f}" for x, y in zip(places, highest, strict=True)]
    lower = [f"{x:.0f},{middle - y * unit:.1f}" for x, y in zip(places, lowest, strict=True)]
    return "M" + " L".join(upper) + " L" + " L".join(reversed(lower)) + " Z"


def _edges(length: int, parts: int) -> npt.NDArray[np.int_]:
    """Where each of at most ``parts`` equal parts begins."""
    return np.linspace(0, length, min(parts, length) + 1).astype(int)[:-1]


def spectrogram_png(signal: Signal, sample_rate_hz: int, width: int = 240, height: int = 64) -> bytes:
    """PNG of the magnitude in dB, 70 dB below the loudest; time to the right, frequency upwards and linear."""
    magnitudes = spectrogram(signal, sample_rate_hz, hop_s=0.005)
    if not magnitudes.size:
        return _png(np.zeros((height, width), np.uint8))
    return level_png(20.0 * np.log10(np.maximum(magnitudes, 1e-6)), width, height)


def level_png(level_db: npt.NDArray[Any], width: int = 240, height: int = 64) -> bytes:
    """PNG of levels in dB (frames, bins), 70 dB below the loudest; of what falls on one point the loudest is shown.

    Few frames or bins make a smaller picture: the page stretches it.
    """
    shade = np.clip((level_db - level_db.max()) / 70.0 + 1.0, 0.0, 1.0)
    shade = np.maximum.reduceat(shade, _edges(shade.shape[0], width), axis=0)
    shade = np.maximum.reduceat(shade, _edges(shade.shape[1], height), axis=1)
    places = (
        (shade.T[::-1] * (_SHADES - 1)).round().astype(np.uint8)
    )  # (frames, bins) -> (height, width), low at the foot
    return _png(places)


@cache
def _palette() -> bytes:
    """The colours of the shades as PNG wants them."""
    places = np.linspace(0.0, len(_COLOURS) - 1.0, _SHADES)
    channels = [np.interp(places, np.arange(len(_COLOURS)), _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8).tobytes()


def _png(shades: npt.NDArray[np.uint8]) -> bytes:
    """A PNG file of shades (height, width), each an index into the palette."""
    height, width = shades.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), shades], axis=1)  # filter 0 per line
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    data = zlib.compress(lines.tobytes(), 9)
    chunks = [(b"IHDR", header), (b"PLTE", _palette()), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def curve_points(
    values: Sequence[tuple[float, float]],
    bounds: tuple[float, float, float, float],
    width: int = 560,
    height: int = 160,
) -> str:
    """SVG polyline points of (x, y) pairs; ``bounds`` are the lowest and highest x, then y, shown at the borders."""
    x_low, x_high, y_low, y_high = bounds
    x_scale, y_scale = width / max(x_high - x_low, 1e-9), height / max(y_high - y_low, 1e-9)
    return " ".join(f"{(x - x_low) * x_scale:.1f},{height - (y - y_low) * y_scale:.1f}" for x, y in values)
