"""A metric is one row and its measure: everything that names metrics reads the rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pipeline.records.metrics import EVIDENCES, METRICS, metrics_table, unit_of
from pipeline.stages.evaluate.measures import MEASURES, Ears

# Run with another row: what a newcomer would add to `METRICS` and `MEASURES`, and to nothing else.
TOY = """
from pipeline.records import metrics
row = metrics.Metric(
    "free_speech", "warmth", "Warmth", "K", "recordings", useless=0.0, perfect=400.0, limit=5.0, floor="warmth_loss",
    setting="warmth_min", asks="How warm a voice is.",
)
metrics.METRICS[row.id] = row

from types import SimpleNamespace
from models.loading.bases import GateFloors, load_base
from pipeline.cli.bases import summarise
from pipeline.config import check_section
from pipeline.records.schema import render_schema
from pipeline.records.settings import Settings
from pipeline.signal import gate
from pipeline.stages.evaluate import measures
from pipeline.stages.evaluate.floors import explain, gate_floors

measures.MEASURES[row.id] = lambda said, ears: said.wave
card = load_base("nano").gate.model_dump() | {"warmth_loss": 7.0}
base = load_base("nano").model_copy(update={"gate": GateFloors.model_validate(card)})
floors = explain(gate_floors(Settings(), base), (), base)
assert floors.of(row).value == 7.0
assert check_section("gate", {"warmth_min": 9.0}, "voice.yaml")["warmth_min"] == 9.0
assert gate_floors(Settings.model_validate({"gate": {"warmth_min": 9.0}}), base)["warmth_loss"] == 9.0
assert "How warm a voice is." in render_schema("voice") and "warmth_min" in render_schema("pipeline")
assert "Warmth at least 7" in summarise(base)["gate"]
takes = measures.Measuring(None, {}, {"1": measures.Utterance(300.0, (), "")}, {"a": measures.Utterance(310.0, (), "")}, None)
check = gate.judge(row, measures.measure(row, takes), floors)
assert (check.title, check.unit, check.status, check.limit) == ("Warmth", "K", "failed", 303.0), check
assert metrics.unit_of("free_speech.warmth") == "K"
assert "| `free_speech.warmth` | Warmth |" in metrics.metrics_table()
"""


def test_every_row_has_its_measure_and_every_measure_its_row() -> None:
    assert MEASURES.keys() == METRICS.keys()


def test_a_row_names_an_ear_that_there_is_and_an_evidence_that_is_explained() -> None:
    for metric in METRICS.values():
        assert metric.evidence in EVIDENCES
        assert not metric.ear or (metric.ear in Ears.__dataclass_fields__ and metric.absent)
        assert metric.admits(metric.limit) or not metric.floor
        assert metric.floor or not metric.setting


def test_a_new_metric_is_a_row_and_a_measure_and_shows_everywhere(repository: Path) -> None:
    done = subprocess.run([sys.executable, "-c", TOY], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_docs_show_the_rows(repository: Path) -> None:
    page = (repository / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert metrics_table() in page, "make docs"


def test_numbers_of_other_releases_have_no_unit() -> None:
    assert unit_of("copy_synthesis.pesq_wb") == "MOS-LQO"
    assert unit_of("free_speech.of_an_older_release") == ""
