"""The quality gate: measurements to checks, and checks to a verdict. Pure; what is asked stands in
`records/metrics.py`, the numbers come from `stages/evaluate`.

Nothing passes by absence: a required check without a number blocks. Limits of resynthesis and free speech are relative,
to the bare base and to the speaker's own held-out recordings: absolute ones would say more about the recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.records.metrics import Metric
from pipeline.records.quality import Check, Floors, Status
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


def judge(metric: Metric, measured: Measured, floors: Floors) -> Check:
    """One metric's numbers against its limit."""
    decide = {
        "limit": _against_limit,
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
    lacking = len(measured.new) - len(values)
    status: Status = "not_measured"
    told = {}
    if interval is not None and not (metric.whole and lacking):
        status = _status(metric, interval.mean, limit)
    elif values:
        told = {"explanation": f"{lacking} of {len(measured.new)} clips gave no number"}
    numbers = _numbers(interval) if metric.floor else _plain_numbers(interval)
    return {"status": status, **numbers, "limit": limit, "limit_source": source, **told}


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
