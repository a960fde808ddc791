"""The quality gate: measurements to checks, and checks to a verdict. Pure; the numbers come from `stages/evaluate`.

Nothing passes by absence: a required check without a number blocks. Limits of resynthesis and free speech are relative,
to the bare base and to the speaker's own held-out recordings: absolute ones would say more about the recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.records.quality import Check, Evidence, Floor, Floors, Status
from pipeline.signal.quality import Interval, bootstrap, paired_bootstrap

Scores = Mapping[str, float | None]  # clip or sentence -> score

# How much worse than the bare base resynthesis may be, on the safe side of the interval, before it is a regression.
STOI_MARGIN = 0.03
MCD_MARGIN_DB = 0.5
# How much better the right tokens must do than shuffled ones, for tokens to carry what is said.
TOKENS_STOI_GAIN = 0.03
COMPLETE_SHARE = 0.75
SEED = 20260109


@dataclass(frozen=True)
class Resynthesis:
    """Held-out clips spoken again from their tokens: by the adapter, by the bare base, and from shuffled tokens."""

    adapted: Scores
    bare: Scores
    shuffled: Scores


@dataclass(frozen=True)
class Against:
    """Free speech beside the speaker's own held-out recordings; ``absent`` says why there are no numbers."""

    spoken: Scores
    recorded: Scores
    absent: str = ""


def verdict(checks: Sequence[Check]) -> tuple[bool, tuple[str, ...]]:
    """(passed, why not). A report without a single required check does not pass."""
    reasons = tuple(check.reason for check in checks if check.blocks)
    if not any(check.required for check in checks):
        reasons = ("nothing required was checked",)
    return not reasons, reasons


def base_checks(random_roles: Sequence[str], language: str, languages: Sequence[str]) -> list[Check]:
    """Whether the base can carry a voice at all."""
    trained, speaks = float(not random_roles), float(language in languages)
    roles = ", ".join(random_roles)
    return [
        _plain(
            "base.trained",
            "base",
            "Base has trained weights",
            trained,
            1.0,
            "every base that is published on",
            f"random numbers stand in for: {roles}; such a base only tries the line" if roles else "all networks have",
        ),
        _plain(
            "base.language",
            "base",
            "Base speaks the voice's language",
            speaks,
            1.0,
            "the base's card",
            f"the voice is {language}, the base knows {', '.join(languages)}",
        ),
    ]


def copy_synthesis_checks(pesq: Scores, stoi: Scores, floors: Floors) -> list[Check]:
    """The brief's gate: PESQ-WB and STOI of held-out recordings, mean over clips."""
    return [
        _mean_check(
            "copy_synthesis.pesq_wb",
            "PESQ-WB",
            "MOS-LQO",
            pesq,
            floors.pesq_wb,
            span=(1.04, 4.64),
            explanation="likeness to the recording as listeners hear it (ITU-T P.862.2)",
        ),
        _mean_check(
            "copy_synthesis.stoi",
            "STOI",
            "",
            stoi,
            floors.stoi,
            span=(0.0, 1.0),
            explanation="how well the words can be made out (Taal 2011)",
        ),
    ]


def _mean_check(
    id_: str, title: str, unit: str, scores: Scores, floor: Floor, *, span: tuple[float, float], explanation: str
) -> Check:
    values, interval = _values(scores), _interval(scores)
    status: Status = "not_measured"
    if interval is not None and len(values) == len(scores):
        status = "passed" if interval.mean >= floor.value else "failed"
    elif values:
        explanation = f"{len(scores) - len(values)} of {len(scores)} clips gave no number"
    return Check(
        id=id_,
        evidence="copy_synthesis",
        title=title,
        unit=unit,
        status=status,
        required=True,
        **_numbers(interval),
        limit=floor.value,
        limit_source=floor.source,
        floor=span[0],
        ceiling=span[1],
        explanation=explanation,
        per_clip=dict(scores),
    )


