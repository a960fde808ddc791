"""The rules that look at all recordings of a voice together: the seconds, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.io.recordings import Folder
from pipeline.records.clip_report import (
    SEVERITIES,
    TEXTS_MISSING,
    ClipReport,
    ClipResult,
    Finding,
    Repair,
    Verdict,
    rejects,
    verdict_of,
)
from pipeline.signal.folder_rules import FolderFindings, Judged, folder_findings
from pipeline.stages.validate.tools import RECOGNISED, Terms


def conclude(judged: Sequence[Judged], terms: Terms, folder: Folder | None) -> ClipReport:
    """The rules that look at all recordings, the seconds, and the verdict."""
    settings, tools = terms.settings, terms.tools
    together = folder_findings(judged, terms.language, settings)
    clips = tuple(_with_folder(one.result, index, together) for index, one in enumerate(judged))
    findings = [*(folder.findings if folder else ()), *together.voice]
    absent = dict(tools.absent)
    if settings.strict and absent:
        listed = "; ".join(f"{what}: {why}" for what, why in absent.items())
        detail = f"not measured here, and strict settings refuse that: {listed}"
        findings.append(Finding(code="not_measured", severity="reject", detail=detail))
    written = {one.result.clip.language for one in judged if one.result.clip.text is not None}
    unheard = sorted(written - set(RECOGNISED if tools.spell else ()))
    if unheard:
        absent["text_by_acoustic_model"] = f"none for {', '.join(unheard)}; texts are judged by script and pace"
    found_s = sum(one.speech_s for one in judged)
    usable_s = sum(prepared.speech_s for result in clips for prepared in result.prepared)
    verdict, reasons = _voice_verdict(findings, clips, found_s, usable_s, settings.speech_min_s)
    missing = _texts_missing(clips, judged, folder)
    if missing is not None and usable_s < settings.speech_min_s <= usable_s + missing[1]:
        findings.append(_without_texts(*missing))
        reasons = tuple(dict.fromkeys((TEXTS_MISSING, *reasons)))
    elif usable_s < settings.speech_min_s:
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
        voice=terms.voice,
        language=terms.language,
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


def _texts_missing(
    clips: Sequence[ClipResult], judged: Sequence[Judged], folder: Folder | None
) -> tuple[int, float] | None:
    """How many recordings lack nothing but a text, and how many seconds are spoken in them."""
    if folder is None or not folder.has_transcripts:
        return None
    without = [
        one.speech_s
        for result, one in zip(clips, judged, strict=True)
        if result.clip.text is None
        and all(finding.code == "no_transcript" for finding in result.findings if finding.severity == "reject")
    ]
    return (len(without), sum(without)) if without else None


def _without_texts(recordings: int, speech_s: float) -> Finding:
    told = "1 recording is" if recordings == 1 else f"{recordings} recordings are"
    detail = f"{told} good, {speech_s:.0f} s of speech, but nobody wrote down what is said"
    return Finding(code=TEXTS_MISSING, severity="reject", detail=detail)


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
    codes = {severity: [f.code for f in every if f.severity == severity] for severity in SEVERITIES}
    order = tuple(dict.fromkeys(code for severity in SEVERITIES for code in codes[severity]))
    if not clips:
        return "reject", tuple(dict.fromkeys((*order, "empty")))
    if is_rejected:
        return "reject", order
    if codes["repair"] or rejected:
        return "repair", order
    return ("warn" if codes["warn"] else "pass"), order
