"""README's picture shows what the gate asks today. `make picture` makes it again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import report_picture

from models.loading.bases import load_base
from pipeline.records.metrics import METRICS, floored, settable

STALE = "docs/report.png is stale: make picture"


@pytest.fixture
def shown(repository: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((repository / "docs" / "report.json").read_text(encoding="utf-8"))
    return told


def test_the_figures_are_those_of_the_picture(shown, repository) -> None:
    picture = (repository / "docs" / "report.png").read_bytes()
    assert hashlib.sha256(picture).hexdigest() == shown["picture_sha256"], STALE
    assert len(picture) <= report_picture.LIMIT_BYTES


def test_the_picture_shows_the_floors_of_its_base(shown) -> None:
    floors = load_base(shown["base"]).gate
    for metric in floored():
        told = shown["floors"][metric.floor]
        assert told["value"] == floors.floors.get(metric.floor, metric.limit), STALE
        assert told["measured"] == floors.evidence.get(metric.floor, floors.measured), STALE
    assert shown["floors"]["waived"] == floors.waived, STALE
    limits = {check["id"]: check["limit"] for check in shown["checks"]}
    for metric in settable():
        assert limits[metric.id] == floors.floors[metric.floor], STALE


def test_the_picture_shows_the_checks_of_the_gate(shown) -> None:
    today = [(metric.id, metric.title, metric.unit) for metric in METRICS.values()]
    assert [(check["id"], check["title"], check["unit"]) for check in shown["checks"]] == today, STALE


def test_a_missing_browser_is_told_with_its_package(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="apt-get install chromium"):
        report_picture.find_browser()


def test_the_sandbox_is_left_only_by_root(tmp_path) -> None:
    page, picture, profile = (tmp_path / name for name in ("index.html", "report.png", "profile"))
    for is_root in (True, False):
        command = report_picture.browser_command("chromium", page, picture, profile, is_root=is_root)
        assert ("--no-sandbox" in command) == is_root
        assert (command[0], command[-1]) == ("chromium", page.as_uri())
