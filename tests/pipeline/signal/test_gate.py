"""The gate: nothing passes by absence, and every limit can be failed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from models.loading.bases import load_base
from pipeline.errors import SettingsError
from pipeline.line.floors import gate_floors
from pipeline.records.metrics import METRICS, floored
from pipeline.records.quality import Check, Floor, Floors
from pipeline.records.settings import Settings
from pipeline.signal import gate
from pipeline.signal.gate import Measured

FLOORS = Floors.model_validate({"pesq_wb": Floor(value=3.5, source="brief"), "stoi": Floor(value=0.85, source="brief")})
STOI = {"a": 0.80, "b": 0.82, "c": 0.79}

# What a good voice measures, for every row.
GOOD = {
    "base.trained": Measured({"en": 1.0}),
    "base.language": Measured({"en": 1.0}),
    "copy_synthesis.pesq_wb": Measured({"a": 3.6, "b": 3.8, "c": 3.5}),
    "copy_synthesis.stoi": Measured({"a": 0.9, "b": 0.95, "c": 0.88}),
    "resynthesis.stoi_change": Measured(STOI, {"a": 0.79, "b": 0.81, "c": 0.78}),
    "resynthesis.mcd_change": Measured({"a": 5.0, "b": 5.1, "c": 5.2}, {"a": 5.2, "b": 5.3, "c": 5.3}),
    "resynthesis.tokens_matter": Measured(STOI, {"a": 0.2, "b": 0.3, "c": 0.25}),
    **{metric.id: Measured({"a": 1.0}) for metric in METRICS.values() if metric.against == "nothing"},
    "free_speech.complete": Measured({"1": 1.0, "2": 1.0}),
    "free_speech.dnsmos_ovr": Measured({"1": 3.0, "2": 3.1}, {"a": 3.3}),
    "free_speech.similarity": Measured({"1": 0.85, "2": 0.88}, {"a": 0.93}),
    "free_speech.phone_errors": Measured({"1": 0.2, "2": 0.1}, {"a": 0.1}),
    "free_speech.cer": Measured({"1": 0.08, "2": 0.1}, {"a": 0.05}),
}


def checks(changed: Mapping[str, Measured] | None = None, floors: Floors = FLOORS) -> dict[str, Check]:
    """Every row's check of a good voice, but for what is changed."""
    found = {**GOOD, **(changed or {})}
    return {id_: gate.judge(metric, found[id_], floors) for id_, metric in METRICS.items()}


def blocking(changed: Mapping[str, Measured], floors: Floors = FLOORS) -> set[str]:
    return {check.id for check in checks(changed, floors).values() if check.blocks}


def test_a_good_voice_passes() -> None:
    found = checks()
    assert gate.verdict(list(found.values())) == (True, ())
    assert not [check.id for check in found.values() if check.status == "not_measured"]


def heard(spoken: float | None, floors: Floors) -> Check:
    """The check of character errors, all else being good."""
    absent = METRICS["free_speech.cer"].absent if spoken is None else ""
    recorded = None if spoken is None else 0.05
    changed = {"free_speech.cer": Measured({"1": spoken}, {"a": recorded}, absent)}
    assert blocking(changed, floors) <= {"free_speech.cer"}
    return checks(changed, floors)["free_speech.cer"]


def test_character_errors_block_when_they_are_many_and_when_nobody_counted_them() -> None:
    assert not heard(0.12, FLOORS).blocks
    assert heard(0.30, FLOORS).blocks
    unmeasured = heard(None, FLOORS)
    assert unmeasured.blocks and "needs a speech recogniser" in unmeasured.reason


def test_a_base_s_card_can_waive_what_cannot_be_measured_but_not_what_was_measured() -> None:
    waived = FLOORS.model_copy(update={"waived": {"free_speech.cer": "no recogniser without a network"}})
    unmeasured = heard(None, waived)
    assert not unmeasured.blocks
    assert unmeasured.explanation == "waived by the base's card: no recogniser without a network"
    assert heard(0.30, waived).blocks


