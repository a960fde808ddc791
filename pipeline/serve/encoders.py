"""Samples to the formats of OpenAI's API, in pieces as they come, without a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import av
import numpy as np

AudioFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
PCM_RATE_HZ = 24_000  # what OpenAI's clients take "pcm" for
OPUS_RATE_HZ = 48_000


@dataclass(frozen=True)
class _Kind:
    """How a format is made: ffmpeg's container and codec, and what it is called on the wire."""

    media_type: str
    container: str = ""
    codec: str = ""
    bit_rate: int = 0
    rate_hz: int = 0  # 0: that of the voice
    options: Mapping[str, str] | None = None


KINDS: Mapping[str, _Kind] = {
    "mp3": _Kind("audio/mpeg", "mp3", "libmp3lame", 64_000, options={"write_xing": "0", "id3v2_version": "3"}),
    "opus": _Kind("audio/ogg", "ogg", "libopus", 32_000, OPUS_RATE_HZ),
    "aac": _Kind("audio/aac", "adts", "aac", 64_000),
    "flac": _Kind("audio/flac", "flac", "flac"),
    "wav": _Kind("audio/wav", "wav", "pcm_s16le"),
    "pcm": _Kind("audio/pcm", rate_hz=PCM_RATE_HZ),
}


def media_type(audio_format: str) -> str:
    return KINDS[audio_format].media_type


class _Pipe:
    """What ffmpeg writes to: a stream that cannot go back, so headers do not wait for the end."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


class Encoder:
    """One answer. 16-bit mono samples go in; what is ready of the file comes out.

    Args:
        rate_hz: of the samples.
        tags: written into the file where its kind has a place for them.
    """

    def __init__(self, audio_format: str, rate_hz: int, tags: Mapping[str, str]) -> None:
        kind = KINDS[audio_format]
        self._rate_hz, self._pipe = rate_hz, _Pipe()
        self._container: Any = None
        self._resampler: Any = None
        to_hz = kind.rate_hz or rate_hz
        if not kind.codec:
            if to_hz != rate_hz:
                self._resampler = av.AudioResampler("s16", "mono", to_hz)
            return
        self._container = av.open(self._pipe, "w", kind.container, options=dict(kind.options or {}))
        self._container.metadata.update(tags)
        self._stream = self._container.add_stream(kind.codec, to_hz)
        self._stream.layout = "mono"
        if kind.bit_rate:
            self._stream.bit_rate = kind.bit_rate
        self._resampler = av.AudioResampler(self._stream.format.name, "mono", to_hz, self._frame_size())

    def _frame_size(self) -> int | None:
        self._stream.codec_context.open()
        return self._stream.codec_context.frame_size or None

    def push(self, samples: bytes) -> bytes:
        """Samples (an even number of bytes) to what is ready of the file by now."""
        frame = av.AudioFrame.from_ndarray(np.frombuffer(samples, "<i2")[None], "s16", "mono")
        frame.sample_rate = self._rate_hz
        if self._container is None:
            return samples if self._resampler is None else self._plain(self._resampler.resample(frame))
        self._encode(self._resampler.resample(frame))
        return self._pipe.take()

    def end(self) -> bytes:
        """The rest of the file."""
        if self._container is None:
            return b"" if self._resampler is None else self._plain(self._resampler.resample(None))
        self._encode(self._resampler.resample(None))
        self._mux(self._stream.encode(None))
        self._container.close()
        return self._pipe.take()

    def _encode(self, frames: list[Any]) -> None:
        for frame in frames:
            self._mux(self._stream.encode(frame))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            self._container.mux(packet)

    @staticmethod
    def _plain(frames: list[Any]) -> bytes:
        return b"".join(np.ascontiguousarray(frame.to_ndarray()).astype("<i2").tobytes() for frame in frames)
