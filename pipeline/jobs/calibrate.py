"""Limits of a base by data: several voices are trained on it, and each speaks in its own place and in every other's.

For each metric that is held against recordings: how far good voices stay behind, and how far somebody else's speech
does. Copies are drawn as speech is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from models.loading.bases import Base
from pipeline.records.calibration import Calibration, CopyFloor, Limit, Loss, suggest
from pipeline.records.metrics import METRICS, Metric, floored
from pipeline.stages.evaluate.measures import Measuring, measure
from pipeline.stages.evaluate.stage import listen
from pipeline.stages.evaluate.studio import EvaluateJob, Studio, base_of

LEAST_SHARE = 0.05  # of the metric's span: no limit lies nearer to the worst good voice, where nothing is in the way


def calibrate(jobs: Sequence[EvaluateJob]) -> Calibration:
    """Listen to every voice and hold it against the others. ``jobs``: of the stage evaluate, one for each voice, on
    the same base."""
    base = base_of(jobs[0])
    takes = {job.voice: listen_to(job) for job in jobs}
    limits, absent = [], {}
    for metric in floored():
        if metric.against == "base":
            continue
        losses = _losses(metric, takes)
        if losses:
            limits.append(_limit(metric, losses, base))
        else:
            absent[metric.floor] = metric.absent or "no voice gave a number"
    return Calibration(
        base=base.name,
        base_digest=base.digest,
        voices=tuple(takes),
        limits=tuple(limits),
        copies=tuple(_copies(metric, takes, base) for metric in floored() if metric.against == "base"),
        not_measured=absent,
        speech=_speech(limits),
    )


def listen_to(job: EvaluateJob) -> Measuring:
    """One voice, measured by nobody yet."""
    return listen(job, Studio(job, base_of(job)))[1]


def _losses(metric: Metric, takes: Mapping[str, Measuring]) -> list[Loss]:
    """Of every voice in its own place, and of every other one in it, where the metric knows speakers."""
    found = []
    for judged_as, place in takes.items():
        for spoken_by, other in takes.items():
            if spoken_by != judged_as and not metric.knows_speaker:
                continue
            numbers = measure(metric, replace(place, spoken=other.spoken))
            spoken, recorded = _mean(numbers.new.values()), _mean(numbers.old.values())
            if spoken is None or recorded is None:
                continue
            ideal = metric.perfect if metric.against == "limit" else recorded
            behind = ideal - spoken if metric.higher_is_better else spoken - ideal
            found.append(
                Loss(spoken_by=spoken_by, judged_as=judged_as, behind=behind, spoken=spoken, recorded=recorded)
            )
    return found


def _limit(metric: Metric, losses: Sequence[Loss], base: Base) -> Limit:
    own = [loss for loss in losses if loss.is_own]
    others = [loss for loss in losses if not loss.is_own]
    good, wrong = [loss.behind for loss in own], [loss.behind for loss in others]
    least = LEAST_SHARE * abs(metric.perfect - metric.useless)
    distance, allowed = (min(wrong) - max(good) if wrong else None), suggest(good, wrong, least)
    held_out = 0
    for left_out in own:
        without = [loss.behind for loss in own if loss is not left_out]
        strangers = [loss.behind for loss in others if left_out.judged_as not in (loss.judged_as, loss.spoken_by)]
        held_out += bool(without) and left_out.behind <= suggest(without, strangers, least)
    spoken, strange = sorted(loss.spoken for loss in own), sorted(loss.spoken for loss in others)
    told = f"good voices score {spoken[0]:.3f} to {spoken[-1]:.3f}, {min(good):.3f} to {max(good):.3f} behind"
    if strange:
        word = "apart by" if distance is not None and distance > 0 else "overlapping by"
        told += f"; wrong speakers {strange[0]:.3f} to {strange[-1]:.3f}, {word} {abs(distance or 0.0):.3f}"
    return Limit(
        floor=metric.floor,
        metric=metric.id,
        present=base.gate.floors.get(metric.floor, metric.limit),
        suggested=round(metric.perfect - allowed if metric.against == "limit" else allowed, 3),
        distance=distance,
        good=tuple(own),
        wrong=tuple(others),
        held_out=held_out,
        told=f"{told}; {held_out} of {len(good)} good voices pass a limit set without them",
    )


def _copies(metric: Metric, takes: Mapping[str, Measuring], base: Base) -> CopyFloor:
    clips = [
        score for one in takes.values() for score in measure(metric, one).old.values() if score is not None
    ]  # by the bare base
    scores = np.array(clips or [0.0])
    return CopyFloor(
        floor=metric.floor,
        metric=metric.id,
        present=base.gate.floors.get(metric.floor, metric.limit),
        official=metric.official or 0.0,
        clips=len(clips),
        mean=float(scores.mean()),
        low=float(np.percentile(scores, 5)),
        worst=float(scores.min()),
    )


def _speech(limits: Sequence[Limit]) -> str:
    """How far the base's own speech is from recordings, in one sentence for its card and every report."""
    told = []
    for limit in limits:
        spoken, recorded = _mean([one.spoken for one in limit.good]), _mean([one.recorded for one in limit.good])
        told.append(f"{METRICS[limit.metric].title} {spoken:.2f} (recordings {recorded:.2f})")
    return f"Speech of this base, over {len(limits[0].good)} voices: {', '.join(told)}." if limits else ""


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
