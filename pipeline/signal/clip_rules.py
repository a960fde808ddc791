"""From measures to findings, for one recording. docs/notes/validation.md says where each limit comes from.

Each rule reads what was measured and yields findings; none of them raises, opens a file or changes a sample.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.records.clip import Clip
from pipeline.records.clip_report import Finding, Measures, Repair, rejects
from pipeline.records.settings import ValidateSettings
from pipeline.signal.dnsmos import Opinion
from pipeline.signal.examine import Examination
from pipeline.text.listening import Comparison
from pipeline.text.transcripts import SUPPORTED_LANGUAGES, script_fault, strip_markup

_SUFFIXES = {
    "WAV": (".wav", ".wave"),
    "RF64": (".wav", ".rf64"),
    "W64": (".w64",),
    "FLAC": (".flac",),
    "OGG": (".ogg", ".oga", ".opus"),
    "MP3": (".mp3",),
    "AIFF": (".aiff", ".aif", ".aifc"),
    "AU": (".au", ".snd"),
    "CAF": (".caf",),
    "M4A": (".m4a", ".m4b", ".mp4", ".3gp"),
    "AAC": (".aac",),
    "MATROSKA": (".webm", ".mka"),
    "ASF": (".wma",),
}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_DC_LIMIT = 0.01  # of full scale: 1 % shifts the decision of no measure, 10 % costs a decibel of headroom
_SPEECH_SHARE_MIN = 0.2  # of the sounding frames; clean speech 0.67 to 1, whisper 0.35, music and animals 0 to 0.04
_PILE_UP_MAX = 5.0  # natural speech stays under 2.5
_CREST_MIN_DB = 2.4  # natural speech 3.4 and more, through a radio compressor 2.5; clipped at +18 dB, then MP3: 1 to 3
_NOISE_FLOOR_SPAN_DB = 18.0  # of levels; speech in steady noise up to 11, in live rooms 26 and more
_HUM_WARN_DB = 25.0  # a low voice near a multiple of the mains frequency reaches 18
_VOICED_SHARE_WARN = 0.5  # voiced speech 0.62 to 1, whisper up to 0.39
_LIMITED_WARN_DB = 12.0
_DROPOUTS_MAX = 1
_OTHER_TEXT, _DIFFERENT_TEXT = (
    0.7,
    0.25,
)  # errors; right texts 0 to 0.13 in English, to 0.5 in short Mandarin with numbers
_PART = 0.15  # of the text, in one piece: words too many or too few
_WORDS_MIN_UNITS = 6
_GUESSED_LOGPROB = -0.8  # less sure than that it guesses; good recordings -0.05 to -0.8
_SURE_LOGPROB, _SENTENCE_UNITS = -0.5, 12  # or a name that is called twice would be another text
_HEARD_SHOWN = 80


@dataclass(frozen=True)
class Heard:
    """What the networks said about a recording; None where they were not asked.

    `within_similarity`: cosine of the speaker before and after the likeliest change of speaker.
    """

    opinion: Opinion | None = None
    within_similarity: float | None = None


def file_findings(clip: Clip, container: str, subtype: str) -> Iterator[Finding]:
    """What the file is, whatever it sounds like."""
    yield from name_findings(clip)
    suffix = "." + clip.file_name.rpartition(".")[2].lower()
    if suffix not in _SUFFIXES.get(container, (suffix,)):
        yield Finding(
            code="extension_mismatch", severity="repair", detail=f"{container} data in a file named *{suffix}"
        )
    if (container, subtype) not in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("WAV", "ULAW"), ("WAV", "ALAW")):
        yield Finding(code="format", severity="repair", detail=f"{container} {subtype}, converted to 16-bit FLAC")


def name_findings(clip: Clip) -> Iterator[Finding]:
    if not all(_PLAIN_NAME.fullmatch(part) for part in clip.file_name.split("/")):
        yield Finding(code="filename", severity="repair", detail=f"{clip.file_name!r} is awkward for other tools")


def transcript_findings(clip: Clip) -> Iterator[Finding]:
    """Language, script and markup of the text; nothing about the sound."""
    if clip.language not in SUPPORTED_LANGUAGES:
        supported = ", ".join(SUPPORTED_LANGUAGES)
        detail = f"language {clip.language!r}; {supported} can be learnt"
        yield Finding(code="unsupported_language", severity="reject", detail=detail)
        return
    if clip.text is None:
        return
    cleaned = strip_markup(clip.text)
    if cleaned.removed:
        detail = f"markup taken out: {' '.join(cleaned.removed[:5])}"
        yield Finding(code="text_markup", severity="repair", detail=detail)
    fault = script_fault(cleaned.text, clip.language)
    if fault:
        detail = f"the text {fault}, but its language is given as {clip.language}"
        yield Finding(code="text_audio_mismatch", severity="reject", detail=detail)


def sound_findings(seen: Examination, heard: Heard, settings: ValidateSettings) -> list[Finding]:
    """All findings about the sound. Where there is no speech at all, what speech would be like is not asked."""
    findings = [*_channel_findings(seen), *_format_limits(seen, settings)]
    presence = _presence_findings(seen, settings)
    findings += presence
    if rejects(presence):
        return findings
    findings += [*_level_findings(seen, settings), *_damage_findings(seen, settings)]
    noise = [*_noise_findings(seen, heard, settings)]
    findings += [*noise, *_room_findings(seen, settings), *_speaker_findings(heard, settings)]
    return findings if rejects(noise) else [*findings, *_manner_findings(seen, heard, settings)]


def _channel_findings(seen: Examination) -> Iterator[Finding]:
    channels = seen.channels
    kinds = {
        "copies": ("stereo", "repair", "the same signal on every channel; one is taken"),
        "one_silent": ("stereo", "repair", "the voice is on one channel; it is taken"),
        "one_source": ("stereo", "repair", "one voice on several microphones; the clearest channel is taken"),
        "antiphase": ("stereo_phase", "repair", "channels of opposite sign cancel in mono; one is taken"),
    }
    if channels.kind == "two_sources":
        yield Finding(
            code="multiple_speakers",
            severity="reject",
            value=round(channels.envelope_correlation, 2),
            limit=0.5,
            unit="correlation of levels",
            detail="the channels hold different sounds at the same time",
        )
    elif channels.kind != "mono":
        code, severity, detail = kinds[channels.kind]
        if channels.count > 2 and code == "stereo":
            code = "channels"
        yield Finding(
            code=code, severity=severity, value=round(channels.correlation, 3), unit="correlation", detail=detail
        )


def _format_limits(seen: Examination, settings: ValidateSettings) -> Iterator[Finding]:
    if seen.sample_rate_hz < settings.sample_rate_min_hz:
        limit = settings.sample_rate_min_hz
        detail = f"{seen.sample_rate_hz} Hz; record at 44100 Hz or 48000 Hz"
        yield _finding("sample_rate_too_low", "reject", seen.sample_rate_hz, limit, "Hz", detail)


def _presence_findings(seen: Examination, settings: ValidateSettings) -> list[Finding]:
    """Is there a voice, and enough of it?"""
    if seen.speech_dbfs < settings.silence_dbfs:
        detail = "nothing, or next to nothing, was recorded"
        return [_finding("silence", "reject", seen.speech_dbfs, settings.silence_dbfs, "dBFS", detail)]
    if seen.duration_s < settings.clip_min_s:
        detail = f"{seen.duration_s:.2f} s long"
        return [_finding("too_short", "reject", seen.duration_s, settings.clip_min_s, "s", detail)]
    if seen.silero_share < _SPEECH_SHARE_MIN or not seen.regions:
        detail = "no human speech: music, an animal, noise or a tone"
        share = seen.silero_share if seen.regions else 0.0
        return [_finding("not_speech", "reject", share, _SPEECH_SHARE_MIN, "share of speech", detail)]
    if seen.speech_s < settings.clip_min_s:
        detail = f"{seen.speech_s:.2f} s of speech"
        return [_finding("too_short", "reject", seen.speech_s, settings.clip_min_s, "s", detail)]
    if seen.duration_s > settings.clip_max_s:
        detail = f"{seen.duration_s:.0f} s in one file; cut at its pauses"
        return [_finding("needs_slicing", "repair", seen.duration_s, settings.clip_max_s, "s", detail)]
    return []


def _level_findings(seen: Examination, settings: ValidateSettings) -> Iterator[Finding]:
    if abs(seen.dc_offset) > _DC_LIMIT:
        yield _finding(
            "dc_offset", "repair", seen.dc_offset, _DC_LIMIT, "of full scale", "a constant offset, taken off"
        )
    if seen.peak > 1.0:
        yield _finding(
            "over_full_scale", "repair", seen.peak, 1.0, "of full scale", "float samples beyond 1.0, turned down"
        )
    if seen.speech_dbfs < settings.low_level_dbfs:
        yield _finding(
            "low_level", "repair", seen.speech_dbfs, settings.low_level_dbfs, "dBFS", "very quiet, turned up"
        )


def _damage_findings(seen: Examination, settings: ValidateSettings) -> Iterator[Finding]:
    clipping = seen.clipping
    if clipping.share > settings.clipped_share_max:
        detail = f"flat tops in {clipping.events} places: the recording was too loud"
        yield _finding("clipping", "reject", clipping.share, settings.clipped_share_max, "of loud samples", detail)
    elif clipping.crest_db < _CREST_MIN_DB:
        detail = "all peaks end at one level, as after clipping and a lossy codec: the recording was too loud"
        yield _finding("clipping", "reject", clipping.crest_db, _CREST_MIN_DB, "dB of crest", detail)
    elif clipping.pile_up > _PILE_UP_MAX:
        detail = "samples pile up at the peak: the recording was too loud"
        yield _finding("clipping", "reject", clipping.pile_up, _PILE_UP_MAX, "times the density below", detail)
    elif clipping.events > 2:
        detail = f"{clipping.events} flat tops: close to too loud"
        yield _finding("clipping", "warn", clipping.share, settings.clipped_share_max, "of loud samples", detail)
    if seen.dropouts.count:
        severity = "reject" if seen.dropouts.count > _DROPOUTS_MAX else "warn"
        detail = f"the sound breaks off {seen.dropouts.count} times"
        yield _finding("dropouts", severity, seen.dropouts.count, _DROPOUTS_MAX, "holes", detail)
    if seen.sample_rate_hz >= settings.sample_rate_min_hz and seen.bandwidth_hz < settings.bandwidth_min_hz:
        detail = f"nothing above {seen.bandwidth_hz:.0f} Hz, although the file says {seen.sample_rate_hz} Hz"
        yield _finding("bandwidth_too_low", "reject", seen.bandwidth_hz, settings.bandwidth_min_hz, "Hz", detail)


def _noise_findings(seen: Examination, heard: Heard, settings: ValidateSettings) -> Iterator[Finding]:
    noise, opinion = seen.noise, heard.opinion
    is_room = (seen.reverberation.rt60_s or 0.0) > settings.rt60_max_s and not _is_room_hidden(seen)
    if is_room and (noise.pause_snr_db is None or noise.pause_snr_db >= settings.snr_min_db):
        return  # what fills the gaps between the syllables is the room
    # DNSMOS takes whisper, a cold and a cough for noise: where pauses can be measured it only confirms what they say.
    is_quiet_between = noise.pause_snr_db is not None and noise.pause_snr_db >= settings.snr_warn_db
    is_quiet_between = is_quiet_between or seen.voicing.voiced_share < _VOICED_SHARE_WARN
    if noise.pause_snr_db is not None and noise.pause_snr_db < settings.snr_min_db:
        detail = "noise in the pauses is too loud"
        yield _finding("low_snr", "reject", noise.pause_snr_db, settings.snr_min_db, "dB", detail)
    elif noise.range_snr_db < settings.range_snr_min_db:
        detail = "noise or other voices fill the gaps between the syllables"
        yield _finding("low_snr", "reject", noise.range_snr_db, settings.range_snr_min_db, "dB", detail)
    elif opinion is not None and not is_quiet_between and opinion.bak < settings.dnsmos_background_min:
        detail = "the background is disturbing (DNSMOS)"
        yield _finding("low_snr", "reject", opinion.bak, settings.dnsmos_background_min, "MOS", detail)
    elif opinion is not None and not is_quiet_between and opinion.ovr < settings.dnsmos_overall_warn:
        detail = "noise that listeners would not accept (DNSMOS)"
        yield _finding("low_snr", "reject", opinion.ovr, settings.dnsmos_overall_warn, "MOS", detail)
    elif noise.pause_snr_db is not None and noise.pause_snr_db < settings.snr_warn_db:
        yield _finding("low_snr", "warn", noise.pause_snr_db, settings.snr_warn_db, "dB", "some noise in the pauses")
    if noise.hum_db > _HUM_WARN_DB:
        detail = f"mains hum of {noise.hum_hz} Hz"
        yield _finding("hum", "warn", noise.hum_db, _HUM_WARN_DB, "dB", detail)


def _room_findings(seen: Examination, settings: ValidateSettings) -> Iterator[Finding]:
    rt60_s = seen.reverberation.rt60_s
    if rt60_s is None or _is_room_hidden(seen):
        return
    if rt60_s > settings.rt60_max_s:
        yield _finding("reverberant", "reject", rt60_s, settings.rt60_max_s, "s RT60", "a very live room")
    elif rt60_s > settings.rt60_warn_s:
        yield _finding("reverberant", "warn", rt60_s, settings.rt60_warn_s, "s RT60", "a live room")


def _is_room_hidden(seen: Examination) -> bool:
    """Steady noise hides how sound dies away; in a live room the level still falls far once speech ends."""
    return seen.reverberation.span_db < _NOISE_FLOOR_SPAN_DB


def _speaker_findings(heard: Heard, settings: ValidateSettings) -> Iterator[Finding]:
    similarity = heard.within_similarity
    if similarity is not None and similarity < settings.within_similarity_min:
        detail = "the speaker changes within the recording"
        yield _finding("multiple_speakers", "reject", similarity, settings.within_similarity_min, "cosine", detail)


def _manner_findings(seen: Examination, heard: Heard, settings: ValidateSettings) -> Iterator[Finding]:
    """How it is spoken. Not asked where noise hides the pitch and spoils every opinion."""
    voiced = seen.voicing.voiced_share
    if voiced < _VOICED_SHARE_WARN:
        yield _finding("unvoiced_speech", "warn", voiced, _VOICED_SHARE_WARN, "voiced share", "whispered or breathy")
    opinion = heard.opinion
    if opinion is not None and opinion.ovr < settings.dnsmos_overall_warn:
        detail = "listeners would not find it good (DNSMOS)"
        yield _finding("low_quality", "warn", opinion.ovr, settings.dnsmos_overall_warn, "MOS", detail)


def pace_findings(phones: float | None, speech_s: float, settings: ValidateSettings) -> Iterator[Finding]:
    """The phones of the text against the time they take, with limits that hold for every reader and language."""
    if phones is None or speech_s <= 0:
        return
    pace = phones / speech_s
    if pace > settings.phones_per_s_max:
        detail = f"{pace:.1f} phones per second: the text is longer than the recording"
        yield _finding("text_audio_mismatch", "reject", pace, settings.phones_per_s_max, "phones/s", detail)
    elif pace < settings.phones_per_s_min:
        detail = f"{pace:.1f} phones per second: the recording is longer than the text"
        yield _finding("text_audio_mismatch", "reject", pace, settings.phones_per_s_min, "phones/s", detail)


def phone_findings(phone_error: float | None, language: str, settings: ValidateSettings) -> Iterator[Finding]:
    """The text against what an acoustic model hears. Other languages than English are judged by the folder alone."""
    if phone_error is not None and language == "en" and phone_error > settings.phone_error_max:
        detail = "what is said is not this text"
        limit = settings.phone_error_max
        yield _finding("text_audio_mismatch", "reject", phone_error, limit, "phone errors per phone", detail)


@dataclass(frozen=True)
class Words:
    """What a recogniser wrote down, how sure it was (mean log probability), and what differs from the text."""

    text: str
    mean_logprob: float
    differs: Comparison


def word_findings(words: Words | None) -> Iterator[Finding]:
    """The text against the words that are heard, in any language that the recogniser knows."""
    if words is None or words.differs.units < _WORDS_MIN_UNITS or words.mean_logprob < _GUESSED_LOGPROB:
        return
    differs = words.differs
    heard = f"heard: {words.text[:_HEARD_SHOWN]}{'...' if len(words.text) > _HEARD_SHOWN else ''}"
    unit = "changes per letter or syllable"
    if differs.distance > _OTHER_TEXT and words.mean_logprob > _SURE_LOGPROB and differs.units >= _SENTENCE_UNITS:
        detail = f"what is said is not this text; {heard}"
        yield _finding("text_audio_mismatch", "reject", differs.distance, _OTHER_TEXT, unit, detail)
    elif differs.distance > _DIFFERENT_TEXT:
        missing, added = max(differs.dropped_at_start, differs.dropped_at_end), differs.longest_added
        share = max(missing, added) / max(differs.units, 1)
        told = "the text may be wrong in places"
        if share > _PART:
            told = "words are said that the text lacks" if added > missing else "the text goes on where nothing is said"
        yield _finding("text_differs", "warn", differs.distance, _DIFFERENT_TEXT, unit, f"{told}; {heard}")


def limiter_findings(limited_db: float) -> Iterator[Finding]:
    if limited_db > _LIMITED_WARN_DB:
        detail = "single peaks far above the voice: a pop or a knock"
        yield _finding("peaks_limited", "warn", limited_db, _LIMITED_WARN_DB, "dB", detail)


def describe_repairs(clip: Clip, seen: Examination, findings: list[Finding], file: str) -> list[Repair]:
    """Before and after of everything that the findings call a repair."""
    dbfs = f"{seen.speech_dbfs:.1f} dBFS"
    described = {
        "filename": (clip.file_name, file),
        "extension_mismatch": (clip.file_name, file),
        "format": (next((f.detail for f in findings if f.code == "format"), ""), "FLAC PCM_16"),
        "dc_offset": (f"{seen.dc_offset:.4f} of full scale", "0"),
        "over_full_scale": (f"peak {seen.peak:.2f}", "below full scale"),
        "low_level": (dbfs, "target level"),
        "text_markup": (clip.text or "", strip_markup(clip.text or "").text),
    }
    for code in ("stereo", "stereo_phase", "channels"):
        described[code] = (f"{seen.channels.count} channels", f"channel {seen.channels.chosen + 1}")
    found = {finding.code for finding in findings if finding.severity == "repair"}
    return [
        Repair(code=code, before=before, after=after) for code, (before, after) in described.items() if code in found
    ]


def measures_of(seen: Examination, heard: Heard, info: tuple[str, str]) -> Measures:
    """The numbers of the report, rounded to what they are worth."""
    opinion, noise = heard.opinion, seen.noise
    return Measures(
        duration_s=round(seen.duration_s, 3),
        sample_rate_hz=seen.sample_rate_hz,
        channels=seen.channels.count,
        container=info[0],
        subtype=info[1],
        speech_s=round(seen.speech_s, 2),
        speech_share=round(seen.speech_s / max(seen.duration_s, 1e-6), 3),
        silero_share=round(seen.silero_share, 3),
        peak_dbfs=round(seen.levels.peak_dbfs, 2),
        true_peak_dbfs=round(seen.levels.true_peak_dbfs, 2),
        speech_dbfs=round(seen.speech_dbfs, 2),
        dc_offset=round(seen.dc_offset, 5),
        clipped_share=round(seen.clipping.share, 6),
        clipped_events=seen.clipping.events,
        bandwidth_hz=round(seen.bandwidth_hz),
        snr_db=round(noise.snr_db, 1),
        range_snr_db=round(noise.range_snr_db, 1),
        noise_dbfs=round(noise.noise_dbfs, 1),
        hum_db=round(noise.hum_db, 1),
        hum_hz=noise.hum_hz,
        rt60_s=None if seen.reverberation.rt60_s is None else round(seen.reverberation.rt60_s, 2),
        dropouts=seen.dropouts.count,
        voiced_share=round(seen.voicing.voiced_share, 3),
        pitch_hz=round(seen.voicing.pitch_hz, 1),
        syllables=seen.voicing.syllables,
        dnsmos_sig=None if opinion is None else round(opinion.sig, 2),
        dnsmos_bak=None if opinion is None else round(opinion.bak, 2),
        dnsmos_ovr=None if opinion is None else round(opinion.ovr, 2),
        within_similarity=None if heard.within_similarity is None else round(heard.within_similarity, 3),
    )


def _finding(code: str, severity: str, value: float, limit: float, unit: str, detail: str) -> Finding:
    shown = {"value": round(float(value), 4), "limit": float(limit), "unit": unit, "detail": detail}
    return Finding.model_validate({"code": code, "severity": severity, **shown})
