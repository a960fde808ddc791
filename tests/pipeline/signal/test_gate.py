"""The gate: nothing passes by absence, and every limit can be failed."""

from __future__ import annotations

import pytest

from models.loading.bases import load_base
from pipeline.line.floors import gate_floors
from pipeline.records.quality import BRIEF_PESQ_WB, Check, Floor, Floors
from pipeline.records.settings import Settings
from pipeline.signal import gate
from pipeline.signal.gate import Against, Resynthesis

FLOORS = Floors(pesq_wb=Floor(value=3.5, source="brief"), stoi=Floor(value=0.85, source="brief"))
HEARD = Against({"1": 0.08}, {"a": 0.05})
GOOD_PESQ = {"a": 3.6, "b": 3.8, "c": 3.5}
GOOD_STOI = {"a": 0.9, "b": 0.95, "c": 0.88}


def good_checks():
    resynthesis = Resynthesis(
        adapted={"a": 0.80, "b": 0.82, "c": 0.79},
        bare={"a": 0.79, "b": 0.81, "c": 0.78},
        shuffled={"a": 0.2, "b": 0.3, "c": 0.25},
    )
    distortion = Resynthesis(
        adapted={"a": 5.0, "b": 5.1, "c": 5.2},
        bare={"a": 5.2, "b": 5.3, "c": 5.3},
        shuffled={"a": 9.0, "b": 9.0, "c": 9.0},
    )
    return [
        *gate.base_checks((), "en", ("en",)),
        *gate.copy_synthesis_checks(GOOD_PESQ, GOOD_STOI, FLOORS),
        *gate.resynthesis_checks(resynthesis, distortion, {"stoi": resynthesis.adapted}),
        *gate.free_speech_checks(
            {"1": 1.0, "2": 1.0},
            Against({"1": 3.0, "2": 3.1}, {"a": 3.3}),
            Against({"1": 0.85, "2": 0.88}, {"a": 0.93}),
            Against({"1": 0.2, "2": 0.1}, {"a": 0.1}),
            Against({"1": 0.08, "2": 0.1}, {"a": 0.05}),
            FLOORS,
            needs_phone_errors=True,
        ),
    ]


def test_a_good_voice_passes() -> None:
    assert gate.verdict(good_checks()) == (True, ())
    assert not [check.id for check in good_checks() if check.status == "not_measured"]


def heard(spoken: float | None, recorded: float | None, floors: Floors) -> Check:
    """The check of character errors, all else being good."""
    checks = gate.free_speech_checks(
        {"1": 1.0},
        Against({"1": 3.0}, {"a": 3.2}),
        Against({"1": 0.9}, {"a": 0.95}),
        Against({"1": 0.1}, {"a": 0.1}),
        Against({"1": spoken}, {"a": recorded}, absent="" if spoken is not None else "needs a speech recogniser"),
        floors,
        needs_phone_errors=True,
    )
    assert [check.id for check in checks if check.blocks] in ([], ["free_speech.cer"])
    return checks[-1]


def test_character_errors_block_when_they_are_many_and_when_nobody_counted_them() -> None:
    assert not heard(0.12, 0.05, FLOORS).blocks
    assert heard(0.30, 0.05, FLOORS).blocks
    unmeasured = heard(None, None, FLOORS)
    assert unmeasured.blocks and "needs a speech recogniser" in unmeasured.reason


def test_a_base_s_card_can_waive_what_cannot_be_measured_but_not_what_was_measured() -> None:
    waived = FLOORS.model_copy(update={"waived": {"free_speech.cer": "no recogniser without a network"}})
    unmeasured = heard(None, None, waived)
    assert not unmeasured.blocks
    assert unmeasured.explanation == "waived by the base's card: no recogniser without a network"
    assert heard(0.30, 0.05, waived).blocks


@pytest.mark.parametrize(
    ("id_", "changed"),
    [
        ("base.trained", gate.base_checks(("synthesizer",), "en", ("en",))),
        ("base.language", gate.base_checks((), "zh", ("en",))),
        ("copy_synthesis.pesq_wb", gate.copy_synthesis_checks({"a": 3.4, "b": 3.5}, GOOD_STOI, FLOORS)),
        ("copy_synthesis.stoi", gate.copy_synthesis_checks(GOOD_PESQ, {"a": 0.84}, FLOORS)),
        ("copy_synthesis.pesq_wb", gate.copy_synthesis_checks({"a": 4.0, "b": None}, GOOD_STOI, FLOORS)),
        ("copy_synthesis.stoi", gate.copy_synthesis_checks(GOOD_PESQ, {}, FLOORS)),
    ],
)
def test_each_of_these_blocks_and_is_named(id_: str, changed) -> None:
    passed, reasons = gate.verdict(changed)
    failing = next(check for check in changed if check.id == id_)
    assert not passed
    assert failing.blocks and failing.reason in reasons and failing.title in failing.reason


def test_a_regression_against_the_bare_base_blocks() -> None:
    worse = Resynthesis({"a": 0.70, "b": 0.72}, {"a": 0.80, "b": 0.82}, {"a": 0.2, "b": 0.2})
    more = Resynthesis({"a": 7.0, "b": 7.2}, {"a": 5.0, "b": 5.0}, {"a": 9.0, "b": 9.0})
    blocked = {check.id for check in gate.resynthesis_checks(worse, more, {}) if check.blocks}
    assert blocked == {"resynthesis.stoi_change", "resynthesis.mcd_change"}