def resynthesis_checks(stoi: Resynthesis, mcd_db: Resynthesis, shown: Mapping[str, Scores]) -> list[Check]:
    """No regression against the bare base, and tokens that matter. ``shown``: further scores, for the reader."""
    return [
        _difference_check(
            "resynthesis.stoi_change",
            "STOI against the bare base",
            "",
            stoi.adapted,
            stoi.bare,
            limit=-STOI_MARGIN,
            explanation="change by the adapter on the same clips; the low end of the interval decides",
        ),
        _difference_check(
            "resynthesis.mcd_change",
            "Mel-cepstral distortion against the bare base",
            "dB",
            mcd_db.adapted,
            mcd_db.bare,
            limit=MCD_MARGIN_DB,
            higher_is_better=False,
            explanation="change by the adapter on the same clips; the high end of the interval decides",
        ),
        _difference_check(
            "resynthesis.tokens_matter",
            "STOI against shuffled tokens",
            "",
            stoi.adapted,
            stoi.shuffled,
            limit=TOKENS_STOI_GAIN,
            explanation="the right tokens must say more than the same tokens in random order",
        ),
        *(_shown("resynthesis", name, scores) for name, scores in shown.items()),
    ]


def _difference_check(
    id_: str,
    title: str,
    unit: str,
    new: Scores,
    old: Scores,
    *,
    limit: float,
    explanation: str,
    higher_is_better: bool = True,
) -> Check:
    pairs = {clip: (new[clip], old.get(clip)) for clip in new}
    kept = {clip: (a, b) for clip, (a, b) in pairs.items() if a is not None and b is not None}
    interval = None
    status: Status = "not_measured"
    if kept:
        interval = paired_bootstrap([a for a, _ in kept.values()], [b for _, b in kept.values()], seed=SEED)
        is_good = interval.low >= limit if higher_is_better else interval.high <= limit
        status = "passed" if is_good else "failed"
    reach = 0.5 if unit == "" else 5.0
    return Check(
        id=id_,
        evidence="resynthesis",
        title=title,
        unit=unit,
        status=status,
        required=True,
        **_numbers(interval),
        limit=limit,
        limit_source="margin of the gate",
        decides_by="low" if higher_is_better else "high",
        higher_is_better=higher_is_better,
        floor=-reach if higher_is_better else reach,
        ceiling=reach if higher_is_better else -reach,
        explanation=explanation if kept else "no clip gave a number",
        per_clip={clip: round(a - b, 4) for clip, (a, b) in kept.items()},
    )


def free_speech_checks(
    complete: Scores,
    dnsmos: Against,
    similarity: Against,
    phone_errors: Against,
    character_errors: Against,
    floors: Floors,
    *,
    needs_phone_errors: bool,
) -> list[Check]:
    """Free sentences: whole, as clean as the speaker's recordings, as much the speaker, and understood."""
    share = [value for value in complete.values() if value is not None]
    complete_check = _plain(
        "free_speech.complete",
        "free_speech",
        "Sentences spoken to their end",
        sum(share) / len(share) if share else None,
        COMPLETE_SHARE,
        "the gate",
        "the end was reached by itself, at a human pace, without silence or clipping",
    ).model_copy(update={"per_clip": dict(complete)})
    return [
        complete_check,
        _against("free_speech.dnsmos_ovr", "DNSMOS overall", "MOS", dnsmos, floors.dnsmos_loss, span=(1.0, 5.0)),
        _against(
            "free_speech.similarity",
            "Speaker similarity (GE2E)",
            "cosine",
            similarity,
            floors.similarity_loss,
            span=(0.4, 1.0),
        ),
        _against(
            "free_speech.phone_errors",
            "Phone error rate",
            "",
            phone_errors,
            floors.phone_errors_more,
            higher_is_better=False,
            span=(1.0, 0.0),
            required=needs_phone_errors,
        ),
        _waived(
            _against(
                "free_speech.cer",
                "Character error rate",
                "",
                character_errors,
                floors.cer_more,
                higher_is_better=False,
                span=(1.0, 0.0),
            ),
            floors,
        ),
    ]


