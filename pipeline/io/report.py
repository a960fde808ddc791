"""The quality report for people: one HTML page that needs nothing else, and of bounded size whatever was measured."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt

from pipeline.io.audio import encode_for_listening
from pipeline.io.report_words import (
    FREE_SPEECH,
    MARKS,
    Ranked,
    advice,
    compared,
    differences,
    is_short_of,
    joined,
    ranked,
    short,
    told_differences,
    told_training,
    verdict_sentence,
)
from pipeline.records.adapter import AdapterRecord, TrainedGroup, TrainedPart
from pipeline.records.metrics import EVIDENCES, settable
from pipeline.records.quality import AudioFile, Check, QualityReport, Sample
from pipeline.signal.pictures import curve_points, spectrogram_png, waveform_path

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
WORST = 3  # sentences that are shown with everything that is known about them
PAGE_BYTES = 5 << 19  # 2.5 MB of sound and pictures; sounds that find no room stay files
PLAYED_S = 20.0  # of one sound
PART_TITLES = {"text2semantic": "Text to semantic tokens", "synthesizer": "Synthesizer"}
# Status -> its word, and the colour of its mark.
STATUSES = {
    "passed": ("passed", "good"),
    "failed": ("failed", "bad"),
    "review": ("a person should listen", "some"),
    "noted": ("noted", "some"),
    "not_measured": ("not measured", "plain"),
    "shown": ("decides nothing", "plain"),
}


@dataclass(frozen=True)
class Sound:
    """Mono samples (frames,) that the page plays and draws. ``encoded``: as Opus in Ogg, where it came so."""

    samples: npt.NDArray[Any]
    sample_rate_hz: int
    encoded: bytes = b""


@dataclass
class Media:
    """What is heard and seen on the page: each sound once, and all together no more than there is room for."""

    sounds: Mapping[str, Sound]
    room_bytes: int
    played: set[str] = field(default_factory=set)

    def player(self, file: AudioFile | None, *, with_waveform: bool = False, with_spectrum: bool = False) -> Any:
        """What a player needs; without ``audio`` where the sound is on the page already, or finds no room."""
        if file is None or file.path not in self.sounds:
            return None
        sound = self.sounds[file.path]
        samples = np.clip(sound.samples, -1.0, 1.0).astype(np.float32)
        heard = samples[: round(PLAYED_S * sound.sample_rate_hz)]
        shown: dict[str, Any] = {
            "title": file.title,
            "path": file.path,
            "role": file.role,
            "duration_s": len(samples) / sound.sample_rate_hz,
            "top_khz": sound.sample_rate_hz / 2000,
            "is_above": file.path in self.played,
            "audio": "",
            "waveform": waveform_path(samples) if with_waveform else "",
            "spectrogram": _base64(spectrogram_png(samples, sound.sample_rate_hz, 360, 80)) if with_spectrum else "",
        }
        if not shown["is_above"] and self.room_bytes > 0:
            shown["audio"] = _base64(sound.encoded or encode_for_listening(heard, sound.sample_rate_hz))
            self.played.add(file.path)
        self.room_bytes -= sum(len(shown[kind]) for kind in ("audio", "waveform", "spectrogram"))
        return shown


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def render_html(
    report: QualityReport, adapter: AdapterRecord, sounds: Mapping[str, Sound], voxline_version: str
) -> str:
    """The whole page. ``sounds``: path as in the report's samples -> sound."""
    media, sentences = Media(sounds, PAGE_BYTES), ranked(report)
    return _template("quality.html.j2").render(
        report=report,
        adapter=adapter,
        sentence=verdict_sentence(report),
        advice=advice(report),
        players=_first_players(report, sentences, media),
        groups=_groups(report, decides=True),
        shown=_groups(report, decides=False),
        worst=[_sentence(one, report.language, media, in_full=True) for one in sentences[:WORST]],
        sentences=[
            _sentence(one, report.language, media, in_full=False) for one in sorted(sentences[WORST:], key=_by_name)
        ],
        recordings=[_recording(samples, media) for samples in _by_clip(report)],
        curves=[_curve(part, group) for part in adapter.parts for group in part.groups],
        limits=[(metric.title, report.floors.of(metric)) for metric in settable()],
        measured_floors=list(
            dict.fromkeys(floor.measured for floor in report.floors.limits.values() if floor.measured)
        ),
        voxline_version=voxline_version,
    )


@cache
def _template(name: str) -> jinja2.Template:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(name)


# -- the verdict's three players ------------------------------------------------------------------------------------


