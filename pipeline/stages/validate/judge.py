"""The core of validation for one recording: what is measured, what the networks say, what goes on to training.

A bad recording is a finding; nothing here raises for what a recording holds, opens a file or writes one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.io.audio import Audio, resample
from pipeline.records.clip import Clip, PreparedClip
from pipeline.records.clip_report import ClipResult, Finding, Measures, Repair, Span, rejects, verdict_of
from pipeline.records.settings import ValidateSettings
from pipeline.signal.clip_rules import (
    Heard,
    Words,
    describe_repairs,
    file_findings,
    limiter_findings,
    measures_of,
    name_findings,
    pace_findings,
    phone_findings,
    sound_findings,
    transcript_findings,
    word_findings,
)
from pipeline.signal.dnsmos import Opinion
from pipeline.signal.examine import BURST_MIN_S, FRAME_S, Examination, examine, speech_only
from pipeline.signal.folder_rules import Judged
from pipeline.signal.frames import FRAMES_PER_S, Floats
from pipeline.signal.prepare import Piece, covered_seconds, prepare_piece, slice_pieces, whole_piece
from pipeline.signal.reading_rules import Reading
from pipeline.signal.share_text import share_words
from pipeline.signal.speaker_change import likeliest_change
from pipeline.signal.vad import Region, regions_of
from pipeline.stages.validate.tools import Terms, Tools
from pipeline.text.transcripts import estimate_phones, phone_error_rate, strip_markup

DNSMOS_ALL = 24  # recordings, about two minutes; after them the doubtful ones and every fourth, since it is expensive
DNSMOS_EVERY = 4
LIKENESS_MIN = (
    0.7  # of a recording to itself without noise: 0.83 to 0.99 at 20 dB, 0.73 to 0.88 at 10; strangers below 0.4
)
RECOGNISED_MAX_S = 40.0
RECOGNISED_MIN_PHONES = 6
MAX_MAGNITUDE = 1e6  # of full scale: float files scaled like 16-bit integers are still sound, 1e30 is not
MAX_RATE_HZ = 48_000  # higher rates hold nothing that a network here reproduces
_REPAIRS_SHOWN_FROM_S = 0.3
_LIMITED_SHOWN_FROM_DB = 0.1
SHORT_PAUSE_S = 0.12  # a breath between phrases: long files are cut there
_SLICED_SHARE_MIN = 0.97  # of the speech: a slice that was left out takes its words with it

Made = tuple[PreparedClip, Floats]  # a clip that goes on to training, and its samples (n,), to be written


def judge_recording(known: ClipResult, audio: Audio | None, index: int, terms: Terms, needs_text: bool) -> Judged:
    """Everything that can be said about one recording by itself, and its samples made ready for training.

    `known`: what is known of it already, and why it cannot be read where there is no `audio`.
    """
    settings, tools = terms.settings, terms.tools
    clip, findings = known.clip, list(known.findings)
    if audio is None:
        findings += name_findings(clip)
        return _unreadable(known, findings, Measures())
    findings += [*file_findings(clip, audio.info.container, audio.info.subtype), *transcript_findings(clip)]
    broken = int((~(np.abs(audio.samples) < MAX_MAGNITUDE)).sum())
    if broken:
        detail = "samples that are not numbers, or are too large to be sound"
        shown = {"value": broken, "limit": 0, "unit": "samples", "detail": detail}
        findings.append(Finding(code="non_finite", severity="reject", **shown))
        measures = Measures(duration_s=round(audio.duration_s, 3), sample_rate_hz=audio.sample_rate_hz)
        return _unreadable(known, findings, measures)
    seen = examine(audio.samples, audio.sample_rate_hz, settings.pause_max_s, tools.silero)
    original = seen.voice
    heard, embedding = _listen(seen, index, settings, tools)
    found, denoised = [*sound_findings(seen, heard, settings)], None
    if not rejects(found):
        seen, denoised = _denoise(seen, settings, tools)
    if denoised is not None:
        heard, embedding = _listen(seen, index, settings, tools)
        found = [*sound_findings(seen, heard, settings)]
    said = None if clip.text is None else strip_markup(clip.text).text
    phones = None if said is None else estimate_phones(said, clip.language)
    reading = _read(said, clip.language, seen, tools)
    phone_error = None if reading is None else phone_error_rate(reading.expected, reading.heard)
    findings += [*found, *phone_findings(phone_error, clip.language, settings)]
    words = None
    if tools.listen is not None and said is not None and seen.regions:
        words = tools.listen(seen.frames.samples, said, clip.language)
    findings += word_findings(words)
    if seen.regions:
        findings += pace_findings(phones, seen.speech_s, settings)
    made, repairs = _prepare(clip, seen, findings, index, terms, denoised)
    if needs_text:
        made = [(prepared, samples) for prepared, samples in made if prepared.text is not None]
    prepared_clips = tuple(prepared for prepared, _ in made)
    measures = measures_of(seen, heard, (audio.info.container, audio.info.subtype))
    told = {
        "verdict": verdict_of(findings),
        "findings": tuple(findings),
        "repairs": tuple(repairs),
        "measures": measures.model_copy(update=_levels_and_pace(seen, prepared_clips, phones, phone_error, words)),
        "speech": tuple(Span(start_s=round(r.start_s, 3), end_s=round(r.end_s, 3)) for r in seen.regions),
        "prepared": prepared_clips,
    }
    return Judged(
        known.model_copy(update=told),
        speech_s=seen.speech_s,
        phones=phones,
        reading=reading,
        embedding=embedding,
        fingerprint=seen.fingerprint,
        seen=seen,
        original=original,
        prepared=tuple(samples for _, samples in made),
    )


def _unreadable(known: ClipResult, findings: list[Finding], measures: Measures) -> Judged:
    told = {"verdict": verdict_of(findings), "findings": tuple(findings), "measures": measures}
    return Judged(known.model_copy(update=told))


def _read(said: str | None, language: str, seen: Examination, tools: Tools) -> Reading | None:
    """The phones of what is said and what the acoustic model hears; None where there is no model for it."""
    if tools.recognise is None or tools.spell is None or said is None or not seen.regions:
        return None
    if seen.duration_s > RECOGNISED_MAX_S:
        return None
    expected = tools.spell(said, language)
    if expected is None or len(expected) < RECOGNISED_MIN_PHONES:
        return None
    return Reading(tuple(expected), tuple(tools.recognise(seen.frames.power)))


def _levels_and_pace(
    seen: Examination,
    prepared: Sequence[PreparedClip],
    phones: float | None,
    phone_error: float | None,
    words: Words | None,
) -> dict[str, float | None]:
    pace = phones / seen.speech_s if phones and seen.speech_s > 0 else None
    return {
        "gain_db": prepared[0].gain_db if prepared else None,
        "limited_db": max((one.limited_db for one in prepared), default=None),
        "phones_per_s": None if pace is None else round(pace, 2),
        "phone_error": None if phone_error is None else round(phone_error, 3),
        "word_error": None if words is None else round(words.differs.rate, 3),
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
    likeness = tools.likeness(seen.voice, cleaned, seen.sample_rate_hz) if tools.likeness and is_better else None
    if not is_better or (likeness is not None and likeness < LIKENESS_MIN):
        return seen, None
    told = [_told(one.noise.snr_db, mos) for one, mos in ((seen, before_mos), (after, after_mos))]
    likened = "" if likeness is None else f", likeness {likeness:.2f}"
    return after, Repair(code="denoise", before=told[0], after=told[1] + likened)


def _told(snr_db: float, opinion: Opinion | None) -> str:
    return f"SNR {snr_db:.1f} dB" + (f", DNSMOS {opinion.ovr:.2f}" if opinion else "")


def _prepare(
    clip: Clip,
    seen: Examination,
    findings: list[Finding],
    index: int,
    terms: Terms,
    denoised: Repair | None,
) -> tuple[list[Made], list[Repair]]:
    """The training clips of a recording that nothing rejects; adds what the limiter found to `findings`."""
    if rejects(findings) or not seen.regions:
        return [], []
    settings = terms.settings
    text = strip_markup(clip.text).text if clip.text is not None else None
    is_long = any(finding.code == "needs_slicing" for finding in findings)
    pause_max_s = settings.pause_max_s
    pieces: tuple[Piece, ...] = (whole_piece(seen.regions, seen.duration_s, text, pause_max_s),)
    if is_long:
        spoken = (text, clip.language)
        close = regions_of(seen.speech.webrtc, FRAME_S, SHORT_PAUSE_S, BURST_MIN_S)
        speech = (close, seen.frames.level_db)
        pieces = slice_pieces(speech, seen.duration_s, spoken, settings.slice_max_s, pause_max_s)
        pieces = _with_heard_text(pieces, close, seen.frames.power, spoken, terms.tools)
    made: list[Made] = []
    repairs = [denoised] if denoised else []
    for number, piece in enumerate(pieces):
        name = f"clips/{index:05d}{f'-{number:03d}' if is_long else ''}.flac"
        one, edits = _prepare_one(clip, seen, piece, name, settings, denoised is not None)
        made.append(one)
        repairs += edits
    findings += limiter_findings(max((prepared.limited_db for prepared, _ in made), default=0.0))
    repairs += describe_repairs(clip, seen, findings, made[0][0].file if made else "")
    if is_long:
        texts = "with their sentences" if pieces and pieces[0].text else "without text: it has to be written for each"
        repairs.append(Repair(code="needs_slicing", before="1 file", after=f"{len(pieces)} slices {texts}"))
    return made, repairs


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
) -> tuple[Made, list[Repair]]:
    levels = (seen.speech_dbfs, settings.target_rms_dbfs, settings.true_peak_max_dbfs)
    rate = seen.sample_rate_hz
    normalised, left_out_s = prepare_piece(seen.voice, rate, piece, seen.regions, settings.pause_max_s, levels)
    samples, repairs = normalised.samples, []
    if rate > MAX_RATE_HZ:
        samples = resample(samples, rate, MAX_RATE_HZ)
        repairs.append(Repair(code="resampled", before=f"{rate} Hz", after=f"{MAX_RATE_HZ} Hz"))
        rate = MAX_RATE_HZ
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
        gain_db=round(normalised.gain_db, 2),
        limited_db=round(normalised.limited_db, 2),
        noise_reduced=noise_reduced,
        sha256=hashlib.sha256(pcm.tobytes()).hexdigest(),
    )
    if left_out_s > _REPAIRS_SHOWN_FROM_S and not prepared.is_slice:
        before, after = f"{seen.duration_s:.2f} s", f"{len(samples) / rate:.2f} s"
        repairs.append(Repair(code="trimmed", before=before, after=after))
    limited_db = prepared.limited_db
    limited = f", peaks limited by {limited_db:.1f} dB" if limited_db >= _LIMITED_SHOWN_FROM_DB else ""
    repairs.append(
        Repair(
            code="gain",
            before=f"speech at {seen.speech_dbfs:.1f} dBFS",
            after=f"{settings.target_rms_dbfs:.1f} dBFS ({prepared.gain_db:+.1f} dB{limited})",
        )
    )
    return (prepared, (pcm / np.float32(32768)).astype(np.float32)), repairs