def _waived(check: Check, floors: Floors) -> Check:
    """A check that could not be measured does not block where the base's card says so, and says why."""
    reason = floors.waived.get(check.id)
    if check.status != "not_measured" or reason is None:
        return check
    return check.model_copy(update={"required": False, "explanation": f"waived by the base's card: {reason}"})


def _against(
    id_: str,
    title: str,
    unit: str,
    scores: Against,
    allowance: Floor,
    *,
    span: tuple[float, float],
    required: bool = True,
    higher_is_better: bool = True,
) -> Check:
    """Spoken against recorded, which may be better by the allowance."""
    interval, own = _interval(scores.spoken), _interval(scores.recorded)
    status: Status = "not_measured"
    limit = None
    if interval is not None and own is not None:
        limit = own.mean - allowance.value if higher_is_better else own.mean + allowance.value
        is_good = interval.mean >= limit if higher_is_better else interval.mean <= limit
        status = "passed" if is_good else "failed"
    told = f"the speaker's own recordings score {own.mean:.3g}" if own is not None else "no number"
    return Check(
        id=id_,
        evidence="free_speech",
        title=title,
        unit=unit,
        status=status,
        required=required,
        **_numbers(interval),
        limit=limit,
        limit_source=f"own recordings {'-' if higher_is_better else '+'} {allowance.value:g}, {allowance.source}"
        if limit is not None
        else "",
        higher_is_better=higher_is_better,
        floor=span[0],
        ceiling=span[1],
        explanation=scores.absent or told,
        per_clip=dict(scores.spoken),
    )


def _plain(
    id_: str, evidence: Evidence, title: str, value: float | None, limit: float, source: str, explanation: str
) -> Check:
    status: Status = "not_measured" if value is None else "passed" if value >= limit else "failed"
    return Check(
        id=id_,
        evidence=evidence,
        title=title,
        unit="",
        status=status,
        required=True,
        value=value,
        low=value,
        high=value,
        limit=limit,
        limit_source=source,
        floor=0.0,
        ceiling=1.0,
        explanation=explanation,
    )


# name -> (title, unit, higher is better, useless, perfect)
SHOWN = {
    "pesq_wb": ("PESQ-WB", "MOS-LQO", True, 1.04, 4.64),
    "stoi": ("STOI", "", True, 0.0, 1.0),
    "mcd_db": ("Mel-cepstral distortion", "dB", False, 15.0, 0.0),
    "pitch_rmse_cents": ("Pitch error", "cents", False, 600.0, 0.0),
    "pitch_correlation": ("Pitch correlation", "", True, 0.0, 1.0),
    "voicing_error": ("Voicing error", "", False, 0.5, 0.0),
}


def _shown(evidence: Evidence, name: str, scores: Scores) -> Check:
    title, unit, higher_is_better, floor, ceiling = SHOWN[name]
    interval = _interval(scores)
    return Check(
        id=f"{evidence}.{name}",
        evidence=evidence,
        title=title,
        unit=unit,
        status="not_measured" if interval is None else "shown",
        required=False,
        **_numbers(interval),
        higher_is_better=higher_is_better,
        floor=floor,
        ceiling=ceiling,
        explanation="for the reader; decides nothing",
        per_clip=dict(scores),
    )


def _values(scores: Scores) -> list[float]:
    return [value for value in scores.values() if value is not None]


def _interval(scores: Scores) -> Interval | None:
    values = _values(scores)
    return bootstrap(values, seed=SEED) if values else None


def _numbers(interval: Interval | None) -> dict[str, float | None]:
    if interval is None:
        return {"value": None, "low": None, "high": None}
    return {"value": round(interval.mean, 4), "low": round(interval.low, 4), "high": round(interval.high, 4)}
