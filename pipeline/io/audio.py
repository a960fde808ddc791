"""Read and write audio files: bounded, by content, without trusting the header.

Samples are always float32 of shape (channels, frames), full scale = 1.0. Nothing here judges a recording:
`pipeline.signal` measures and `pipeline.stages.validate` decides.
"""

import io
import os
import re
import stat
import struct
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shutil import which
from typing import Literal

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from pipeline.errors import VoiceRefused
from pipeline.io.files import write_atomically
from pipeline.io.processes import child_environment

Samples = npt.NDArray[np.float32]  # (channels, frames), or (frames,) where a docstring says mono
AudioFault = Literal["empty", "corrupt", "too_large", "too_long", "unsupported_format", "unreadable", "unsafe_path"]

_HEAD_BYTES = 65536
_BLOCK_VALUES = 1 << 20  # values decoded at a time: 4 MB, whatever the header claims
LISTENING_KBIT_S = 12.0
_WRITTEN_FRAMES = 1 << 16  # at a time: libsndfile's Vorbis encoder overflows the stack with minutes at once
_OPUS_RATES_HZ = (8000, 12000, 16000, 24000)  # of those that Opus takes, what so few bits can carry
_LISTENED_FRAMES = 60 * 48000  # more is nothing that a page of ours plays
_OPUS_KBIT_S = (6.0, 256.0)  # what libsndfile makes of the compression levels 1 and 0
_STREAM_SIZES = (0xFFFFFFFF, 0)  # a WAV written to a pipe cannot know its size and says so
_DEMUXERS = {"M4A": "mov", "AAC": "aac", "MATROSKA": "matroska", "ASF": "asf"}  # what libsndfile cannot read
_CODEC = re.compile(rb"Stream #\d+:\d+.*?: Audio: (\w+)")
_LOSSY_SLACK_FRAMES = 4608  # MP3 and Vorbis headers count whole packets: up to four frames of 1152


class AudioFileError(VoiceRefused):
    """A file that is not audio we can read. `fault` is the machine-readable kind, `detail` the plain sentence."""

    def __init__(self, path: Path | str, fault: AudioFault, detail: str) -> None:
        super().__init__(f"{path}: {detail}")
        self.path = str(path)
        self.fault: AudioFault = fault
        self.detail = detail


@dataclass(frozen=True)
class AudioLimits:
    """What one file may cost before it is refused. Checked on the header first and again while decoding."""

    max_bytes: int = 1 << 30
    max_duration_s: float = 1800.0
    max_channels: int = 16
    min_sample_rate_hz: int = 1000
    max_sample_rate_hz: int = 384_000


@dataclass(frozen=True)
class AudioInfo:
    """What the header says, after it has been compared with the file's size."""

    container: str  # by content: WAV FLAC OGG MP3 AIFF AU CAF W64 RF64 M4A AAC MATROSKA ASF
    subtype: str  # libsndfile's name: PCM_16, FLOAT, ULAW, VORBIS ...; ffmpeg's name of the codec where that decodes
    sample_rate_hz: int
    channels: int
    frames: int
    size_bytes: int

    @property
    def duration_s(self) -> float:
        return self.frames / self.sample_rate_hz


@dataclass(frozen=True)
class Audio:
    """A decoded file: `samples` float32 (channels, frames), not clipped, not scaled, non-finite values kept."""

    samples: Samples
    sample_rate_hz: int
    info: AudioInfo

    @property
    def duration_s(self) -> float:
        return self.samples.shape[-1] / self.sample_rate_hz

    @property
    def mono(self) -> Samples:
        """Mean over the channels, (frames,)."""
        mixed: Samples = self.samples[0] if len(self.samples) == 1 else self.samples.mean(axis=0, dtype=np.float32)
        return mixed


