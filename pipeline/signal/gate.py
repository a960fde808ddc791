"""The quality gate: measurements to checks, and checks to a verdict. Pure; what is asked stands in
`records/metrics.py`, the numbers come from `stages/evaluate`.

Nothing passes by absence: a required check without a number blocks. Limits of resynthesis and free speech are relative,
to the bare base and to the speaker's own held-out recordings: absolute ones would say more about the recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.records.metrics import METRICS, Metric, advice_of
from pipeline.records.quality import Check, Floors, QualityReport, Status
from pipeline.signal.quality import Interval, bootstrap, paired_bootstrap

Scores = Mapping[str, float | None]  # clip or sentence -> score

SEED = 20260109


@dataclass(frozen=True)
class Measured:
    """The numbers of one metric.

    Attributes:
        new: of what is judged. ``old``: of what it is held against, where it is held against something.
        absent: nobody could listen, and why.
        told: what the measure itself has to say for the reader.
    """

    new: Scores
    old: Scores = field(default_factory=dict)
    absent: str = ""
    told: str = ""


def verdict(checks: Sequence[Check]) -> tuple[bool, tuple[str, ...]]:
    """(passed, why not). A report without a single required check does not pass."""
    reasons = tuple(check.reason for check in checks if check.blocks)
    if not any(check.required for check in checks):
        reasons = ("nothing required was checked",)
    return not reasons, reasons


def asks_for_review(checks: Sequence[Check]) -> tuple[str, ...]:
    """Why a person should listen, though nothing blocks."""
    return tuple(check.reason for check in checks if check.status == "review")


def judge_all(measured: Mapping[str, Measured], floors: Floors) -> list[Check]:
    """Every metric that was measured, in the order of the rows, and then what the ears say together."""
    alone = {id_: judge(metric, measured[id_], floors) for id_, metric in METRICS.items() if id_ in measured}
    return [_together(METRICS[id_], check, alone) for id_, check in alone.items()]


def _together(metric: Metric, check: Check, others: Mapping[str, Check]) -> Check:
    """A stand-in steps back where the better ear heard; one of two that must agree blocks only with the other."""
    better, other = others.get(metric.stands_for), others.get(metric.agrees_with)
    if better is not None and better.status in ("passed", "failed"):
        status = "shown" if check.status in ("passed", "failed") else check.status
        told = f"decides nothing: {better.title} does; {check.explanation}"
        return check.model_copy(update={"status": status, "required": False, "explanation": told})
    if other is not None and check.status == "failed" and other.status == "passed":
        told = f"{other.title} passed it, so a person should listen; {check.explanation}"
        return check.model_copy(update={"status": "review", "required": False, "explanation": told})
    return check


def judge(metric: Metric, measured: Measured, floors: Floors) -> Check:
    """One metric's numbers against its limit."""
    decide = {
        "limit": _against_limit,
        "base": _against_base,
        "recordings": _against_recordings,
        "bare": _against_itself,
        "shuffled": _against_itself,
        "nothing": _against_nothing,
    }[metric.against]
    told: dict[str, Any] = {
        "id": metric.id,
        "evidence": metric.evidence,
        "title": metric.title,
        "unit": metric.unit,
        "required": metric.against != "nothing" and not (metric.waits and measured.absent),
        "higher_is_better": metric.higher_is_better,
        "floor": metric.useless,
        "ceiling": metric.perfect,
        "explanation": measured.told or metric.explained,
        "per_clip": {} if metric.evidence == "base" else dict(measured.new),
        "advice": advice_of(metric.id),
    }
    return _waived(Check.model_validate({**told, **decide(metric, measured, floors)}), floors)


def _waived(check: Check, floors: Floors) -> Check:
    """A check that could not be measured does not block where the base's card says so, and says why."""
    reason = floors.waived.get(check.id)
    if check.status != "not_measured" or reason is None:
        return check
    return check.model_copy(update={"required": False, "explanation": f"waived by the base's card: {reason}"})