def _first_players(report: QualityReport, sentences: Sequence[Ranked], media: Media) -> list[dict[str, Any]]:
    """The recording, the voice now, and what production says: of new sentences the one of middling quality."""
    recorded = next((sample for sample in report.samples if _file(sample, "recording")), None)
    spoken = sentences[len(sentences) // 2].sample if sentences else None
    return [
        _first("The recording", recorded, "recording", report, media),
        _first("The voice now", spoken, "spoken", report, media),
        _first("In production", spoken, "production", report, media) | {"absent": compared(report)},
    ]


def _first(title: str, sample: Sample | None, role: str, report: QualityReport, media: Media) -> dict[str, Any]:
    player = media.player(_file(sample, role), with_waveform=True) if sample else None
    shown = {"title": title, "player": player, "absent": "Nothing was made of it.", "sentence": "", "text": ""}
    if sample is None or player is None:
        return shown
    sentence = sample.name if role == "spoken" else ""
    return shown | {"text": sample.text, "language": sample.language or report.language, "sentence": sentence}


def _file(sample: Sample, role: str) -> AudioFile | None:
    return next((file for file in sample.sounds if file.role == role), None)


# -- the chart of all checks ----------------------------------------------------------------------------------------


def _groups(report: QualityReport, *, decides: bool) -> list[dict[str, Any]]:
    """The checks by their evidence: those that decide something, or those that are only shown."""
    groups = []
    for name, told in EVIDENCES.items():
        checks = [check for check in report.checks if check.evidence == name and (check.status != "shown") == decides]
        if checks:
            groups.append({"title": told.title, "meaning": told.meaning, "rows": [_row(check) for check in checks]})
    return groups


def _row(check: Check) -> dict[str, Any]:
    word, tone = STATUSES.get(check.status, (check.status, "plain"))
    is_optional = check.status == "not_measured" and not check.required
    return {
        "check": check,
        "mark": MARKS.get(check.status, "·"),
        "tone": "bad" if check.blocks else tone,
        "word": f"{word}, not required" if is_optional else word,
        "advice": check.advice if check.status == "noted" else "",  # of others the verdict has it
        "bar": _bar(check),
        "value": ("yes" if check.value else "no") if _is_question(check) else short(check.value),
        "low": short(check.low),
        "high": short(check.high),
        "floor": f"{check.floor:g}",
        "ceiling": f"{check.ceiling:g}",
    }


def _is_question(check: Check) -> bool:
    """Answered by yes or no: there is nothing between useless and perfect, and nothing to draw."""
    return not check.per_clip and check.value in (0.0, 1.0) and check.limit == check.ceiling == 1.0


def _bar(check: Check) -> dict[str, Any] | None:
    """Places in percent from useless (left) to perfect (right)."""
    if check.value is None or check.floor == check.ceiling or _is_question(check):
        return None

    def place(number: float) -> float:
        share = (number - check.floor) / (check.ceiling - check.floor)
        return round(100 * min(1.0, max(0.0, share)), 1)

    low, high = sorted(place(check.value if end is None else end) for end in (check.low, check.high))
    limit = None if check.limit is None else place(check.limit)
    return {"value": place(check.value), "low": low, "width": round(high - low, 1), "limit": limit}


# -- sentences and recordings ---------------------------------------------------------------------------------------


def _sentence(one: Ranked, language: str, media: Media, *, in_full: bool) -> dict[str, Any]:
    sample = one.sample
    return {
        "name": sample.name,
        "text": sample.text,
        "language": sample.language,
        "heard": _heard(sample, language) if sample.heard else None,
        "notes": sample.notes,
        "scores": [
            {"title": check.title, "value": short(score), "asked": check.asked, "is_short": is_short_of(check, score)}
            for check, score in one.scores
        ],
        "is_short": one.margin is None or one.margin < 0,
        "player": media.player(_file(sample, "spoken"), with_waveform=in_full, with_spectrum=in_full),
        "production": media.player(_file(sample, "production")) if in_full else None,
    }


def _by_name(one: Ranked) -> str:
    return one.sample.name


def _heard(sample: Sample, language: str) -> dict[str, Any]:
    found = differences(sample, language)
    return {
        "differences": found,
        "space": joined(("", ""), sample.language or language),
        "told": told_differences(found),
    }


def _by_clip(report: QualityReport) -> list[list[Sample]]:
    """What was made of each held-out recording, together."""
    clips: dict[str, list[Sample]] = {}
    for sample in report.samples:
        if sample.evidence != FREE_SPEECH:
            clips.setdefault(sample.name, []).append(sample)
    return list(clips.values())


def _recording(samples: Sequence[Sample], media: Media) -> dict[str, Any]:
    files = {file.path: file for sample in samples for file in sample.sounds}
    return {
        "name": samples[0].name,
        "text": samples[0].text,
        "language": samples[0].language,
        "players": [media.player(file) for file in files.values()],
    }


# -- training -------------------------------------------------------------------------------------------------------


def _curve(part: TrainedPart, group: TrainedGroup) -> dict[str, Any]:
    return {
        "title": f"{PART_TITLES[part.part]}, {group.name}",
        "told": told_training(part, group),
        "rank": part.rank,
        "parameters": f"{part.trainable_parameters:,}",
        "all_parameters": f"{part.trainable_parameters + part.frozen_parameters:,}",
        "steps": part.steps,
        "drawn": _drawn(part, group) if part.steps and len(group.curve) > 1 else None,
    }


def _drawn(part: TrainedPart, group: TrainedGroup) -> dict[str, str]:
    heldout = [(float(point.step), point.heldout_loss) for point in group.curve]
    training = [(float(point.step), point.training_loss) for point in group.curve if point.training_loss is not None]
    losses = [loss for _, loss in heldout + training]
    bounds = (0.0, float(part.steps), min(losses), max(losses))
    best_x, best_y = curve_points([(float(group.best_step), group.heldout_loss)], bounds).split(",")
    return {
        "training": curve_points(training, bounds),
        "heldout": curve_points(heldout, bounds),
        "best_x": best_x,
        "best_y": best_y,
        "top": short(bounds[3]),
        "bottom": short(bounds[2]),
    }
