"""The gate: nothing passes by absence, and every limit can be failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from models.loading.bases import load_base
from pipeline.errors import SettingsError
from pipeline.records.metrics import METRICS, advice_of, floored
from pipeline.records.quality import Check, Floor, Floors, QualityReport, Sample
from pipeline.records.settings import Settings
from pipeline.signal import gate
from pipeline.signal.gate import Measured
from pipeline.stages.evaluate.floors import explain, gate_floors

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
    "free_speech.cer": Measured({"1": 0.08, "2": 0.1}, {"a": 0.05}),
    "free_speech.as_written": Measured({"1": 1.0, "2": 1.0}, {"a": 1.0}),
    "free_speech.phone_errors": Measured({"1": 0.2, "2": 0.1}, {"a": 0.1}),
    "free_speech.likeness": Measured({"1": 0.7, "2": 0.75}, {"a": 0.8}),
    "free_speech.similarity": Measured({"1": 0.85, "2": 0.88}, {"a": 0.93}),
    "free_speech.dnsmos_ovr": Measured({"1": 3.0, "2": 3.1}, {"a": 3.3}),
    "free_speech.naturalness": Measured({"1": 3.6, "2": 3.4}, {"a": 4.0}),
}

# Without what is fetched: nobody hears words, likeness and naturalness but the ears that come with voxline.
ABSENT = {
    id_: Measured({"1": None}, {"a": None}, METRICS[id_].absent)
    for id_ in ("free_speech.cer", "free_speech.as_written", "free_speech.likeness", "free_speech.naturalness")
}
WAIVED = FLOORS.model_copy(update={"waived": {"free_speech.cer": "no recogniser without a network"}})


def checks(changed: Mapping[str, Measured] | None = None, floors: Floors = FLOORS) -> dict[str, Check]:
    """Every row's check of a good voice, but for what is changed."""
    found = {**GOOD, **(changed or {})}
    return {check.id: check for check in gate.judge_all(found, floors)}


def blocking(changed: Mapping[str, Measured], floors: Floors = FLOORS) -> set[str]:
    return {check.id for check in checks(changed, floors).values() if check.blocks}


def test_a_good_voice_passes() -> None:
    found = checks()
    assert gate.verdict(list(found.values())) == (True, ())
    assert not [check.id for check in found.values() if check.status == "not_measured"]
    assert gate.asks_for_review(list(found.values())) == ()


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
    assert unmeasured.blocks and "needs Whisper" in unmeasured.reason


def test_a_base_s_card_can_waive_what_cannot_be_measured_but_not_what_was_measured() -> None:
    unmeasured = heard(None, WAIVED)
    assert not unmeasured.blocks
    assert unmeasured.explanation == "waived by the base's card: no recogniser without a network"
    assert heard(0.30, WAIVED).blocks


