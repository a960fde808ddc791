"""A verdict compares with what production serves; its key knows nothing of that, and a later walk compares again."""

from __future__ import annotations

import json

import pytest

from pipeline.line.served import compared_again, find_served
from pipeline.records.metrics import METRICS
from pipeline.records.quality import DATA_FILE, Check, Floors, QualityReport, Sample

NAMES = [f"{number:02d}" for number in range(1, 9)]


class Lines:
    """A reporter that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def track(self, items, *, description, total=None):
        return items

    def log(self, message: str) -> None:
        self.lines.append(message)


def a_report(version: str, opinion: float) -> QualityReport:
    metric = METRICS["free_speech.dnsmos_ovr"]
    scores = {name: opinion + 0.1 * (number % 3) for number, name in enumerate(NAMES)}
    check = Check(
        id=metric.id,
        evidence="free_speech",
        title=metric.title,
        unit=metric.unit,
        status="passed",
        required=True,
        value=opinion,
        floor=1.0,
        ceiling=5.0,
        explanation="",
        per_clip=scores,
    )
    said = [Sample(name=name, evidence="free_speech", text=name, sounds=()) for name in NAMES]
    return QualityReport(
        voice="ana",
        version=version,
        base="nano",
        base_digest="b" * 64,
        passed=True,
        reasons=(),
        floors=Floors(),
        checks=(check,),
        samples=tuple(said),
        heldout_clips=("a",),
        duration_s=1.0,
    )


@pytest.fixture
def published(line, make_release, tmp_path):
    """The registry with a release on production, whose report is the old one."""

    def publish(opinion: float) -> QualityReport:
        release = make_release()
        report = a_report(release.version, opinion)
        path = tmp_path / "report.json"
        path.write_text(report.model_dump_json())
        line.registry.publish("ana", release, {DATA_FILE: path}, channel="production", actor="Ana Perez")
        return report

    return publish


def test_the_report_on_production_is_found_and_absent_where_nothing_is_served(line, published):
    assert find_served("ana", line.registry, Lines()) is None
    old = published(3.0)
    assert find_served("ana", line.registry, Lines()).report == old


def test_a_candidate_that_lost_against_production_blocks_however_old_its_own_report_is(line, published):
    new = a_report("2" * 12, 2.4)  # evaluated before anything was published
    assert compared_again(new, line.registry, Lines()).passed
    published(3.0)
    compared = compared_again(new, line.registry, Lines())
    assert not compared.passed
    assert [check.id for check in compared.checks if check.blocks] == ["last_release.dnsmos_ovr"]
    assert "DNSMOS overall, change: -0.6 is below -0.3" in compared.reasons[0]


def test_the_version_that_production_serves_is_not_compared_with_itself(line, published):
    old = published(3.0)
    again = compared_again(old, line.registry, Lines())
    assert again.passed and "this very version" in again.compared_with


def test_a_report_on_production_that_cannot_be_read_is_told_and_blocks_nobody(line, published):
    old = published(3.0)
    told = Lines()
    path = line.root / "registry" / "ana" / "releases" / old.version / DATA_FILE
    path.write_text(json.dumps({"voice": "ana"}))
    assert compared_again(a_report("2" * 12, 1.0), line.registry, told).passed
    assert told.lines and "not compared with what production serves" in told.lines[0]
