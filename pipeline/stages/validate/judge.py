"""The core of validation for one recording: what is measured, what the networks say, what goes on to training.

A bad recording is a finding; nothing here raises for what a recording holds, opens a file or writes one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.io.audio import Audio, resample
from pipeline.io.recordings import Recording
from pipeline.records.clip import Clip, PreparedClip
from pipeline.records.clip_report import ClipResult, Finding, Measures, Repair, Span, Verdict
from pipeline.records.settings import ValidateSettings
from pipeline.signal.clip_rules import (
    Heard,
    describe_repairs,
    file_findings,
    limiter_findings,
    measures_of,
    name_findings,
    pace_findings,
    phone_findings,
    rejects,
    sound_findings,
    transcript_findings,
)
from pipeline.signal.dnsmos import Opinion
from pipeline.signal.examine import BURST_MIN_S, FRAME_S, Examination, examine, speech_only
from pipeline.signal.folder_rules import Traits
from pipeline.signal.frames import FRAMES_PER_S, Floats
from pipeline.signal.prepare import Piece, covered_seconds, prepare_piece, slice_pieces, whole_piece
from pipeline.signal.reading_rules import Reading
from pipeline.signal.share_text import share_words
from pipeline.signal.speaker_change import likeliest_change
from pipeline.signal.vad import Region, regions_of
from pipeline.stages.validate.tools import Tools
from pipeline.text.transcripts import estimate_phones, phone_error_rate, strip_markup

DNSMOS_ALL = 24  # recordings, about two minutes; after them the doubtful ones and every fourth: it is the dear part
DNSMOS_EVERY = 4
RECOGNISED_MAX_S = 40.0
RECOGNISED_MIN_PHONES = 6
MAX_MAGNITUDE = 1e6  # of full scale: float files scaled like 16-bit integers are still sound, 1e30 is not
MAX_RATE_HZ = 48_000  # higher rates hold nothing that a network here reproduces
SEVERITIES: tuple[Verdict, ...] = ("reject", "repair", "warn")
_REPAIRS_SHOWN_FROM_S = 0.3
_LIMITED_SHOWN_FROM_DB = 0.1
SHORT_PAUSE_S = 0.12  # a breath between phrases: long files are cut there
_SLICED_SHARE_MIN = 0.97  # of the speech: a slice that was left out takes its words with it


@dataclass(frozen=True)
class Output:
    """A prepared clip and its samples (n,), to be written."""

    clip: PreparedClip
    samples: Floats


@dataclass(frozen=True)
class Judged:
    """One recording after the rules that need no other recording."""

    result: ClipResult
    traits: Traits
    original: Floats | None = None
    seen: Examination | None = None
    outputs: tuple[Output, ...] = ()


def judge_recording(
    recording: Recording, index: int, settings: ValidateSettings, tools: Tools, needs_text: bool
) -> Judged:
    """Everything that can be said about one recording by itself, and its samples made ready for training."""
    clip, audio = recording.clip, recording.audio
    findings = list(recording.findings)
    if audio is None:
        findings += name_findings(clip)
        return _unreadable(recording, findings)
    findings += [*file_findings(clip, audio.info.container, audio.info.subtype), *transcript_findings(clip)]
    broken = int((~(np.abs(audio.samples) < MAX_MAGNITUDE)).sum())
    if broken:
        detail = "samples that are no numbers, or too large to be sound"
        shown = {"value": broken, "limit": 0, "unit": "samples", "detail": detail}
        findings.append(Finding(code="non_finite", severity="reject", **shown))
        return _unreadable(recording, findings, audio)
    seen = examine(audio.samples, audio.sample_rate_hz, settings.pause_max_s, tools.silero)
    original = seen.voice
    seen, denoised = _denoise(seen, settings, tools)
    heard, embedding = _listen(seen, index, settings, tools)
    findings += sound_findings(seen, heard, settings)
    reading = _read(clip, seen, tools)
    phone_error = None if reading is None else phone_error_rate(reading.expected, reading.heard)
    findings += phone_findings(phone_error, clip.language, settings)
    if seen.regions:
        findings += pace_findings(clip, seen.speech_s, settings)
    outputs, repairs = _prepare(clip, seen, findings, index, settings, tools, denoised)
    if needs_text:
        outputs = [output for output in outputs if output.clip.text is not None]
    measures = measures_of(seen, heard, (audio.info.container, audio.info.subtype))
    phones = _phones(clip)
    result = ClipResult(
        clip=clip,
        verdict=verdict_of(findings),
        sha256=recording.sha256,
        findings=tuple(findings),
        repairs=tuple(repairs),
        measures=measures.model_copy(update=_levels_and_pace(seen, outputs, phones, phone_error)),
        speech=tuple(Span(start_s=round(r.start_s, 3), end_s=round(r.end_s, 3)) for r in seen.regions),
        prepared=tuple(output.clip for output in outputs),
    )
    return Judged(
        result, _traits(recording, findings, seen, phones, (reading, embedding)), original, seen, tuple(outputs)
    )


def _unreadable(recording: Recording, findings: list[Finding], audio: Audio | None = None) -> Judged:
    clip = recording.clip
    measures = Measures()
    if audio is not None:
        measures = Measures(duration_s=round(audio.duration_s, 3), sample_rate_hz=audio.sample_rate_hz)
    result = ClipResult(
        clip=clip,
        verdict=verdict_of(findings),
        sha256=recording.sha256,
        findings=tuple(findings),
        measures=measures,
    )
    return Judged(result, Traits(clip.file_name, False, recording.sha256, 0.0, clip.text, clip.language))


def _traits(
    recording: Recording,
    findings: list[Finding],
    seen: Examination,
    phones: float | None,
    networks: tuple[Reading | None, Floats | None],
) -> Traits:
    clip = recording.clip
    return Traits(
        name=clip.file_name,
        usable=not rejects(findings),
        sha256=recording.sha256,
        speech_s=seen.speech_s,
        text=clip.text,
        language=clip.language,
        phones=phones,
        reading=networks[0],
        embedding=networks[1],
        fingerprint=seen.fingerprint,
    )


def verdict_of(findings: Sequence[Finding]) -> Verdict:
    """The severest finding, or `pass`."""
    found = {finding.severity for finding in findings}
    return next((verdict for verdict in SEVERITIES if verdict in found), "pass")


def _phones(clip: Clip) -> float | None:
    if clip.text is None:
        return None
    return estimate_phones(strip_markup(clip.text).text, clip.language)


def _read(clip: Clip, seen: Examination, tools: Tools) -> Reading | None:
    """The phones of the text and what the acoustic model hears; None where there is no model for it."""
    if tools.recognise is None or tools.spell is None or clip.text is None or not seen.regions:
        return None
    if seen.duration_s > RECOGNISED_MAX_S:
        return None
    expected = tools.spell(strip_markup(clip.text).text, clip.language)
    if expected is None or len(expected) < RECOGNISED_MIN_PHONES:
        return None
    return Reading(tuple(expected), tuple(tools.recognise(seen.frames.power)))


def _levels_and_pace(
    seen: Examination, outputs: Sequence[Output], phones: float | None, phone_error: float | None
) -> dict[str, float | None]:
    pace = phones / seen.speech_s if phones and seen.speech_s > 0 else None
    return {
        "gain_db": outputs[0].clip.gain_db if outputs else None,
        "limited_db": max((output.clip.limited_db for output in outputs), default=None),
        "phones_per_s": None if pace is None else round(pace, 2),
        "phone_error": None if phone_error is None else round(phone_error, 3),
    }


def _listen(seen: Examination, index: int, settings: ValidateSettings, tools: Tools) -> tuple[Heard, Floats | None]:
    """Ask the networks about a recording that holds speech; the embedding is a unit vector (256,)."""
    if not seen.regions or seen.duration_s < settings.clip_min_s or seen.speech_dbfs < settings.silence_dbfs:
        return Heard(), None
    is_asked = index < DNSMOS_ALL or index % DNSMOS_EVERY == 0 or not _is_spotless(seen)
    opinion = tools.opinion(seen.frames.samples) if tools.opinion and is_asked else None
    if tools.embed is None:
        return Heard(opinion), None
    partials = tools.embed(speech_only(seen))
    mean = partials.mean(axis=0)
    embedding: Floats = (mean / max(float(np.linalg.norm(mean)), 1e-9)).astype(np.float32)
    return Heard(opinion, likeliest_change(partials)), embedding


def _is_spotless(seen: Examination) -> bool:
    """Quiet pauses, quiet dips, a dry room: nine in ten corpus recordings, of which DNSMOS likes every background."""
    noise, rt60_s = seen.noise, seen.reverberation.rt60_s
    return noise.snr_db > 20 and noise.range_snr_db > 20 and rt60_s is not None and rt60_s < 0.4


def _denoise(seen: Examination, settings: ValidateSettings, tools: Tools) -> tuple[Examination, Repair | None]:
    """DeepFilterNet where the settings or the noise ask for it, kept only if nothing gets worse by it.

    A recording that is too noisy to be accepted stays so: what the network would have to invent is not the speaker.
    """
    noise = seen.noise
    is_asked = settings.denoise == "on" or (
        settings.denoise == "auto" and settings.snr_min_db <= noise.snr_db < settings.denoise_below_snr_db
    )
    if tools.denoise is None or not is_asked or not seen.regions:
        return seen, None
    cleaned = tools.denoise(seen.voice, seen.sample_rate_hz)
    after = examine(cleaned[None, :], seen.sample_rate_hz, settings.pause_max_s, tools.silero)
    before_mos, after_mos = (tools.opinion(one.frames.samples) if tools.opinion else None for one in (seen, after))
    is_better = after.noise.snr_db >= noise.snr_db and after.speech_s >= 0.9 * seen.speech_s
    if before_mos is not None and after_mos is not None:
        is_better = is_better and after_mos.ovr >= before_mos.ovr and after_mos.sig >= before_mos.sig - 0.1
    if not is_better:
        return seen, None
    told = [_told(one.noise.snr_db, mos) for one, mos in ((seen, before_mos), (after, after_mos))]
    return after, Repair(code="denoise", before=told[0], after=told[1])


def _told(snr_db: float, opinion: Opinion | None) -> str:
    return f"SNR {snr_db:.1f} dB" + (f", DNSMOS {opinion.ovr:.2f}" if opinion else "")


def _prepare(
    clip: Clip,
    seen: Examination,
    findings: list[Finding],
    index: int,
    settings: ValidateSettings,
    tools: Tools,
    denoised: Repair | None,
) -> tuple[list[Output], list[Repair]]:
    """The training clips of a recording that nothing rejects; adds what the limiter found to `findings`."""
    if rejects(findings) or not seen.regions:
        return [], []
    text = strip_markup(clip.text).text if clip.text is not None else None
    is_long = any(finding.code == "needs_slicing" for finding in findings)
    pause_max_s = settings.pause_max_s
    pieces: tuple[Piece, ...] = (whole_piece(seen.regions, seen.duration_s, text, pause_max_s),)
    if is_long:
        spoken = (text, clip.language)
        close = regions_of(seen.speech.webrtc, FRAME_S, SHORT_PAUSE_S, BURST_MIN_S)
        speech = (close, seen.frames.level_db)
        pieces = slice_pieces(speech, seen.duration_s, spoken, settings.slice_max_s, pause_max_s)
        pieces = _with_heard_text(pieces, close, seen.frames.power, spoken, tools)
    outputs: list[Output] = []
    repairs = [denoised] if denoised else []
    for number, piece in enumerate(pieces):
        name = f"clips/{index:05d}{f'-{number:03d}' if is_long else ''}.flac"
        output, edits = _prepare_one(clip, seen, piece, name, settings, denoised is not None)
        outputs.append(output)
        repairs += edits
    findings += limiter_findings(max((output.clip.limited_db for output in outputs), default=0.0))
    repairs += describe_repairs(clip, seen, findings, outputs[0].clip.file if outputs else "")
    if is_long:
        texts = "with their sentences" if pieces and pieces[0].text else "without text: it has to be written for each"
        repairs.append(Repair(code="needs_slicing", before="1 file", after=f"{len(pieces)} slices {texts}"))
    return outputs, repairs


def _with_heard_text(
    pieces: tuple[Piece, ...], regions: Sequence[Region], power: Floats, spoken: tuple[str | None, str], tools: Tools
) -> tuple[Piece, ...]:
    """Slices with their words, where an acoustic model can tell which those are; as they were where it cannot."""
    text, language = spoken
    spoken_s = sum(region.duration_s for region in regions)
    is_whole = covered_seconds(pieces, regions) > _SLICED_SHARE_MIN * spoken_s
    if not text or language != "en" or not is_whole or any(piece.text for piece in pieces):
        return pieces
    if tools.recognise is None or tools.spell is None:
        return pieces
    words = [(word, tuple(tools.spell(word, language) or ())) for word in text.split()]
    cuts = [(round(piece.start_s * FRAMES_PER_S), round(piece.end_s * FRAMES_PER_S)) for piece in pieces]
    texts = share_words(words, [tools.recognise(power[:, start:end]) for start, end in cuts])
    if texts is None:
        return pieces
    return tuple(replace(piece, text=share) for piece, share in zip(pieces, texts, strict=True))


def _prepare_one(
    clip: Clip, seen: Examination, piece: Piece, file: str, settings: ValidateSettings, noise_reduced: bool
) -> tuple[Output, list[Repair]]:
    levels = (seen.speech_dbfs, settings.target_rms_dbfs, settings.true_peak_max_dbfs)
    rate = seen.sample_rate_hz
    made = prepare_piece(seen.voice, rate, piece, seen.regions, settings.pause_max_s, levels)
    samples = made.normalised.samples
    repairs = []
    if rate > MAX_RATE_HZ:
        samples = resample(samples, rate, MAX_RATE_HZ)
        repairs.append(Repair(code="resampled", before=f"{rate} Hz", after=f"{MAX_RATE_HZ} Hz"))
        rate = MAX_RATE_HZ
    if made.trimmed_s + made.shortened_s > _REPAIRS_SHOWN_FROM_S and "-" not in Path(file).stem:
        before, after = f"{seen.duration_s:.2f} s", f"{len(samples) / rate:.2f} s"
        repairs.append(Repair(code="trimmed", before=before, after=after))
    gain_db = round(made.normalised.gain_db, 2)
    limited_db = round(made.normalised.limited_db, 2)
    limited = f", peaks limited by {limited_db:.1f} dB" if limited_db >= _LIMITED_SHOWN_FROM_DB else ""
    repairs.append(
        Repair(
            code="gain",
            before=f"speech at {seen.speech_dbfs:.1f} dBFS",
            after=f"{settings.target_rms_dbfs:.1f} dBFS ({gain_db:+.1f} dB{limited})",
        )
    )
    pcm = np.round(np.clip(samples, -1.0, 1.0) * 32767).astype("<i2")
    prepared = PreparedClip(
        file=file,
        source=clip.file_name,
        start_s=round(piece.start_s, 3),
        end_s=round(piece.end_s, 3),
        text=piece.text,
        language=clip.language,
        split=clip.split,
        sample_rate_hz=rate,
        duration_s=round(len(samples) / rate, 4),
        speech_s=round(piece.speech_s, 3),
        gain_db=gain_db,
        limited_db=limited_db,
        noise_reduced=noise_reduced,
        sha256=hashlib.sha256(pcm.tobytes()).hexdigest(),
    )
    return Output(prepared, (pcm / np.float32(32768)).astype(np.float32)), repairs