@pytest.mark.parametrize(
    ("id_", "measured"),
    [
        ("base.trained", Measured({"en": 0.0}, told="random numbers")),
        ("base.language", Measured({"zh": 0.0}, told="the base knows en")),
        ("copy_synthesis.pesq_wb", Measured({"a": 3.4, "b": 3.5}, {"a": 3.6, "b": 3.6})),
        ("copy_synthesis.stoi", Measured({"a": 0.84}, {"a": 0.9})),
        ("copy_synthesis.pesq_wb", Measured({"a": 4.0, "b": None})),
        ("copy_synthesis.stoi", Measured({})),
        ("resynthesis.stoi_change", Measured({"a": 0.70, "b": 0.72}, {"a": 0.80, "b": 0.82})),
        ("resynthesis.mcd_change", Measured({"a": 7.0, "b": 7.2}, {"a": 5.0, "b": 5.0})),
        ("resynthesis.tokens_matter", Measured({"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.5})),
        ("resynthesis.tokens_matter", Measured({}, {})),
        ("free_speech.complete", Measured({"1": 0.0, "2": 1.0})),
        ("free_speech.complete", Measured({})),
        ("free_speech.dnsmos_ovr", Measured({"1": None}, {"a": 3.2})),
        ("free_speech.likeness", Measured({"1": 0.3}, {"a": 0.8})),
        ("free_speech.likeness", Measured({"1": None}, {"a": 0.8})),
        ("free_speech.cer", Measured({"1": 0.9}, {"a": 0.1})),
        ("free_speech.as_written", Measured({"1": 0.0, "2": 1.0}, {"a": 1.0})),
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
        if metric.against != "nothing" and not metric.stands_for:
            assert blocking({metric.id: Measured({}, {})}) == {metric.id}


def test_one_clip_that_got_much_worse_is_not_hidden_by_the_mean() -> None:
    bare = {"a": 0.80, "b": 0.80, "c": 0.80}
    changed = {"resynthesis.stoi_change": Measured({"a": 0.95, "b": 0.95, "c": 0.60}, bare)}
    check = checks(changed)["resynthesis.stoi_change"]
    assert check.value is not None and check.value > 0
    assert check.blocks


def test_a_missing_recogniser_blocks_only_where_the_base_brings_one() -> None:
    for absent, blocks in (("", {"free_speech.phone_errors"}), ("no recogniser", set())):
        changed = {**ABSENT, "free_speech.phone_errors": Measured({"1": None}, {"a": None}, absent)}
        assert blocking(changed, WAIVED) == blocks


def test_a_report_without_any_required_check_does_not_pass() -> None:
    assert gate.verdict([]) == (False, ("nothing required was checked",))


def test_a_base_may_state_how_far_its_free_speech_stays_behind() -> None:
    dull = {**ABSENT, "free_speech.dnsmos_ovr": Measured({"1": 1.4}, {"a": 3.2})}
    lenient = Floors.model_validate(
        {**FLOORS.limits, "waived": WAIVED.waived, "dnsmos_loss": Floor(value=1.9, source="floor of base small")}
    )
    assert blocking(dull, WAIVED) == {"free_speech.dnsmos_ovr"}
    assert blocking(dull, lenient) == set()
    assert "floor of base small" in checks(dull, lenient)["free_speech.dnsmos_ovr"].limit_source


def test_every_form_of_a_report_says_whose_floors_hold_and_what_the_brief_asks_for() -> None:
    nano = load_base("nano")
    pesq_row, stoi_row = METRICS["copy_synthesis.pesq_wb"], METRICS["copy_synthesis.stoi"]
    floors = explain(gate_floors(Settings(), nano), nano.gate.waived, nano)
    assert floors.waived == nano.gate.waived
    assert floors.of(pesq_row).value < 3.5
    assert "base nano" in floors.of(pesq_row).source and "official bases: 3.5" in floors.of(pesq_row).source
    assert "official bases: 0.85" in floors.of(stoi_row).source and floors.of(stoi_row).measured
    pesq = gate.judge(pesq_row, Measured({"a": 1.5}, {"a": 3.4}), floors)
    for line in (pesq.limit_source, pesq.reason, pesq.line):  # HTML and card, terminal when blocked, log
        assert "base nano" in line and "3.5" in line
    raised = gate_floors(Settings.model_validate({"gate": {"pesq_wb_min": 3.6}}), nano)
    assert raised["pesq_wb"] == 3.6
    assert explain(raised, (), nano).of(pesq_row).source.startswith("settings, section gate")


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
    assert set(gate_floors(Settings(), load_base("gpt-sovits-v2"))) == {metric.floor for metric in floored()}


def test_without_what_is_fetched_the_ears_that_come_with_voxline_decide() -> None:
    assert blocking(ABSENT, WAIVED) == set()
    strange = {**ABSENT, "free_speech.similarity": Measured({"1": 0.6}, {"a": 0.95})}
    assert blocking(strange, WAIVED) == {"free_speech.similarity"}
    unread = {**ABSENT, "free_speech.phone_errors": Measured({"1": 0.9}, {"a": 0.1})}
    assert blocking(unread, WAIVED) == {"free_speech.phone_errors"}


def test_a_stand_in_is_shown_where_the_better_ear_heard_and_cannot_overrule_it() -> None:
    for stand_in in ("similarity", "phone_errors"):
        id_ = f"free_speech.{stand_in}"
        worst = Measured({"1": METRICS[id_].useless}, {"a": METRICS[id_].perfect})
        check = checks({id_: worst})[id_]
        assert (check.status, check.required, check.blocks) == ("shown", False, False)
        assert "decides nothing" in check.explanation
    fooled = {"free_speech.likeness": Measured({"1": 0.2}, {"a": 0.8})}
    assert checks(fooled)["free_speech.similarity"].status == "shown"
    assert blocking(fooled) == {"free_speech.likeness"}


def test_two_ears_for_naturalness_block_together_and_each_alone_asks_for_a_person() -> None:
    noisy = {"free_speech.dnsmos_ovr": Measured({"1": 1.5}, {"a": 3.2})}
    robotic = {"free_speech.naturalness": Measured({"1": 1.3}, {"a": 4.0})}
    for changed in (noisy, robotic):
        found = checks(changed)
        (id_,) = changed
        assert found[id_].status == "review" and not found[id_].blocks
        assert gate.asks_for_review(list(found.values())) == (found[id_].reason,)
        assert gate.verdict(list(found.values()))[0]
    assert blocking({**noisy, **robotic}) == {"free_speech.dnsmos_ovr", "free_speech.naturalness"}
    alone = {**noisy, "free_speech.naturalness": ABSENT["free_speech.naturalness"]}
    assert blocking(alone) == {"free_speech.dnsmos_ovr"}


def test_a_copy_that_the_bare_base_cannot_draw_either_is_noted_and_never_blocks() -> None:
    id_ = "copy_synthesis.pesq_wb"
    found = checks({id_: Measured({"a": 2.0}, {"a": 2.0})})
    assert (found[id_].status, found[id_].blocks) == ("noted", False)
    assert "take another --base" in found[id_].advice
    assert gate.verdict(list(found.values())) == (True, ())
    assert blocking({id_: Measured({"a": 2.0}, {"a": 3.9})}) == {id_}


def test_whatever_blocks_says_what_a_person_can_do() -> None:
    for metric in METRICS.values():
        if metric.against != "nothing":
            assert advice_of(metric.id)
    assert checks({"free_speech.cer": Measured({"1": 0.9}, {"a": 0.1})})["free_speech.cer"].advice.startswith(
        "listeners"
    )


# -- against the last release ---------------------------------------------------------------------------------------

NAMES = tuple(f"{number:02d}" for number in range(1, 13))


def a_report(version: str, likeness: float, cer: float = 0.1, **changes: Any) -> QualityReport:
    """A report on twelve sentences, harder ones among them, with this likeness and these errors."""
    harder = {name: 0.02 * (number % 4) for number, name in enumerate(NAMES)}
    changed = {
        "free_speech.likeness": Measured({n: likeness - h for n, h in harder.items()}, {"a": 0.8}),
        "free_speech.cer": Measured({n: cer + h for n, h in harder.items()}, {"a": 0.05}),
    }
    sentences = changes.pop("texts", {name: f"text {name}" for name in NAMES})
    told: dict[str, Any] = {
        "voice": "ana",
        "version": version,
        "base": "nano",
        "base_digest": "b" * 64,
        "floors": FLOORS,
        "checks": tuple(checks(changed).values()),
        "samples": tuple(
            Sample(name=name, evidence="free_speech", text=text, sounds=()) for name, text in sentences.items()
        ),
        "heldout_clips": ("a",),
        "duration_s": 1.0,
        "passed": True,
        "reasons": (),
        "ears": {"speaker": "e" * 64, "words": "w" * 64},
    }
    return QualityReport.model_validate({**told, **changes})


def change(new: QualityReport, old: QualityReport, name: str = "likeness") -> Check:
    return next(check for check in gate.compare(new, old) if check.id == f"last_release.{name}")


def test_a_clear_loss_against_what_production_serves_blocks_and_a_small_one_or_a_gain_does_not() -> None:
    old = a_report("1" * 12, 0.75)
    assert change(a_report("2" * 12, 0.65), old).blocks
    small = change(a_report("2" * 12, 0.73), old)
    assert not small.blocks and small.explanation.startswith("a loss")
    gain = change(a_report("2" * 12, 0.78), old)
    assert not gain.blocks and gain.explanation.startswith("a gain")
    assert change(a_report("2" * 12, 0.75, cer=0.25), old, "cer").blocks
    assert not change(a_report("2" * 12, 0.75, cer=0.02), old, "cer").blocks


def test_the_verdict_counts_the_comparison_and_says_with_whom() -> None:
    old = a_report("1" * 12, 0.79)
    worse = gate.with_comparison(a_report("2" * 12, 0.6), old)
    assert not worse.passed and "change" in worse.reasons[0] and worse.compared_with == old.version
    again = gate.with_comparison(worse, None)  # production was retired meanwhile
    assert again.passed and again.compared_with.startswith("not applicable")
    assert "last_release.likeness" not in again.metrics | worse.metrics


@pytest.mark.parametrize(
    ("served", "told"),
    [
        (None, "no release with a report"),
        (a_report("2" * 12, 0.7), "this very version"),
        (a_report("1" * 12, 0.9, base_digest="c" * 64, base="other"), "another base, other"),
    ],
)
def test_across_bases_and_without_another_release_there_is_nothing_to_compare(served, told) -> None:
    report = gate.with_comparison(a_report("2" * 12, 0.7), served)
    assert told in report.compared_with and report.passed


def test_other_ears_or_other_sentences_are_not_compared() -> None:
    new = a_report("2" * 12, 0.6)
    deaf = change(new, a_report("1" * 12, 0.75, ears={"words": "w" * 64}))
    assert deaf.status == "not_measured" and not deaf.blocks and "another ear" in deaf.explanation
    other = change(new, a_report("1" * 12, 0.75, texts={name: f"other {name}" for name in NAMES}))
    assert other.status == "not_measured" and "too few" in other.explanation


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
