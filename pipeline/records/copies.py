"""How well a base draws recordings before anything is trained on them."""

from __future__ import annotations

from pipeline.records.base import Record


class CopyScore(Record):
    """One measure of a base's copies.

    Attributes:
        limit: what the base's card asks of copies. ``official``: what is asked of the official bases.
        per_clip: recording -> score; None where it could not be taken.
    """

    id: str
    title: str
    value: float | None
    limit: float
    official: float | None
    per_clip: dict[str, float | None]

    @property
    def is_short(self) -> bool:
        return self.value is not None and self.value < self.limit


class Copies(Record):
    """What the bare base makes of some recordings. It blocks nobody: training does not change it."""

    voice: str
    base: str
    scores: tuple[CopyScore, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """For a person: the scores, and what can be done about them."""
        told = [self._told(score) for score in self.scores]
        short = [score for score in self.scores if score.is_short]
        if not short:
            return (*told, f"base {self.base} draws these recordings as well as its card says")
        worst = min((value, clip) for clip, value in short[0].per_clip.items() if value is not None)[1]
        return (
            *told,
            f"base {self.base} does not draw these recordings as well as others, {worst} least of all, and training"
            " does not change that: record with less noise and echo, or take another --base; it blocks nothing",
        )

    def _told(self, score: CopyScore) -> str:
        official = "" if score.official is None else f", official bases {score.official:g}"
        if score.value is None:
            return f"copies: {score.title} could not be measured"
        return f"copies: {score.title} {score.value:.2f}, asked for {score.limit:g}{official}"
