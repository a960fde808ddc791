"""The validation report: JSON for scripts, JUnit for CI, Markdown for a merge request, HTML for who spoke."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jinja2
import numpy as np

from pipeline.io.audio import encode_for_listening
from pipeline.io.files import write_atomically
from pipeline.plain import markdown, printable
from pipeline.records.clip_report import TEXTS_MISSING, ClipReport, ClipResult, Finding
from pipeline.signal.examine import Examination
from pipeline.signal.frames import Floats
from pipeline.signal.pictures import level_png, waveform_path

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
REPORT_FILE = "clip_report.json"
_PAGE_BYTES = 8 << 20  # of sound and pictures on the page, whatever the folder holds
_PAGE_SHARES = {"pass": 0.6, "warn": 0.8, "repair": 0.8, "reject": 1.0}  # until which a recording still comes in
_PLAYED_S = {"pass": 3.0}  # of a recording in which nothing was found; its file lies in the repository
_PLAYED_MOST_S = 30.0
_ROWS_MOST = 2000
_NAMED_MOST = 8
_ORDER = {"reject": 0, "repair": 1, "warn": 2, "pass": 3}
SEVERITIES = ("reject", "repair", "warn")


class ReportWriter:
    """Collects what the page shows while recordings pass by: sound and pictures of a bounded size.

    Room is kept for what is found late: good recordings fill little more than half of the page, rejected ones all.
    """

    def __init__(self, folder: Path, *, with_page: bool = True) -> None:
        self.folder = folder
        self._with_page = with_page
        self._media: dict[str, dict[str, Any]] = {}
        self._spent_bytes = 0

    def add(self, result: ClipResult, original: Floats, seen: Examination, prepared: Sequence[Floats]) -> None:
        """Draw one recording. `original`: the chosen channel as decoded, (n,); `prepared`: its training clips."""
        if not self._with_page or self._spent_bytes >= _PAGE_SHARES[result.verdict] * _PAGE_BYTES:
            return
        drawn = _draw(result, original, seen, prepared)
        self._media[result.clip.file_name] = drawn
        self._spent_bytes += len(drawn["waveform"]) + len(drawn["spectrogram"] or "")
        self._spent_bytes += sum(len(sound["data"]) for sound in drawn["sounds"])

    def finish(self, report: ClipReport) -> None:
        """Write the four forms; the JSON last, so that whoever sees it sees all."""
        if self._with_page:
            page = render_html(report, self._media)
            write_atomically(self.folder / "report.html", (part.encode() for part in page))
        write_atomically(self.folder / "report.md", render_markdown(report).encode())
        write_atomically(self.folder / "junit.xml", render_junit(report))
        write_atomically(self.folder / REPORT_FILE, report.model_dump_json(indent=1).encode())


def _draw(result: ClipResult, original: Floats, seen: Examination, prepared: Sequence[Floats]) -> dict[str, Any]:
    """What is good is played as it is trained on; where something was found, the recording is heard and seen, too."""
    rate = seen.sample_rate_hz
    duration_s = max(seen.duration_s, 1e-3)
    peak = max(float(np.abs(original).max(initial=0.0)), 1e-6)
    played_s = _PLAYED_S.get(result.verdict, _PLAYED_MOST_S)
    is_plain = result.verdict == "pass" and bool(prepared)
    sounds = [] if is_plain else [("as recorded", original / np.float32(max(peak, 1.0)), rate)]
    sounds += [("for training", prepared[0], result.prepared[0].sample_rate_hz)] if prepared else []
    return {
        "waveform": waveform_path(original / np.float32(max(peak, 0.05))),
        "spans": [(600 * r.start_s / duration_s, 600 * r.duration_s / duration_s) for r in seen.regions],
        "spectrogram": None if is_plain else _base64(level_png(seen.frames.log_power_db.T)),
        "sounds": [_sound(*sound, played_s) for sound in sounds],
    }


def _sound(title: str, samples: Floats, rate_hz: int, played_s: float) -> dict[str, Any]:
    duration_s = len(samples) / rate_hz
    data = _base64(encode_for_listening(samples[: round(played_s * rate_hz)], rate_hz))
    return {"title": title, "duration_s": duration_s, "played_s": min(duration_s, played_s), "data": data}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def plain_words(report: ClipReport, language: str = "en") -> list[str]:
    """What the speaker should do, in a few sentences of English or Chinese (`zh`), the most important first."""
    lines = []
    advice = _advice()
    passed_over = {"not_enough_speech", "no_transcript"} if report.lacks_texts_only else {"not_enough_speech"}
    if not report.accepted and not report.lacks_texts_only and report.speech_usable_s < report.speech_needed_s:
        missing = int(np.ceil(report.speech_needed_s - report.speech_usable_s))
        lines.append(advice["not_enough_speech"][language].format(s=missing))
    for severity in SEVERITIES:
        for code in dict.fromkeys(f.code for f in _all_findings(report) if f.severity == severity):
            is_quiet = severity != "reject" and "quiet" in advice.get(code, {})
            if code in advice and code not in passed_over and not is_quiet:
                lines.append(_advise(report, code, severity, language))
    return list(dict.fromkeys(lines))


@cache
def _advice() -> dict[str, dict[str, Any]]:
    """By code: `en` and `zh` sentences, in which {N} are the recordings; `quiet`: nothing to act upon."""
    content: dict[str, dict[str, Any]] = json.loads((TEMPLATES / "advice.json").read_text(encoding="utf-8"))
    return content


def _advise(report: ClipReport, code: str, severity: str, language: str) -> str:
    numbers = [
        number
        for number, result in enumerate(report.clips, start=1)
        if any(finding.code == code and finding.severity == severity for finding in result.findings)
    ]
    sentence: str = _advice()[code][language]
    return sentence.format(N=_sentences(numbers, len(report.clips), language == "zh"), s="")


def _sentences(numbers: Sequence[int], total: int, chinese: bool) -> str:
    """`Sentences 4 and 9`; `All sentences`; `12 sentences`."""
    if not numbers or len(numbers) == total > 1:
        return "整个文件夹" if chinese else "All sentences" if numbers else "The folder"
    if len(numbers) > _NAMED_MOST:
        return f"{len(numbers)} 个句子" if chinese else f"{len(numbers)} sentences"
    if chinese:
        return f"第 {'、'.join(map(str, numbers))} 句"
    if len(numbers) == 1:
        return f"Sentence {numbers[0]}"
    return f"Sentences {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _all_findings(report: ClipReport) -> Iterable[Finding]:
    yield from report.findings
    for result in report.clips:
        yield from result.findings


def advice_languages(report: ClipReport) -> tuple[str, ...]:
    """English, and Chinese where the speaker reads it."""
    return ("en", "zh") if report.language in ("zh", "yue") else ("en",)


def told(finding: Finding) -> str:
    """`low_snr: noise in the pauses is too loud (3.2 dB, limit 10 dB)`."""
    text = f"{finding.code}: {finding.detail}" if finding.detail else finding.code
    if finding.value is None or finding.limit is None:
        return text
    return f"{text} ({finding.value:.4g} {finding.unit}, limit {finding.limit:.4g})"


def headline(report: ClipReport) -> str:
    """One line: what was decided, and on how much speech."""
    if report.lacks_texts_only:
        return f"refused: {next(finding.detail for finding in report.findings if finding.code == TEXTS_MISSING)}"
    found = f"{report.speech_usable_s:.1f} s of good speech, {report.speech_needed_s:.0f} s needed"
    kept = sum(1 for result in report.clips if result.prepared)
    return f"{'accepted' if report.accepted else 'refused'}: {found}; {kept} of {len(report.clips)} recordings kept"


def render_markdown(report: ClipReport) -> str:
    """For a merge request: the decision, what to do, and a table of the recordings that something was found in."""
    lines = [f"## Voice {markdown(report.voice)}: {headline(report)}", ""]
    lines += [f"- {markdown(line)}" for line in plain_words(report)]
    lines += ["", *(f"- **{finding.severity}** {markdown(told(finding))}" for finding in report.findings)]
    told_of = [(number, result) for number, result in enumerate(report.clips, start=1) if result.findings]
    if told_of:
        lines += ["", "| # | recording | verdict | found | SNR dB | DNSMOS |", "|---|---|---|---|---|---|"]
        for number, result in told_of[:200]:
            found = "; ".join(markdown(told(finding)) for finding in severest(result))
            measures = result.measures
            snr, mos = _number(measures.snr_db), _number(measures.dnsmos_ovr)
            lines.append(
                f"| {number} | {markdown(result.clip.file_name)} | {result.verdict} | {found} | {snr} | {mos} |"
            )
    if report.not_measured:
        lines += [
            "",
            "Not measured: " + "; ".join(f"{markdown(k)} ({markdown(v)})" for k, v in report.not_measured.items()),
        ]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def render_junit(report: ClipReport) -> bytes:
    """A test case per recording, and one for the voice."""
    suite = ElementTree.Element("testsuite", name=f"voxline.validate.{report.voice}")
    voice = ElementTree.SubElement(suite, "testcase", classname=printable(report.voice), name="voice")
    if not report.accepted:
        failure = ElementTree.SubElement(voice, "failure", message=printable(headline(report)))
        failure.text = printable("\n".join(told(finding) for finding in report.findings))
    rejected = 0
    for result in report.clips:
        name = printable(result.clip.file_name)
        case = ElementTree.SubElement(suite, "testcase", classname=f"{printable(report.voice)}.clips", name=name)
        lines = "\n".join(f"{finding.severity}: {told(finding)}" for finding in severest(result))
        if result.verdict == "reject":
            rejected += 1
            message = ", ".join(dict.fromkeys(f.code for f in result.findings if f.severity == "reject"))
            ElementTree.SubElement(case, "failure", message=message).text = printable(lines)
        elif lines:
            ElementTree.SubElement(case, "system-out").text = printable(lines)
    suite.set("tests", str(len(report.clips) + 1))
    suite.set("failures", str(rejected + (not report.accepted)))
    document: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document


def render_html(report: ClipReport, media: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The whole page, part by part; `media`: pictures and sound by file name."""
    rows = [
        {"number": number, "result": result, "media": media.get(result.clip.file_name), "found": severest(result)}
        for number, result in enumerate(report.clips, start=1)
    ]
    ordered = sorted(rows, key=_urgency)
    listed = {id(row) for row in ordered[:_ROWS_MOST]}
    return _template().generate(
        report=report,
        headline=headline(report),
        advice={language: plain_words(report, language) for language in advice_languages(report)},
        rows=[row for row in rows if id(row) in listed],
        total=len(rows),
        shown=[row for row in ordered if row["media"]],
        told=told,
        kept=sum(1 for result in report.clips if result.prepared),
    )


def _urgency(row: Mapping[str, Any]) -> int:
    return _ORDER[row["result"].verdict]


def severest(result: ClipResult) -> list[Finding]:
    """Its findings, the severest first."""
    return sorted(result.findings, key=lambda finding: _ORDER[finding.severity])


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("validation.html.j2")
