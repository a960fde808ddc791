"""Everything that is measured on one recording, in one pass over its samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr

from pipeline.signal.bandwidth import measure_bandwidth_hz
from pipeline.signal.channels import Channels, compare_channels
from pipeline.signal.clipping import Clipping, measure_clipping
from pipeline.signal.dropouts import Dropouts, measure_dropouts
from pipeline.signal.frames import ANALYSIS_RATE_HZ, Floats, Frames, active_level_dbfs, analyse_frames
from pipeline.signal.levels import Levels, measure_levels
from pipeline.signal.noise import Noise, measure_noise
from pipeline.signal.reverberation import Reverberation, measure_reverberation
from pipeline.signal.similarity import Fingerprint, fingerprint
from pipeline.signal.vad import Detector, Region, Speech, find_speech, kept_seconds, regions_of, silero_probabilities
from pipeline.signal.voicing import Voicing, measure_voicing

FRAME_S = 0.01
BURST_MIN_S = 0.09
_ACTIVE_RANGE_DB = 30.0


@dataclass(frozen=True)
class Examination:
    """One recording, measured.

    Attributes:
        voice: the chosen channel without DC at the original rate, (n,); non-finite samples are zero.
        dc_offset: that was taken off, as a share of full scale.
        peak: largest magnitude as recorded, 1.0 = full scale.
        frames: short-time analysis at 16 kHz.
        regions: speech by WebRTC, pauses up to `pause_max_s` included.
        speech_s: speech with its natural pauses, of which none counts more than `pause_max_s`.
        silero_share: of the frames that are not silent, those that silero takes for speech.
        speech_dbfs: level of the speech alone, as recorded.
    """

    voice: Floats
    sample_rate_hz: int
    non_finite: int
    dc_offset: float
    peak: float
    channels: Channels
    levels: Levels
    frames: Frames
    speech: Speech
    regions: tuple[Region, ...]
    speech_s: float
    silero_share: float
    speech_dbfs: float
    clipping: Clipping
    bandwidth_hz: float
    noise: Noise
    reverberation: Reverberation
    dropouts: Dropouts
    voicing: Voicing
    fingerprint: Fingerprint

    @property
    def duration_s(self) -> float:
        return len(self.voice) / self.sample_rate_hz


def examine(
    samples: Floats, sample_rate_hz: int, pause_max_s: float, silero: Detector = silero_probabilities
) -> Examination:
    """Measure a decoded recording, (channels, n) as it came from the file."""
    bad = ~np.isfinite(samples)
    finite = np.where(bad, np.float32(0), samples) if bad.any() else samples
    means = finite.mean(axis=1, dtype=np.float64, keepdims=True).astype(np.float32)
    centred = finite - means
    channels = compare_channels(centred, sample_rate_hz)
    voice = np.ascontiguousarray(centred[channels.chosen])
    analysis = voice
    if sample_rate_hz != ANALYSIS_RATE_HZ:
        analysis = np.asarray(soxr.resample(voice, sample_rate_hz, ANALYSIS_RATE_HZ, quality="HQ"), np.float32)
    frames = analyse_frames(analysis)
    speech = find_speech(frames, silero)
    regions = regions_of(speech.webrtc, FRAME_S, pause_max_s, BURST_MIN_S)
    first_frame = round(regions[0].start_s / FRAME_S) if regions else 0
    return Examination(
        voice=voice,
        sample_rate_hz=sample_rate_hz,
        non_finite=int(bad.sum()),
        dc_offset=float(means[channels.chosen, 0]),
        peak=float(np.abs(finite).max(initial=0.0)),
        channels=channels,
        levels=measure_levels(voice, sample_rate_hz),
        frames=frames,
        speech=speech,
        regions=regions,
        speech_s=kept_seconds(regions, pause_max_s),
        silero_share=_silero_share(frames, speech),
        speech_dbfs=_speech_dbfs(frames, speech),
        clipping=measure_clipping(voice, sample_rate_hz),
        bandwidth_hz=measure_bandwidth_hz(voice, sample_rate_hz),
        noise=measure_noise(frames, speech.sure, speech.pause),
        reverberation=measure_reverberation(frames),
        dropouts=measure_dropouts(voice, sample_rate_hz, active_level_dbfs(analysis)),
        voicing=measure_voicing(frames, speech.webrtc),
        fingerprint=fingerprint(frames, first_frame),
    )


def speech_only(examination: Examination) -> Floats:
    """The speech of a recording without its pauses, mono 16 kHz, (n,): what speaker networks listen to."""
    kept = np.convolve(examination.speech.webrtc, np.ones(13), mode="same") > 0  # 60 ms on either side
    mask = np.repeat(kept, round(FRAME_S * ANALYSIS_RATE_HZ))[: len(examination.frames.samples)]
    speech: Floats = examination.frames.samples[: len(mask)][mask]
    return speech


def _silero_share(frames: Frames, speech: Speech) -> float:
    active = frames.level_db > frames.level_db.max(initial=-120.0) - _ACTIVE_RANGE_DB
    return float((speech.silero[active] >= 0.5).mean()) if active.any() else 0.0


def _speech_dbfs(frames: Frames, speech: Speech) -> float:
    """Mean power of the surest speech frames there are, as recorded."""
    chosen = speech.sure if speech.sure.any() else speech.webrtc
    if not chosen.any():
        return active_level_dbfs(frames.samples) - frames.gain_db
    power = np.power(10.0, frames.level_db[chosen].astype(np.float64) / 10)
    return float(10 * np.log10(max(power.mean(), 1e-14))) - frames.gain_db