@pytest.mark.parametrize(
    ("id_", "measured"),
    [
        ("base.trained", Measured({"en": 0.0}, told="random numbers")),
        ("base.language", Measured({"zh": 0.0}, told="the base knows en")),
        ("copy_synthesis.pesq_wb", Measured({"a": 3.4, "b": 3.5})),
        ("copy_synthesis.stoi", Measured({"a": 0.84})),
        ("copy_synthesis.pesq_wb", Measured({"a": 4.0, "b": None})),
        ("copy_synthesis.stoi", Measured({})),
        ("resynthesis.stoi_change", Measured({"a": 0.70, "b": 0.72}, {"a": 0.80, "b": 0.82})),
        ("resynthesis.mcd_change", Measured({"a": 7.0, "b": 7.2}, {"a": 5.0, "b": 5.0})),
        ("resynthesis.tokens_matter", Measured({"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.5})),
        ("resynthesis.tokens_matter", Measured({}, {})),
        ("free_speech.complete", Measured({"1": 0.0, "2": 1.0})),
        ("free_speech.complete", Measured({})),
        ("free_speech.dnsmos_ovr", Measured({"1": 1.5}, {"a": 3.2})),
        ("free_speech.dnsmos_ovr", Measured({"1": None}, {"a": 3.2})),
        ("free_speech.similarity", Measured({"1": 0.6}, {"a": 0.95})),
        ("free_speech.phone_errors", Measured({"1": 0.9}, {"a": 0.1})),
    ],
)
def test_each_of_these_blocks_and_is_named(id_: str, measured: Measured) -> None:
    found = checks({id_: measured})
    passed, reasons = gate.verdict(list(found.values()))
    assert not passed
    assert reasons == (found[id_].reason,)
    assert found[id_].title in found[id_].reason


def test_every_row_that_decides_can_be_failed_by_being_absent() -> None:
    for metric in METRICS.values():
        if metric.against != "nothing":
            assert blocking({metric.id: Measured({}, {})}) == {metric.id}


def test_one_clip_that_got_much_worse_is_not_hidden_by_the_mean() -> None:
    bare = {"a": 0.80, "b": 0.80, "c": 0.80}
    changed = {"resynthesis.stoi_change": Measured({"a": 0.95, "b": 0.95, "c": 0.60}, bare)}
    check = checks(changed)["resynthesis.stoi_change"]
    assert check.value is not None and check.value > 0
    assert check.blocks


def test_a_missing_recogniser_blocks_only_where_the_base_brings_one() -> None:
    for absent, blocks in (("", {"free_speech.phone_errors"}), ("no recogniser", set())):
        assert blocking({"free_speech.phone_errors": Measured({"1": None}, {"a": None}, absent)}) == blocks


def test_a_report_without_any_required_check_does_not_pass() -> None:
    assert gate.verdict([]) == (False, ("nothing required was checked",))


def test_a_base_may_state_how_far_its_free_speech_stays_behind() -> None:
    dull = {"free_speech.dnsmos_ovr": Measured({"1": 1.4}, {"a": 3.2})}
    lenient = Floors.model_validate({**FLOORS.limits, "dnsmos_loss": Floor(value=1.9, source="floor of base small")})
    assert blocking(dull) == {"free_speech.dnsmos_ovr"}
    assert blocking(dull, lenient) == set()
    assert "floor of base small" in checks(dull, lenient)["free_speech.dnsmos_ovr"].limit_source


def test_every_form_of_a_report_says_whose_floors_hold_and_what_the_brief_asks_for() -> None:
    nano = load_base("nano")
    pesq_row, stoi_row = METRICS["copy_synthesis.pesq_wb"], METRICS["copy_synthesis.stoi"]
    floors = gate_floors(Settings(), nano)
    assert floors.of(pesq_row).value < 3.5
    assert "base nano" in floors.of(pesq_row).source and "the brief asks for 3.5" in floors.of(pesq_row).source
    assert "the brief asks for 0.85" in floors.of(stoi_row).source and floors.of(stoi_row).measured
    pesq = gate.judge(pesq_row, Measured({"a": 1.5}), floors)
    for line in (pesq.limit_source, pesq.reason, pesq.line):  # HTML and card, terminal when blocked, log
        assert "base nano" in line and "3.5" in line
    raised = gate_floors(Settings.model_validate({"gate": {"pesq_wb_min": 3.6}}), nano)
    assert raised.of(pesq_row).value == 3.6


@pytest.mark.parametrize(
    ("stated", "told"),
    [({"pesk_wb": 3.0}, "gate.pesk_wb: unknown key"), ({"similarity_loss": 1.5}, "1.5 lies outside 0.0 to 1.0")],
)
def test_a_card_that_states_a_limit_nobody_has_or_one_that_cannot_be_is_refused(stated, told) -> None:
    nano = load_base("nano")
    changed = type(nano.gate).model_validate({**nano.gate.model_dump(), **stated})
    with pytest.raises(SettingsError, match=told):
        gate_floors(Settings(), nano.model_copy(update={"gate": changed}))


def test_every_limit_that_a_card_can_state_is_in_the_floors() -> None:
    floors = gate_floors(Settings(), load_base("gpt-sovits-v2"))
    assert set(floors.limits) == {metric.floor for metric in floored()}


def a_check(**changes: object) -> Check:
    told = {
        "id": "resynthesis.stoi", "evidence": "resynthesis", "title": "STOI against the base", "unit": "",
        "status": "passed", "required": True, "value": 0.0237, "low": 0.0043, "high": 0.041, "limit": -0.03,
        "limit_source": "docs", "decides_by": "low", "floor": -1.0, "ceiling": 1.0, "explanation": "",
    }  # fmt: skip
    return Check.model_validate({**told, **changes})


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "✓ STOI against the base 0.0237 [low 0.0043], at least -0.03 (docs)"),
        (
            {"status": "failed", "decides_by": "mean", "value": -0.1},
            "✗ STOI against the base -0.1, at least -0.03 (docs)",
        ),
        (
            {"status": "failed", "decides_by": "high", "higher_is_better": False},
            "✗ STOI against the base 0.0237 [high 0.041], at most -0.03 (docs)",
        ),
        ({"status": "not_measured", "value": None}, "✗ STOI against the base: not measured"),
        ({"status": "not_measured", "value": None, "required": False}, "- STOI against the base: not measured"),
    ],
)
def test_the_log_marks_passes_and_failures_and_tells_means_from_ends_of_intervals(changes, line) -> None:
    assert a_check(**changes).line == line