def test_one_clip_that_got_much_worse_is_not_hidden_by_the_mean() -> None:
    adapted = {"a": 0.95, "b": 0.95, "c": 0.60}
    bare = {"a": 0.80, "b": 0.80, "c": 0.80}
    check = gate.resynthesis_checks(Resynthesis(adapted, bare, dict.fromkeys(bare, 0.1)), Resynthesis({}, {}, {}), {})[
        0
    ]
    assert check.value is not None and check.value > 0
    assert check.blocks


def test_tokens_that_say_no_more_than_shuffled_ones_block() -> None:
    same = Resynthesis({"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.5})
    blocked = {check.id for check in gate.resynthesis_checks(same, same, {}) if check.blocks}
    assert blocked == {"resynthesis.tokens_matter"}


@pytest.mark.parametrize(
    ("complete", "dnsmos", "similarity", "errors", "blocked"),
    [
        ({"1": 0.0, "2": 1.0}, 3.0, 0.9, 0.1, "free_speech.complete"),
        ({"1": 1.0}, 1.5, 0.9, 0.1, "free_speech.dnsmos_ovr"),
        ({"1": 1.0}, 3.0, 0.6, 0.1, "free_speech.similarity"),
        ({"1": 1.0}, 3.0, 0.9, 0.9, "free_speech.phone_errors"),
        ({}, 3.0, 0.9, 0.1, "free_speech.complete"),
        ({"1": 1.0}, None, 0.9, 0.1, "free_speech.dnsmos_ovr"),
    ],
)
def test_free_speech_that_is_broken_foreign_dull_or_unintelligible_blocks(
    complete, dnsmos, similarity, errors, blocked
) -> None:
    checks = gate.free_speech_checks(
        complete,
        Against({"1": dnsmos}, {"a": 3.2}),
        Against({"1": similarity}, {"a": 0.95}),
        Against({"1": errors}, {"a": 0.1}),
        HEARD,
        FLOORS,
        needs_phone_errors=True,
    )
    assert [check.id for check in checks if check.blocks] == [blocked]


def test_a_missing_recogniser_blocks_only_where_the_base_brings_one() -> None:
    for needed in (True, False):
        checks = gate.free_speech_checks(
            {"1": 1.0},
            Against({"1": 3.0}, {"a": 3.2}),
            Against({"1": 0.9}, {"a": 0.95}),
            Against({"1": None}, {"a": None}, absent="no recogniser"),
            HEARD,
            FLOORS,
            needs_phone_errors=needed,
        )
        assert any(check.blocks for check in checks) == needed


def test_a_report_without_any_required_check_does_not_pass() -> None:
    assert gate.verdict([]) == (False, ("nothing required was checked",))


def test_a_base_may_state_how_far_its_free_speech_stays_behind() -> None:
    lenient = FLOORS.model_copy(update={"dnsmos_loss": Floor(value=1.9, source="floor of base small")})
    for floors, blocks in ((FLOORS, True), (lenient, False)):
        checks = gate.free_speech_checks(
            {"1": 1.0},
            Against({"1": 1.4}, {"a": 3.2}),
            Against({"1": 0.9}, {"a": 0.95}),
            Against({"1": 0.1}, {"a": 0.1}),
            HEARD,
            floors,
            needs_phone_errors=True,
        )
        dnsmos = next(check for check in checks if check.id == "free_speech.dnsmos_ovr")
        assert dnsmos.blocks == blocks
    assert "floor of base small" in dnsmos.limit_source


def test_every_form_of_a_report_says_whose_floors_hold_and_what_the_brief_asks_for() -> None:
    floors = gate_floors(Settings(), load_base("nano"))
    assert floors.pesq_wb.value < BRIEF_PESQ_WB
    assert "base nano" in floors.pesq_wb.source and "the brief asks for 3.5" in floors.pesq_wb.source
    assert "the brief asks for 0.85" in floors.stoi.source and floors.stoi.measured
    (pesq, _) = gate.copy_synthesis_checks({"a": 1.5}, {"a": 0.99}, floors)
    for line in (pesq.limit_source, pesq.reason, pesq.line):  # HTML and card, terminal when blocked, log
        assert "base nano" in line and "3.5" in line
    assert gate_floors(Settings.model_validate({"gate": {"pesq_wb_min": 3.6}}), load_base("nano")).pesq_wb.value == 3.6


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
        ({}, "✓ STOI against the base 0.0237 [0.0043 to 0.041], at least -0.03, by its lower end (docs)"),
        (
            {"status": "failed", "decides_by": "mean", "value": -0.1},
            "✗ STOI against the base -0.1, at least -0.03 (docs)",
        ),
        (
            {"status": "failed", "decides_by": "high", "higher_is_better": False},
            "✗ STOI against the base 0.0237 [0.0043 to 0.041], at most -0.03, by its upper end (docs)",
        ),
        ({"status": "not_measured", "value": None}, "✗ STOI against the base: not measured"),
        ({"status": "not_measured", "value": None, "required": False}, "- STOI against the base: not measured"),
    ],
)
def test_the_log_marks_passes_and_failures_and_tells_means_from_ends_of_intervals(changes, line) -> None:
    assert a_check(**changes).line == line