def read_audio(path: Path | str, limits: AudioLimits | None = None) -> Audio:
    """Decode a whole file within `limits`.

    Regular files only (no symlink is followed, no pipe is waited for). The container is recognised by its bytes, not by
    its name. Raises AudioFileError: a header that promises more than the file holds is `corrupt`, not shortened.
    """
    limits = limits or AudioLimits()
    with _OpenFile(path, limits) as source:
        if source.container in _DEMUXERS:
            return _read_through_ffmpeg(source, limits)
        with source.sound_file() as sound:
            info = source.checked_info(sound)
            try:
                samples = _decode(sound, info, source, limits)
            except soundfile.LibsndfileError as error:
                raise source.error("corrupt", f"decoding stops: {_reason(error)}") from None
    return Audio(samples, info.sample_rate_hz, info)


def resample(samples: Samples, from_hz: int, to_hz: int) -> Samples:
    """Band-limited resampling (soxr HQ) of (channels, frames) or (frames,); non-finite samples must be gone."""
    if from_hz == to_hz:
        return samples
    turned = samples.T if samples.ndim == 2 else samples  # (channels, frames) -> (frames, channels)
    resampled = soxr.resample(np.ascontiguousarray(turned), from_hz, to_hz, quality="HQ").T
    return np.ascontiguousarray(resampled, dtype=np.float32)


def read_at_rates(path: Path | str) -> Callable[[int], Samples]:
    """A recording as a function of the rate in Hz: mono (frames,), decoded once, and once for every rate asked for."""
    audio = read_audio(path)

    @cache
    def at(rate_hz: int) -> Samples:
        return resample(audio.mono, audio.sample_rate_hz, rate_hz)

    return at


def encode_audio(samples: Samples, sample_rate_hz: int, container: str = "FLAC", subtype: str = "PCM_16") -> bytes:
    """The bytes of a file holding (channels, frames) or (frames,). Same samples, same bytes."""
    buffer = io.BytesIO()
    frames = samples.T if samples.ndim == 2 else samples  # (channels, frames) -> (frames, channels)
    channels = 1 if frames.ndim == 1 else frames.shape[1]
    with soundfile.SoundFile(buffer, "w", sample_rate_hz, channels, subtype, format=container) as sound:
        for at in range(0, len(frames), _WRITTEN_FRAMES):
            sound.write(frames[at : at + _WRITTEN_FRAMES])
    return buffer.getvalue()


def encode_for_listening(samples: Samples, sample_rate_hz: int, kbit_s: float = LISTENING_KBIT_S) -> bytes:
    """A small Opus file (Ogg) of mono (frames,), for pages that are read once; browsers play it since Safari 18.4."""
    rate_hz = next((rate for rate in _OPUS_RATES_HZ if rate >= sample_rate_hz), _OPUS_RATES_HZ[-1])
    buffer, sound = io.BytesIO(), resample(samples, sample_rate_hz, rate_hz)
    least, most = _OPUS_KBIT_S
    level = (most - kbit_s) / (most - least)
    soundfile.write(buffer, sound, rate_hz, format="OGG", subtype="OPUS", compression_level=level)
    return buffer.getvalue()


def decode_listened(data: bytes) -> tuple[Samples, int] | None:
    """What `encode_for_listening` made: mono (frames,) and its rate; None for anything else."""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            if (sound.format, sound.subtype, sound.channels) != ("OGG", "OPUS", 1):
                return None
            return sound.read(_LISTENED_FRAMES, dtype="float32"), sound.samplerate
    except soundfile.LibsndfileError:
        return None


def write_audio(path: Path | str, samples: Samples, sample_rate_hz: int, subtype: str = "PCM_16") -> None:
    """Write .wav, .flac or .ogg: the file appears complete or not at all. What is beyond full scale is clipped.

    Raises:
        TransientError: the disk is full.
    """
    target = Path(path)
    container = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG"}.get(target.suffix.lower())
    if container is None:
        raise ValueError(f"{target}: written formats are .wav, .flac and .ogg")
    data = encode_audio(samples, sample_rate_hz, container, "VORBIS" if container == "OGG" else subtype)
    write_atomically(target, data)


