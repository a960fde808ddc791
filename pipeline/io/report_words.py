"""What a quality report says in words and numbers, whatever its form: page, Markdown, JUnit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from pipeline.errors import SettingsError
from pipeline.records.adapter import TrainedGroup, TrainedPart
from pipeline.records.quality import Check, QualityReport, Sample
from pipeline.text.languages import known_language
from pipeline.text.listening import words_of

MARKS = {"passed": "✓", "failed": "✗", "review": "?", "noted": "!", "not_measured": "–", "shown": "·"}
MOST_LETTERS = 2000  # of what a recogniser heard: one that repeats itself has no end
FREE_SPEECH = "free_speech"

Difference = tuple[Literal["same", "missed", "added"], str]


@dataclass(frozen=True)
class Ranked:
    """A free sentence, and how far its worst score lies on the right side of its limit, in lengths of the whole scale.

    Attributes:
        margin: below zero where one score alone would fail; None where nothing was measured.
        scores: what was measured of it, with the check that it belongs to.
    """

    sample: Sample
    margin: float | None
    scores: tuple[tuple[Check, float], ...]


def verdict_sentence(report: QualityReport) -> str:
    """The verdict, in one sentence."""
    required = [check for check in report.checks if check.required]
    blocking = [check for check in report.checks if check.blocks]
    sentences = sum(sample.evidence == FREE_SPEECH for sample in report.samples)
    heldout = len(report.heldout_clips)
    if report.passed:
        heard = f"{_count(heldout, 'recording')} that training never saw and {_count(sentences, 'new sentence')}"
        held = f"{'all ' if len(required) > 1 else ''}{_count(len(required), 'required check')} hold, on {heard}"
        waits = f"Passed, but waits on channel candidate for a person to listen: {held}."
        return waits if report.review else f"Passed: {held}."
    if not blocking:
        return f"Blocked: {'; '.join(report.reasons) or 'nothing required was checked'}."
    more = f", and {_count(len(blocking) - 1, 'more check')}" if len(blocking) > 1 else ""
    return f"Blocked by {_told(blocking[0])}{more}."


def _told(check: Check) -> str:
    if check.status == "not_measured" or check.value is None:
        return f"{check.title}, which could not be measured"
    return f"{check.title}: {short(decisive(check))}, {check.asked} is asked for"


def decisive(check: Check) -> float | None:
    """The number that is held against the limit."""
    return {"mean": check.value, "low": check.low, "high": check.high}[check.decides_by]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def advice(report: QualityReport) -> dict[str, str]:
    """Why it is blocked, or why a person should listen, and for each what a voice team can do."""
    blocking = {check.reason: check.advice for check in report.checks if check.blocks}
    told = {**blocking, **{check.reason: check.advice for check in report.checks if check.status == "review"}}
    return {**told, **{reason: "" for reason in report.reasons if reason not in told}}


def compared(report: QualityReport) -> str:
    """Why nothing of production can be heard, as a sentence."""
    told = report.compared_with.removeprefix("not applicable: ")
    if not told:
        return "This version was not compared with what production serves."
    if told == report.compared_with:
        return f"Production serves version {told}, whose report holds no sound of this sentence."
    return f"{told[0].upper()}{told[1:]}."


def ranked(report: QualityReport) -> list[Ranked]:
    """The free sentences, the worst first; those that nobody could measure come first of all."""
    samples = [sample for sample in report.samples if sample.evidence == FREE_SPEECH]
    found = [_ranked(sample, report.checks) for sample in samples]
    return sorted(found, key=lambda one: -math.inf if one.margin is None else one.margin)


def _ranked(sample: Sample, checks: Sequence[Check]) -> Ranked:
    scores = tuple(_scores(sample, checks))
    margins = [
        (score - check.limit) / (check.ceiling - check.floor)
        for check, score in scores
        if check.limit is not None and check.status != "shown"
    ]
    return Ranked(sample, min(margins, default=None), scores)


def _scores(sample: Sample, checks: Sequence[Check]) -> Iterator[tuple[Check, float]]:
    for check in checks:
        score = check.per_clip.get(sample.name)
        if check.evidence == sample.evidence and score is not None and check.floor != check.ceiling:
            yield check, score


def is_short_of(check: Check, score: float) -> bool:
    """Whether this score by itself would not reach the limit."""
    if check.limit is None or check.status == "shown":
        return False
    return score < check.limit if check.higher_is_better else score > check.limit


def differences(sample: Sample, language: str) -> list[Difference]:
    """The text as it was heard: what agrees, what was missed, what was added; in words as they are read.

    ``language``: of the voice.
    """
    wanted, said = (_words(text, sample.language or language) for text in (sample.text, sample.heard))
    one, other = ([word.casefold() for word in words] for words in (wanted, said))
    found: list[Difference] = []
    for kind, start, end, first, last in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if kind == "equal":
            found += [("same", word) for word in said[first:last]]
        else:
            found += [("missed", word) for word in wanted[start:end]] + [("added", word) for word in said[first:last]]
    return found


def _words(text: str, language: str) -> Sequence[str]:
    """As the language's front end reads it; as it is written where there is none."""
    text = text[:MOST_LETTERS]
    try:
        return words_of(text, known_language(language))
    except SettingsError:
        return text.split()


def joined(words: Sequence[str], language: str) -> str:
    """Words as they are written beside each other."""
    return ("" if language in ("zh", "ja") else " ").join(words)


def told_differences(found: Sequence[Difference]) -> str:
    """How much of it: `2 of 9 missed, 1 added`."""
    missed, added = (sum(change == kind for change, _ in found) for kind in ("missed", "added"))
    if not missed and not added:
        return "heard as written"
    return f"{missed} of {sum(change != 'added' for change, _ in found)} missed, {added} added"


def told_training(part: TrainedPart, group: TrainedGroup) -> str:
    """What training did to one group of weights, or what happened instead."""
    if part.ended_by == "fixed":
        return "Not trained: this base speaks with this network as it is, and the adapter changes nothing in it."
    if part.steps == 0:
        return "No step was made, so the adapter changes nothing: finetune.epochs asks for none."
    before, after = short(group.heldout_loss_before), short(group.heldout_loss)
    if group.best_step == 0:
        return f"None of {part.steps} steps lowered the held-out loss of {before}: the weights stay those of the base."
    ended = "no held-out loss fell any more" if part.ended_by == "heldout" else "all epochs were done"
    return f"Held-out {group.loss} {before} → {after}, best at step {group.best_step} of {part.steps}; {ended}."


def short(number: float | None) -> str:
    """Three significant digits, without an exponent for ordinary sizes."""
    if number is None:
        return "-"
    if number == 0 or not 1e-3 <= abs(number) < 1e5:
        return f"{number:.3g}"
    return f"{number:.{max(0, 2 - math.floor(math.log10(abs(number))))}f}"
