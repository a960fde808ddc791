"""The quality report for people (one HTML page that needs nothing else) and for CI engines (JUnit XML)."""

from __future__ import annotations

import base64
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jinja2
import numpy as np
import numpy.typing as npt

from pipeline.io.audio import encode_for_listening
from pipeline.records.adapter import AdapterRecord, TrainedGroup, TrainedPart
from pipeline.records.metrics import EVIDENCES, EvidenceName, settable
from pipeline.records.quality import Check, QualityReport, Sample
from pipeline.signal.pictures import curve_points, spectrogram_png, waveform_path

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
GAUGE_LEFT, GAUGE_RIGHT = 4.0, 196.0

PART_TITLES = {"text2semantic": "Text to semantic tokens", "synthesizer": "Synthesizer"}


@dataclass(frozen=True)
class Sound:
    """Mono samples (frames,) that the page plays and draws."""

    samples: npt.NDArray[Any]
    sample_rate_hz: int


def render_html(
    report: QualityReport, adapter: AdapterRecord, sounds: Mapping[str, Sound], voxline_version: str
) -> str:
    """The whole page. ``sounds``: path as in the report's samples -> sound."""
    page = _template("quality.html.j2").render(
        report=report,
        adapter=adapter,
        evidences=[_evidence(report, name, sounds) for name in EVIDENCES],
        limits=[(metric.title, report.floors.of(metric)) for metric in settable()],
        curves=[_curve(part, group) for part in adapter.parts for group in part.groups],
        measured_floors=list(
            dict.fromkeys(floor.measured for floor in report.floors.limits.values() if floor.measured)
        ),
        voxline_version=voxline_version,
    )
    return page


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
        output.text = f"value {_short(check.value)} {check.unit}, limit {_short(check.limit)} {check.limit_source}"
    suite.set("failures", str(sum(check.blocks for check in report.checks)))
    suite.set("skipped", str(sum(c.status == "not_measured" and not c.blocks for c in report.checks)))
    document: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document


def _per_clip_lines(check: Check) -> str:
    lines = [f"{_printable(clip)}: {_short(score)}" for clip, score in check.per_clip.items()]
    return "\n".join(lines)


def _printable(name: str) -> str:
    """A file name may hold control characters; XML may not."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)


@cache
def _template(name: str) -> jinja2.Template:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(name)


def _evidence(report: QualityReport, name: EvidenceName, sounds: Mapping[str, Sound]) -> dict[str, Any]:
    """Each sound lies on the page once: with the first evidence that has it."""
    names = list(EVIDENCES)
    earlier = names[: names.index(name)]
    played = {sound.path for sample in report.samples if sample.evidence in earlier for sound in sample.sounds}
    return {
        "title": EVIDENCES[name].title,
        "meaning": EVIDENCES[name].meaning,
        "rows": [_row(check) for check in report.checks if check.evidence == name],
        "samples": [_sample(sample, sounds, played) for sample in report.samples if sample.evidence == name],
    }


def _row(check: Check) -> dict[str, Any]:
    names = ("value", "low", "high", "limit", "floor", "ceiling")
    return {"check": check, "gauge": _gauge(check), **{name: _short(getattr(check, name)) for name in names}}


def _gauge(check: Check) -> dict[str, float | None] | None:
    """Positions on the bar from useless (left) to perfect (right)."""
    if check.value is None or check.floor == check.ceiling:
        return None

    def place(number: float | None) -> float | None:
        if number is None:
            return None
        share = (number - check.floor) / (check.ceiling - check.floor)
        return round(GAUGE_LEFT + min(1.0, max(0.0, share)) * (GAUGE_RIGHT - GAUGE_LEFT), 1)

    value = check.value
    ends = [place(value if end is None else end) for end in (check.low, check.high)]
    return {"value": place(value), "low": ends[0], "high": ends[1], "limit": place(check.limit)}


def _sample(sample: Sample, sounds: Mapping[str, Sound], played: Container[str]) -> dict[str, Any]:
    shown = [_sound(one.title, sounds[one.path]) for one in sample.sounds if one.path not in played]
    return {**sample.model_dump(include={"name", "text", "scores", "notes"}), "sounds": shown}


def _sound(title: str, sound: Sound) -> dict[str, Any]:
    samples = np.clip(sound.samples, -1.0, 1.0).astype(np.float32)
    return {
        "title": title,
        "duration_s": len(samples) / sound.sample_rate_hz,
        "top_khz": sound.sample_rate_hz / 2000,
        "waveform": waveform_path(samples),
        "spectrogram": base64.b64encode(spectrogram_png(samples, sound.sample_rate_hz)).decode(),
        "audio": base64.b64encode(encode_for_listening(samples, sound.sample_rate_hz)).decode(),
    }


def _curve(part: TrainedPart, group: TrainedGroup) -> dict[str, Any]:
    heldout = [(float(point.step), point.heldout_loss) for point in group.curve]
    training = [(float(point.step), point.training_loss) for point in group.curve if point.training_loss is not None]
    losses = [loss for _, loss in heldout + training]
    bounds = (0.0, float(max(part.steps, 1)), min(losses), max(losses))
    best_x, best_y = curve_points([(float(group.best_step), group.heldout_loss)], bounds).split(",")
    return {
        "title": f"{PART_TITLES[part.part]}, {group.name}",
        "loss": group.loss,
        "before": _short(group.heldout_loss_before),
        "after": _short(group.heldout_loss),
        "rank": part.rank,
        "parameters": f"{part.trainable_parameters:,}",
        "all_parameters": f"{part.trainable_parameters + part.frozen_parameters:,}",
        "best_step": group.best_step,
        "steps": part.steps,
        "training": curve_points(training, bounds),
        "heldout": curve_points(heldout, bounds),
        "best_x": best_x,
        "best_y": best_y,
        "top": _short(bounds[3]),
        "bottom": _short(bounds[2]),
    }


def _short(number: float | None) -> str:
    """Three significant digits, without an exponent for ordinary sizes."""
    if number is None:
        return "-"
    if number == 0 or not 1e-3 <= abs(number) < 1e5:
        return f"{number:.3g}"
    return f"{number:.{max(0, 2 - math.floor(math.log10(abs(number))))}f}"