def _against_limit(metric: Metric, measured: Measured, floors: Floors) -> dict[str, Any]:
    values, interval = _values(measured.new), _interval(measured.new)
    limit, source = metric.limit, metric.limit_source
    if metric.floor:
        limit, source = floors.of(metric).value, floors.of(metric).source
    lacking, own = len(measured.new) - len(values), _interval(measured.old)
    status: Status = "not_measured"
    told = {"explanation": measured.absent} if measured.absent else {}
    if own is not None:
        told = {"explanation": measured.absent or f"the speaker's own recordings score {own.mean:.3g}"}
    if interval is not None and not (metric.whole and lacking):
        status = _status(metric, interval.mean, limit)
    elif values:
        told = {"explanation": f"{lacking} of {len(measured.new)} clips gave no number"}
    numbers = _numbers(interval) if metric.floor else _plain_numbers(interval)
    return {"status": status, **numbers, "limit": limit, "limit_source": source, **told}


def _against_base(metric: Metric, measured: Measured, floors: Floors) -> dict[str, Any]:
    """A limit that the bare base may miss, too: then no training reaches it, and it says something about the base."""
    told, bare = _against_limit(metric, replace(measured, old={}), floors), _interval(measured.old)
    if told["status"] != "failed" or bare is None or _status(metric, bare.mean, told["limit"]) == "passed":
        return told
    why = f"the bare base scores {bare.mean:.3g} on these clips: training does not change how it draws them"
    advice = (
        "nothing you can train: record with less noise and echo, or take another --base (voxline validate NAME --copies"
        " says before training how well a base draws a voice)"
    )
    return {**told, "status": "noted", "required": False, "explanation": why, "advice": advice}


def _against_recordings(metric: Metric, measured: Measured, floors: Floors) -> dict[str, Any]:
    """Spoken against recorded, which may be better by the allowance."""
    interval, own, allowance = _interval(measured.new), _interval(measured.old), floors.of(metric)
    sign = "-" if metric.higher_is_better else "+"
    told = {"explanation": measured.absent or "no number"}
    if own is not None:
        told = {"explanation": measured.absent or f"the speaker's own recordings score {own.mean:.3g}"}
    if interval is None or own is None:
        return {"status": "not_measured", **_numbers(interval), **told}
    limit = own.mean - allowance.value if metric.higher_is_better else own.mean + allowance.value
    return {
        "status": _status(metric, interval.mean, limit),
        **_numbers(interval),
        "limit": limit,
        "limit_source": f"own recordings {sign} {allowance.value:g}, {allowance.source}",
        **told,
    }


def _against_itself(metric: Metric, measured: Measured, _: Floors) -> dict[str, Any]:
    """The same clips by another path; the end of the interval of the difference decides that is the worse one."""
    pairs = {clip: (score, measured.old.get(clip)) for clip, score in measured.new.items()}
    kept = {clip: (a, b) for clip, (a, b) in pairs.items() if a is not None and b is not None}
    by = "low" if metric.higher_is_better else "high"
    told = {"limit": metric.limit, "limit_source": metric.limit_source, "decides_by": by}
    if not kept:
        absent = {"status": "not_measured", "explanation": "no clip gave a number", "per_clip": {}}
        return {**told, **absent}
    interval = paired_bootstrap([a for a, _ in kept.values()], [b for _, b in kept.values()], seed=SEED)
    return {
        **told,
        **_numbers(interval),
        "status": _status(metric, interval.low if by == "low" else interval.high, metric.limit),
        "per_clip": {clip: round(a - b, 4) for clip, (a, b) in kept.items()},
    }


def _against_nothing(_: Metric, measured: Measured, __: Floors) -> dict[str, Any]:
    interval = _interval(measured.new)
    return {"status": "not_measured" if interval is None else "shown", **_numbers(interval)}


# -- against the last release ---------------------------------------------------------------------------------------

FEWEST_SENTENCES = 4


def compare(new: QualityReport, served: QualityReport | None) -> list[Check]:
    """What this version says against what production serves, by the same ears, over the same sentences and seeds."""
    if served is None or new.not_comparable(served):
        return []
    rows = [metric for metric in METRICS.values() if metric.clear_loss is not None]
    pairs = [(metric, _check_of(new, metric), _check_of(served, metric)) for metric in rows]
    same = _same_sentences(new, served)
    return [_compared(m, a, b, same, new, served) for m, a, b in pairs if a is not None and b is not None]


