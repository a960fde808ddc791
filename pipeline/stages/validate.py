"""validate: judge the recordings of a voice before anything is trained on them.

The core, `validate`, takes recordings one by one and returns a report. `work` reads a folder, writes what is accepted
as `clips/*.flac` and the report in four forms. A bad recording is a finding; only a wrong setting is an exception.
"""

from __future__ import annotations

import hashlib
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pipeline.errors import MissingExtraError, SettingsError, TransientError
from pipeline.io.audio import Audio, AudioLimits, resample, write_audio
from pipeline.io.denoiser_weights import deepfilternet_folder
from pipeline.io.recordings import Folder, Recording, list_recordings, read_recording
from pipeline.io.validation_report import ReportWriter
from pipeline.records.clip import Clip, PreparedClip
from pipeline.records.clip_report import ClipReport, ClipResult, Finding, Measures, Repair, Span, Verdict
from pipeline.records.job import Job, Reporter
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
from pipeline.signal.dnsmos import Opinion, dnsmos_weights, measure_dnsmos
from pipeline.signal.examine import Examination, examine, speech_only
from pipeline.signal.folder_rules import FolderFindings, Traits, folder_findings
from pipeline.signal.frames import Floats
from pipeline.signal.prepare import Piece, prepare_piece, slice_pieces, whole_piece
from pipeline.signal.speaker import speaker_mel
from pipeline.signal.speaker_change import likeliest_change
from pipeline.text.frontend import phonemize
from pipeline.text.transcripts import estimate_phones, phone_error_rate, strip_markup

if TYPE_CHECKING:
    from models.bases import Base

DNSMOS_HOP_S = 9.0  # one window after the other: a third of the cost of overlapping ones, within 0.1 of them
DNSMOS_ALL = 12  # recordings; after them only the doubtful ones and every fourth: it takes most of the time
DNSMOS_EVERY = 4
PARTIAL_STEP_FRAMES = 50
RECOGNISER_BASE = "nano"
RECOGNISED_MAX_S = 40.0
RECOGNISED_MIN_PHONES = 6
MAX_MAGNITUDE = 1e6  # of full scale: float files scaled like 16-bit integers are still sound, 1e30 is not
MAX_RATE_HZ = 48_000  # higher rates hold nothing that a network here reproduces
_VERDICTS: tuple[Verdict, ...] = ("reject", "repair", "warn")
_WORKERS = 2
_REPAIRS_SHOWN_FROM_S = 0.3

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Tools:
    """Networks that the core may ask, and why those that are missing are missing.

    Attributes:
        opinion: DNSMOS of mono 16 kHz samples.
        embed: partial speaker embeddings (partials, 256) of mono 16 kHz speech.
        denoise: DeepFilterNet: mono samples and their rate -> the same without noise.
        recognise: phones of mono 16 kHz samples, for the languages in `recognised`.
        absent: what cannot be measured here, and why.
        digests: sha256 of the weights in use.
    """

    opinion: Callable[[Floats], Opinion] | None = None
    embed: Callable[[Floats], Floats] | None = None
    denoise: Callable[[Floats, int], Floats] | None = None
    recognise: Callable[[Floats], list[str]] | None = None
    recognised: frozenset[str] = frozenset()
    absent: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


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


def validate(
    recordings: Iterable[Recording],
    settings: ValidateSettings,
    tools: Tools = Tools(),
    *,
    voice: str = "",
    language: str | None = None,
    folder: Folder | None = None,
) -> ClipReport:
    """Judge every recording, then all of them together. A bad recording is a finding, never an exception."""
    needs_text = folder is not None and folder.has_transcripts
    judged = [
        (judge.result, judge.traits)
        for judge in (judge_recording(one, index, settings, tools, needs_text) for index, one in enumerate(recordings))
    ]
    return conclude(judged, settings, tools, voice=voice, language=language, folder=folder)


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
    seen = examine(audio.samples, audio.sample_rate_hz, settings.pause_max_s)
    original = seen.voice
    seen, denoised = _denoise(seen, settings, tools)
    heard, embedding = _listen(seen, index, settings, tools)
    findings += sound_findings(seen, heard, settings)
    phone_error = _phone_error(clip, seen, tools)
    findings += phone_findings(phone_error, settings)
    if seen.regions:
        findings += pace_findings(clip, seen.speech_s, settings)
    outputs, repairs = _prepare(clip, seen, findings, index, settings, denoised)
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
    return Judged(result, _traits(recording, findings, seen, phones, embedding), original, seen, tuple(outputs))


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
    embedding: Floats | None,
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
        embedding=embedding,
        fingerprint=seen.fingerprint,
    )