def sniff_container(head: bytes) -> str | None:
    """The container by its first bytes; None where they are no audio we know."""
    four, form = head[:4], head[8:12]
    if four in (b"RIFF", b"RIFX", b"RF64") and form == b"WAVE":
        return "RF64" if four == b"RF64" else "WAV"
    if four == b"FORM" and form in (b"AIFF", b"AIFC"):
        return "AIFF"
    if head[4:8] == b"ftyp":
        return "M4A"
    known = {b"fLaC": "FLAC", b"OggS": "OGG", b".snd": "AU", b"caff": "CAF", b"riff": "W64"}
    known |= {b"\x1a\x45\xdf\xa3": "MATROSKA", b"\x30\x26\xb2\x75": "ASF"}
    if four in known:
        return known[four]
    if head[:3] == b"ID3" or (len(head) > 2 and head[0] == 0xFF and head[1] & 0xE6 in (0xE2, 0xE4, 0xE6)):
        return "MP3"
    if len(head) > 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "AAC"
    return None


class _OpenFile:
    """One regular file, opened once and read through its descriptor, so that a swapped path changes nothing."""

    def __init__(self, path: Path | str, limits: AudioLimits) -> None:
        self.path = Path(path)
        self.limits = limits
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            self.descriptor = os.open(self.path, flags)
        except OSError as error:
            fault: AudioFault = "unsafe_path" if self.path.is_symlink() else "unreadable"
            raise self.error(fault, "a symbolic link" if fault == "unsafe_path" else str(error.strerror)) from None
        try:
            self._check()
        except BaseException:
            os.close(self.descriptor)
            raise

    def _check(self) -> None:
        status = os.fstat(self.descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise self.error("unreadable", "not a regular file")
        self.size_bytes = status.st_size
        if self.size_bytes == 0:
            raise self.error("empty", "0 bytes")
        if self.size_bytes > self.limits.max_bytes:
            raise self.error("too_large", f"{self.size_bytes} bytes, at most {self.limits.max_bytes} are read")
        self.head = os.pread(self.descriptor, _HEAD_BYTES, 0)
        container = sniff_container(self.head)
        if container is None:
            raise self.error("corrupt", self._not_audio())
        self.container: str = container

    def _not_audio(self) -> str:
        if self.head.startswith(b"version https://git-lfs"):
            return "a Git LFS pointer, not the recording: run `git lfs pull`"
        return "the bytes are not a known audio format"

    def __enter__(self) -> "_OpenFile":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def error(self, fault: AudioFault, detail: str) -> AudioFileError:
        return AudioFileError(self.path, fault, detail)

    def sound_file(self) -> soundfile.SoundFile:
        """libsndfile on our descriptor. Raises AudioFileError where the header is damaged."""
        if self.container in _DEMUXERS:
            detail = f"{self.container} audio has no header that is read here; convert it to FLAC"
            raise self.error("unsupported_format", detail)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        try:
            return soundfile.SoundFile(self.descriptor, closefd=False)
        except soundfile.LibsndfileError as error:
            raise self.error("corrupt", f"damaged header: {_reason(error)}") from None

    def checked_info(self, sound: soundfile.SoundFile) -> AudioInfo:
        limits, rate, channels, frames = self.limits, sound.samplerate, sound.channels, sound.frames
        if not limits.min_sample_rate_hz <= rate <= limits.max_sample_rate_hz:
            raise self.error("corrupt", f"damaged header: a sample rate of {rate} Hz")
        if not 1 <= channels <= limits.max_channels:
            raise self.error("unsupported_format", f"{channels} channels, at most {limits.max_channels} are read")
        declared = _declared_wav_data(self.head) if self.container == "WAV" else None
        if declared is not None and declared[1] not in _STREAM_SIZES and sum(declared) > self.size_bytes + 1:
            held = max(0, self.size_bytes - declared[0])
            raise self.error("corrupt", f"the header promises {declared[1]} bytes of sound, {held} follow")
        if frames <= 0:
            raise self.error("empty", "no samples")
        if frames > limits.max_duration_s * rate and self.container != "OGG":
            raise self.error("too_long", f"{frames / rate:.0f} s, at most {limits.max_duration_s:.0f} s are read")
        return AudioInfo(self.container, sound.subtype, rate, channels, frames, self.size_bytes)


def _decode(sound: soundfile.SoundFile, info: AudioInfo, source: _OpenFile, limits: AudioLimits) -> Samples:
    """Decode block by block, so that a lying header never allocates what is not there."""
    most_frames = int(limits.max_duration_s * info.sample_rate_hz)
    block_frames = max(1, _BLOCK_VALUES // info.channels)
    blocks: list[npt.NDArray[np.float32]] = []
    total = 0
    while True:
        block = sound.read(block_frames, dtype="float32", always_2d=True)
        if not len(block):
            break
        total += len(block)
        if total > most_frames:
            raise source.error("too_long", f"more than {limits.max_duration_s:.0f} s")
        blocks.append(block)
    if not total:
        raise source.error("empty", "no samples")
    if total + _LOSSY_SLACK_FRAMES < info.frames or (total < info.frames and info.container not in ("MP3", "OGG")):
        raise source.error("corrupt", f"the header promises {info.frames} frames, {total} could be decoded")
    frames = np.concatenate(blocks) if len(blocks) > 1 else blocks[0]
    return np.ascontiguousarray(frames.T)  # (frames, channels) -> (channels, frames)


def _declared_wav_data(head: bytes) -> tuple[int, int] | None:
    """Offset and declared size of the data chunk within the first 64 KiB, None where it is not there."""
    order = ">" if head[:4] == b"RIFX" else "<"
    position = 12
    while position + 8 <= len(head):
        name, (size,) = head[position : position + 4], struct.unpack(order + "I", head[position + 4 : position + 8])
        if name == b"data":
            return position + 8, size
        position += 8 + size + (size & 1)
    return None


def _read_through_ffmpeg(source: _OpenFile, limits: AudioLimits) -> Audio:
    """What phones and browsers record and libsndfile cannot read: an installed ffmpeg converts it to a bounded WAV.

    The demuxer follows from the first bytes, so that no playlist or script is opened in its place.
    """
    program = which("ffmpeg")
    if program is None:
        raise source.error(
            "unsupported_format", f"{source.container} audio needs ffmpeg (not installed); convert it to FLAC"
        )
    os.lseek(source.descriptor, 0, os.SEEK_SET)
    patience_s = 60 + limits.max_duration_s / 10
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "decoded.wav"
        command = [program, "-nostdin", "-hide_banner", "-protocol_whitelist", "file,pipe"]
        command += ["-f", _DEMUXERS[source.container], "-i", f"/dev/fd/{source.descriptor}", "-map", "0:a:0"]
        command += ["-t", f"{limits.max_duration_s + 1:.0f}", "-fs", str(limits.max_bytes)]
        command += ["-c:a", "pcm_f32le", "-y", str(target)]
        try:
            done = subprocess.run(
                command,
                check=True,
                capture_output=True,
                timeout=patience_s,
                pass_fds=[source.descriptor],
                env=child_environment(os.environ),
            )
        except (subprocess.SubprocessError, OSError):
            raise source.error("corrupt", f"ffmpeg cannot decode this {source.container} file") from None
        decoded = read_audio(target, limits)
    codec = _CODEC.search(done.stderr)
    subtype = codec.group(1).decode("ascii").upper() if codec else "UNKNOWN"
    shape = (decoded.sample_rate_hz, len(decoded.samples), decoded.info.frames)
    return Audio(
        decoded.samples, decoded.sample_rate_hz, AudioInfo(source.container, subtype, *shape, source.size_bytes)
    )


def _reason(error: soundfile.LibsndfileError) -> str:
    return str(error.error_string).strip().rstrip(".").removeprefix("Error : ")
