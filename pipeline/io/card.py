"""The card of a release: who speaks, with whose consent, under which licence, and how good it is. Markdown."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import jinja2

from pipeline.plain import one_line
from pipeline.records.feature import FeatureRecord
from pipeline.records.quality import QualityReport
from pipeline.records.release import Release
from pipeline.records.voice import VoiceManifest

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"


def render_card(
    release: Release,
    report: QualityReport,
    manifest: VoiceManifest,
    base_description: str,
    base_license: str,
    features: FeatureRecord,
) -> str:
    """``card.md``, with the header that model hubs read."""
    return _template().render(
        release=release,
        display_name=manifest.display_name or release.voice,
        base_description=base_description,
        base_license=base_license,
        license_id=_plain(release.license).lower(),
        checks=[check for check in report.checks if check.status != "shown"],
        number=_number,
        heldout=len(report.heldout_clips),
        seconds=f"{features.duration_s:.0f}",
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _plain(text: str) -> str:
    """Fit for one line of the YAML header."""
    return re.sub(r"[^A-Za-z0-9. -]", "", text).strip() or "other"


def _cell(value: object) -> str:
    """Text that stays inside its table cell and is no markup."""
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", re.sub(r"\s+", " ", one_line(str(value))))


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  (Markdown; `finalize` escapes every value)
        finalize=lambda value: _cell(value) if value is not None else "",
    )
    return environment.get_template("card.md.j2")