def verdict_of(findings: Sequence[Finding]) -> Verdict:
    """The severest finding, or `pass`."""
    found = {finding.severity for finding in findings}
    return next((verdict for verdict in _VERDICTS if verdict in found), "pass")


def _phones(clip: Clip) -> float | None:
    if clip.text is None:
        return None
    return estimate_phones(strip_markup(clip.text).text, clip.language)


def _phone_error(clip: Clip, seen: Examination, tools: Tools) -> float | None:
    """Phone errors of the text against what the acoustic model hears; None where there is no model for it."""
    if tools.recognise is None or clip.text is None or clip.language not in tools.recognised or not seen.regions:
        return None
    if seen.duration_s > RECOGNISED_MAX_S:
        return None
    text = strip_markup(clip.text).text
    expected = [symbol for symbol in phonemize(text, "en").symbols if symbol[0].isalpha()]
    if len(expected) < RECOGNISED_MIN_PHONES:
        return None
    return phone_error_rate(expected, tools.recognise(seen.frames.samples))


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
    """Quiet pauses, quiet dips, a dry room: measured, so DNSMOS has nothing to add in a large folder."""
    noise, rt60_s = seen.noise, seen.reverberation.rt60_s
    return noise.snr_db > 30 and noise.range_snr_db > 25 and rt60_s is not None and rt60_s < 0.3


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
    after = examine(cleaned[None, :], seen.sample_rate_hz, settings.pause_max_s)
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
        pieces = slice_pieces(seen.regions, seen.duration_s, spoken, settings.slice_max_s, pause_max_s)
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
    repairs.append(
        Repair(
            code="gain",
            before=f"speech at {seen.speech_dbfs:.1f} dBFS",
            after=f"{settings.target_rms_dbfs:.1f} dBFS ({gain_db:+.1f} dB, peaks limited by {limited_db:.1f} dB)",
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


def conclude(
    judged: Sequence[tuple[ClipResult, Traits]],
    settings: ValidateSettings,
    tools: Tools,
    *,
    voice: str,
    language: str | None,
    folder: Folder | None,
) -> ClipReport:
    """The rules that look at all recordings, the seconds, and the verdict."""
    together = folder_findings([traits for _, traits in judged], language, settings)
    clips = tuple(_with_folder(result, index, together) for index, (result, _) in enumerate(judged))
    findings = [*(folder.findings if folder else ()), *together.voice]
    absent = dict(tools.absent)
    if settings.strict and absent:
        listed = "; ".join(f"{what}: {why}" for what, why in absent.items())
        detail = f"not measured here, and strict settings refuse that: {listed}"
        findings.append(Finding(code="not_measured", severity="reject", detail=detail))
    unheard = sorted({t.language for _, t in judged if t.text is not None and t.language not in tools.recognised})
    if unheard:
        absent["text_by_acoustic_model"] = f"none for {', '.join(unheard)}; texts are judged by script and pace"
    found_s = sum(traits.speech_s for _, traits in judged)
    usable_s = sum(prepared.speech_s for result in clips for prepared in result.prepared)
    verdict, reasons = _voice_verdict(findings, clips, found_s, usable_s, settings.speech_min_s)
    if usable_s < settings.speech_min_s:
        detail = f"{usable_s:.1f} s of good speech found, {settings.speech_min_s:.0f} s needed"
        findings.append(
            Finding(
                code="not_enough_speech",
                severity="reject",
                value=round(usable_s, 2),
                limit=settings.speech_min_s,
                unit="s",
                detail=detail,
            )
        )
        reasons = tuple(dict.fromkeys((*reasons, "not_enough_speech")))
    return ClipReport(
        voice=voice,
        language=language,
        accepted=verdict != "reject" and usable_s >= settings.speech_min_s,
        verdict=verdict,
        reasons=reasons,
        speech_found_s=round(found_s, 2),
        speech_usable_s=round(usable_s, 2),
        speech_needed_s=settings.speech_min_s,
        findings=tuple(findings),
        repairs=folder.repairs if folder else (),
        clips=clips,
        not_measured=absent,
        tools=tools.digests,
    )


def _with_folder(result: ClipResult, index: int, together: FolderFindings) -> ClipResult:
    """A result with what the comparison with the others added; copies and strangers are left out."""
    added = together.clips.get(index, ())
    similarity = together.similarity.get(index)
    measures = result.measures
    if similarity is not None:
        measures = measures.model_copy(update={"speaker_similarity": round(similarity, 3)})
    findings = (*result.findings, *added)
    repairs = result.repairs
    if any(finding.code == "duplicate" for finding in added):
        repairs = (*repairs, Repair(code="duplicate", before=result.clip.file_name, after="left out"))
    update = {
        "findings": findings,
        "verdict": verdict_of(findings),
        "measures": measures,
        "repairs": repairs,
        "prepared": () if added else result.prepared,
    }
    return result.model_copy(update=update)


def _voice_verdict(
    findings: Sequence[Finding], clips: Sequence[ClipResult], found_s: float, usable_s: float, needed_s: float
) -> tuple[Verdict, tuple[str, ...]]:
    """Reject where the folder is at fault, where nothing is left, or where what is left is too little because of it."""
    every = [*findings, *(finding for clip in clips for finding in clip.findings)]
    rejected = [clip for clip in clips if clip.verdict == "reject"]
    is_rejected = rejects(list(findings)) or (bool(clips) and len(rejected) == len(clips)) or not clips
    is_rejected = is_rejected or (bool(rejected) and found_s >= needed_s > usable_s)
    codes = {severity: [f.code for f in every if f.severity == severity] for severity in _VERDICTS}
    order = tuple(dict.fromkeys(code for severity in _VERDICTS for code in codes[severity]))
    if not clips:
        return "reject", tuple(dict.fromkeys((*order, "empty")))
    if is_rejected:
        return "reject", order
    if codes["repair"] or rejected:
        return "repair", order
    return ("warn" if codes["warn"] else "pass"), order


def in_parallel(function: Callable[[Item], Result], items: Iterable[Item], workers: int = _WORKERS) -> Iterator[Result]:
    """Results in the order of the items, with only a few items in flight: a folder of ten hours streams through."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def validate_folder(
    folder: Folder,
    settings: ValidateSettings,
    tools: Tools,
    writer: ReportWriter,
    *,
    voice: str,
    language: str | None,
    reporter: Reporter,
    is_stopping: Callable[[], bool] = lambda: False,
) -> ClipReport:
    """Read, judge and write one recording after the other, then the report. Originals are only read.

    Raises:
        TransientError: stopped by SIGTERM; nothing is half-written, the next run begins again.
    """
    limits = AudioLimits(max_bytes=settings.file_max_bytes, max_duration_s=settings.file_max_s)

    def judge(numbered: tuple[int, Clip]) -> Judged:
        index, clip = numbered
        return judge_recording(read_recording(folder, clip, limits), index, settings, tools, folder.has_transcripts)

    judged: list[tuple[ClipResult, Traits]] = []
    with one_thread_each():
        stream = in_parallel(judge, enumerate(folder.clips))
        for one in reporter.track(stream, description=f"{voice}: validate", total=len(folder.clips)):
            if is_stopping():
                raise TransientError(f"stopped after {len(judged)} of {len(folder.clips)} recordings", hint="run again")
            _keep(one, writer)
            judged.append((one.result, one.traits))
    report = conclude(judged, settings, tools, voice=voice, language=language, folder=folder)
    _remove_left_out(writer.folder, [result for result, _ in judged], report)
    writer.finish(report)
    return report


def _keep(one: Judged, writer: ReportWriter) -> None:
    """Write the training clips of one recording and draw it; then its samples can go."""
    for output in one.outputs:
        target = writer.folder / output.clip.file
        target.parent.mkdir(parents=True, exist_ok=True)
        write_audio(target, output.samples, output.clip.sample_rate_hz)
    if one.seen is not None and one.original is not None:
        writer.add(one.result, one.original, one.seen, [output.samples for output in one.outputs])


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Recordings are judged side by side, so a network must not start threads of its own for each."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _remove_left_out(folder: Path, before: Sequence[ClipResult], report: ClipReport) -> None:
    """Training clips of recordings that only the comparison with the others has rejected."""
    kept = {prepared.file for prepared in report.prepared}
    for result in before:
        for prepared in result.prepared:
            if prepared.file not in kept:
                (folder / prepared.file).unlink(missing_ok=True)


def work(job: Job) -> ClipReport:
    """The stage: `voices/<voice>` -> `clips/*.flac`, `clip_report.json`, `junit.xml`, `report.md`, `report.html`."""
    settings: ValidateSettings = job.settings
    language = job.parameters.get("language")
    statement = job.parameters.get("statement")
    folder = list_recordings(job.voice_folder, language, leave_out=frozenset([statement] if statement else []))
    tools = load_tools(settings, job.machine.cache)
    writer = ReportWriter(job.folder)
    return validate_folder(
        folder,
        settings,
        tools,
        writer,
        voice=job.voice,
        language=language,
        reporter=job.reporter,
        is_stopping=job.is_stopping,
    )


def load_tools(settings: ValidateSettings, cache: Path) -> Tools:
    """The networks that the settings ask for and this installation has; the others are named with the reason."""
    absent: dict[str, str] = {}
    digests: dict[str, str] = {}
    opinion = _load_dnsmos(absent, digests) if settings.dnsmos else None
    embed = _load_embedder(digests) if settings.speakers else None
    denoise = _load_denoiser(settings, cache, absent, digests) if settings.denoise != "off" else None
    recognise = _load_recogniser(absent, cache) if settings.acoustic else None
    recognised = frozenset({"en"}) if recognise else frozenset()
    return Tools(opinion, embed, denoise, recognise, recognised, absent, digests)


def _load_recogniser(absent: dict[str, str], cache: Path) -> Callable[[Floats], list[str]] | None:
    """The phone encoder of base nano, which lies in the package. Loaded when the first text asks for it."""
    from models.bases import load_base

    base = load_base(RECOGNISER_BASE)
    if "content" not in base.weights or not base.weight_path("content", cache).is_file():
        absent["text_by_acoustic_model"] = f"base {RECOGNISER_BASE} has no trained encoder here"
        return None
    try:
        phonemize("one", "en")
    except MissingExtraError as error:
        absent["text_by_acoustic_model"] = error.message
        return None
    lock = Lock()
    loaded: list[Callable[[Floats], list[str]]] = []

    def recognise(samples: Floats) -> list[str]:
        with lock:
            if not loaded:
                loaded.append(_recogniser(base, cache))
        return loaded[0](samples)

    return recognise


def _recogniser(base: Base, cache: Path) -> Callable[[Floats], list[str]]:
    import torch

    from models.content import PhoneEncoder
    from models.networks import load_content_encoder

    encoder = load_content_encoder(base, cache)
    if not isinstance(encoder, PhoneEncoder):
        raise TypeError(f"base {base.name}: its content encoder recognises no phones")
    return lambda samples: encoder.recognise(torch.from_numpy(np.ascontiguousarray(samples)))


def _load_dnsmos(absent: dict[str, str], digests: dict[str, str]) -> Callable[[Floats], Opinion] | None:
    path = dnsmos_weights("sig_bak_ovr")
    if path is None:
        absent["dnsmos"] = "the package speechmos is not installed"
        return None
    digests["dnsmos"] = _file_digest(path)
    return partial(measure_dnsmos, hop_s=DNSMOS_HOP_S)


def _load_embedder(digests: dict[str, str]) -> Callable[[Floats], Floats]:
    import torch

    from models.ge2e import WEIGHTS, embed_partials

    digests["ge2e"] = _file_digest(WEIGHTS)

    def embed(speech: Floats) -> Floats:
        mel = torch.from_numpy(speaker_mel(speech))
        partials: Floats = embed_partials(mel, step_frames=PARTIAL_STEP_FRAMES).numpy()
        return partials

    return embed


def _load_denoiser(
    settings: ValidateSettings, cache: Path, absent: dict[str, str], digests: dict[str, str]
) -> Callable[[Floats, int], Floats] | None:
    """DeepFilterNet from the folder in the settings or the cache. Never downloads.

    Raises:
        SettingsError: the settings insist on it (a folder is named, or denoise = on) and it cannot be loaded.
    """
    folder = Path(settings.denoise_weights).expanduser() if settings.denoise_weights else deepfilternet_folder(cache)
    is_needed = bool(settings.denoise_weights) or settings.denoise == "on"
    if not folder.is_dir() and not is_needed:
        absent["denoise"] = "no DeepFilterNet weights; `voxline bases pull deepfilternet` fetches them"
        return None
    from models.errors import WeightsError

    try:
        from models.deepfilter import Denoiser

        denoiser = Denoiser(folder)
    except (WeightsError, ModuleNotFoundError) as error:
        if is_needed:
            hint = "voxline bases pull deepfilternet, or set validate.denoise = off"
            raise SettingsError(f"validate.denoise: {error}", hint=hint) from None
        absent["denoise"] = str(error)
        return None
    digests["deepfilternet"] = denoiser.digest

    def denoise(samples: Floats, sample_rate_hz: int) -> Floats:
        cleaned = denoiser(resample(samples, sample_rate_hz, denoiser.sample_rate_hz))
        back = resample(cleaned, denoiser.sample_rate_hz, sample_rate_hz)
        return np.pad(back, (0, max(0, len(samples) - len(back))))[: len(samples)]

    return denoise


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