def with_comparison(report: QualityReport, served: QualityReport | None) -> QualityReport:
    """The report with what changed against the release that production serves, in place of an earlier comparison."""
    own = [check for check in report.checks if check.evidence != "last_release"]
    checks = (*own, *compare(report, served))
    passed, reasons = verdict(checks)
    told = report.not_comparable(served) or (served.version if served else "")
    return report.model_copy(update={"checks": checks, "passed": passed, "reasons": reasons, "compared_with": told})


def _check_of(report: QualityReport, metric: Metric) -> Check | None:
    return next((check for check in report.checks if check.id == metric.id and check.value is not None), None)


def _same_sentences(new: QualityReport, served: QualityReport) -> list[str]:
    """Names of the sentences that both said; the n-th of a name has the n-th seed."""
    texts = [{s.name: s.text for s in report.samples if s.evidence == "free_speech"} for report in (new, served)]
    return [name for name, text in texts[0].items() if texts[1].get(name) == text]


def _compared(
    metric: Metric, new: Check, old: Check, same: Sequence[str], report: QualityReport, served: QualityReport
) -> Check:
    """A loss is clear where its whole interval is one, and it counts where its mean is more than the limit."""
    scores = [(new.per_clip.get(name), old.per_clip.get(name)) for name in same]
    kept = [(a, b) for a, b in scores if a is not None and b is not None]
    sign = 1.0 if metric.higher_is_better else -1.0
    limit = -sign * (metric.clear_loss or 0.0)
    reach = abs(metric.perfect - metric.useless) / 2
    told: dict[str, Any] = {
        "id": f"last_release.{metric.name}",
        "evidence": "last_release",
        "title": f"{metric.title}, change",
        "unit": metric.unit,
        "required": False,
        "higher_is_better": metric.higher_is_better,
        "limit": limit,
        "limit_source": f"clear loss against {served.version}",
        "floor": -sign * reach,
        "ceiling": sign * reach,
        "advice": advice_of("last_release"),
    }
    if report.ears.get(metric.ear) != served.ears.get(metric.ear):
        return Check(**told, status="not_measured", explanation=f"{served.version} was heard by another ear")
    if len(kept) < FEWEST_SENTENCES:
        return Check(**told, status="not_measured", explanation=f"{len(kept)} sentences in common are too few")
    change = paired_bootstrap([a for a, _ in kept], [b for _, b in kept], seed=SEED)
    best = change.high if metric.higher_is_better else -change.low
    worst = change.low if metric.higher_is_better else -change.high
    is_loss = best < 0 and sign * change.mean < -(metric.clear_loss or 0.0)
    meaning = "a gain" if worst > 0 else "a loss" if best < 0 else "no clear difference"
    return Check(
        **told,
        **_numbers(change),
        status="failed" if is_loss else "passed",
        explanation=f"{meaning} over {len(kept)} sentences that both versions said",
        per_clip={
            name: round(a - b, 4) for name, (a, b) in zip(same, scores, strict=True) if a is not None and b is not None
        },
    )


def _status(metric: Metric, value: float, limit: float) -> Status:
    return "passed" if (value >= limit if metric.higher_is_better else value <= limit) else "failed"


def _values(scores: Scores) -> list[float]:
    return [value for value in scores.values() if value is not None]


def _interval(scores: Scores) -> Interval | None:
    values = _values(scores)
    return bootstrap(values, seed=SEED) if values else None


def _plain_numbers(interval: Interval | None) -> dict[str, float | None]:
    """A share is a count: what other sentences might have done does not make it wider."""
    mean = None if interval is None else interval.mean
    return {"value": mean, "low": mean, "high": mean}


def _numbers(interval: Interval | None) -> dict[str, float | None]:
    if interval is None:
        return {"value": None, "low": None, "high": None}
    return {"value": round(interval.mean, 4), "low": round(interval.low, 4), "high": round(interval.high, 4)}
