"""The quality report for engines: JUnit XML for CI, Markdown for a merge request or the page of a run."""

from __future__ import annotations

from xml.etree import ElementTree

from pipeline.io.report_words import (
    MARKS,
    advice,
    differences,
    joined,
    ranked,
    short,
    told_differences,
    verdict_sentence,
)
from pipeline.plain import markdown, printable
from pipeline.records.quality import Check, QualityReport, Sample

SUMMARY_FILE = "report/summary.md"
WORST = 3


def render_junit(report: QualityReport) -> bytes:
    """A test case per check: blocking ones fail, optional ones that could not be measured are skipped."""
    suite = ElementTree.Element("testsuite", name=f"voxline.evaluate.{report.voice}", tests=str(len(report.checks)))
    for check in report.checks:
        case = ElementTree.SubElement(suite, "testcase", classname=f"{report.voice}.{check.evidence}", name=check.title)
        if check.blocks:
            failure = ElementTree.SubElement(case, "failure", message=check.reason)
            failure.text = _per_clip_lines(check)
        elif check.status == "not_measured":
            ElementTree.SubElement(case, "skipped", message=check.explanation)
        output = ElementTree.SubElement(case, "system-out")
        output.text = f"value {short(check.value)} {check.unit}, limit {short(check.limit)} {check.limit_source}"
    suite.set("failures", str(sum(check.blocks for check in report.checks)))
    suite.set("skipped", str(sum(c.status == "not_measured" and not c.blocks for c in report.checks)))
    document: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document


def _per_clip_lines(check: Check) -> str:
    return "\n".join(f"{printable(clip)}: {short(score)}" for clip, score in check.per_clip.items())


def render_markdown(report: QualityReport) -> str:
    """The verdict, what to do, a table of what decides, and the worst sentences."""
    lines = [f"## Voice {markdown(report.voice)} {report.version}: {'passed' if report.passed else 'blocked'}", ""]
    lines += [markdown(verdict_sentence(report))]
    told_of = advice(report).items()
    lines += [""] if told_of else []
    lines += [f"- {markdown(': '.join(filter(None, told)))}" for told in told_of]
    lines += ["", "| | check | mean | 95 % interval | limit |", "|---|---|---|---|---|"]
    lines += [_row(check) for check in report.checks if check.status != "shown"]
    worst = [one for one in ranked(report)[:WORST] if one.scores]
    if worst:
        lines += ["", "The worst sentences:", ""]
    for one in worst:
        scores = ", ".join(f"{check.title} {short(score)}" for check, score in one.scores)
        lines.append(f"- {markdown(one.sample.text)} ({markdown(scores)})")
        if one.sample.heard:
            lines.append(f"  - {_heard(one.sample, report.language)}")
    return "\n".join(lines) + "\n"


def _row(check: Check) -> str:
    mean = "not measured" if check.value is None else f"{short(check.value)} {check.unit}".strip()
    interval = "" if check.low in (None, check.high) else f"{short(check.low)} to {short(check.high)}"
    asked = f"{check.asked}, {check.limit_source}" if check.asked else ""
    return f"| {MARKS[check.status]} | {markdown(check.title)} | {mean} | {interval} | {markdown(asked)} |"


def _heard(sample: Sample, language: str) -> str:
    """Bold: heard and not written; struck through: written and not heard."""
    found = differences(sample, language)
    marked = {"same": "{}", "missed": "~~{}~~", "added": "**{}**"}
    told = joined([marked[change].format(markdown(word)) for change, word in found], sample.language or language)
    return f"{told_differences(found)}: {told}"
