"""What evaluation leaves: every measurement with its limit, and whether the gate opens."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from pipeline.records.base import Record
from pipeline.records.metrics import EvidenceName, Metric

Status = Literal["passed", "failed", "review", "noted", "not_measured", "shown"]

REPORT_FILE = "report/index.html"
JUNIT_FILE = "report/junit.xml"
DATA_FILE = "report/report.json"


class Floor(Record):
    """A minimum and who set it: pipeline.toml or voice.yaml, or the base's card, and how that found it."""

    value: float
    source: str
    measured: str = ""


class Floors(Record):
    """The gate's limits by their names in a base's card (`Metric.floor`), in words; the key knows their numbers only.

    Attributes:
        waived: required checks that the base's card lets go unmeasured -> why.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Floor]

    waived: dict[str, str] = Field(default_factory=dict)

    @property
    def limits(self) -> dict[str, Floor]:
        """All but the waivers."""
        return dict(self.__pydantic_extra__)

    def of(self, metric: Metric) -> Floor:
        """The limit of a metric, its own where nobody stated one."""
        stated = self.__pydantic_extra__.get(metric.floor)
        return stated or Floor(value=metric.limit, source="default of the gate")


class Check(Record):
    """One measurement against its limit.

    Attributes:
        id: evidence and measure, ``copy_synthesis.pesq_wb``.
        status: ``shown`` measured for the reader, decides nothing; ``not_measured`` blocks where the check is required;
            ``review`` one ear of two failed it: a person should listen; ``noted`` below the limit for a reason that
            training cannot change.
        value, low, high: mean over clips and its 95 % bootstrap interval.
        limit: what ``decides_by`` must reach: at least, or at most where ``higher_is_better`` is false.
        decides_by: which of the three numbers is held against the limit.
        floor, ceiling: what a useless and a perfect system score; the report draws the value between them.
        per_clip: clip or sentence -> score; None where it could not be taken.
        advice: what a person can do, where it blocks, asks for review or is noted.
    """

    id: str
    evidence: EvidenceName
    title: str
    unit: str
    status: Status
    required: bool
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    limit_source: str = ""
    decides_by: Literal["mean", "low", "high"] = "mean"
    higher_is_better: bool = True
    floor: float
    ceiling: float
    explanation: str
    per_clip: dict[str, float | None] = Field(default_factory=dict)
    advice: str = ""

    @property
    def blocks(self) -> bool:
        return self.status == "failed" or (self.required and self.status == "not_measured")

    @property
    def reason(self) -> str:
        """Why this check blocks, or asks for a person, in one sentence."""
        if self.status == "not_measured":
            return f"{self.title} could not be measured: {self.explanation}"
        word = "below" if self.higher_is_better else "above"
        return f"{self.title}: {self._decisive:.3g} is {word} {self.limit:.3g} ({self.limit_source})"

    @property
    def line(self) -> str:
        """One line of a log: a mark, the name, the mean, its interval where that decides, and the limit."""
        unmeasured = "✗" if self.required else "-"
        marks = {"passed": "✓", "failed": "✗", "review": "?", "noted": "·", "not_measured": unmeasured, "shown": " "}
        mark = marks[self.status]
        if self.value is None:
            return f"{mark} {self.title}: not measured"
        end = (
            "" if self.decides_by == "mean" or self._decisive is None else f" [{self.decides_by} {self._decisive:.3g}]"
        )
        limit = f", {self.asked} ({self.limit_source})" if self.asked else ""
        return f"{mark} {self.title} {self.value:.3g}{end}{limit}"

    @property
    def asked(self) -> str:
        """What is asked for, as words: `at least 3.5`; empty where nothing is."""
        if self.limit is None:
            return ""
        return f"at {'least' if self.higher_is_better else 'most'} {self.limit:.3g}"

    @property
    def _decisive(self) -> float | None:
        return {"mean": self.value, "low": self.low, "high": self.high}[self.decides_by]


class AudioFile(Record):
    """A sound of the report: what it is, and its file below the stage's folder.

    Attributes:
        role: ``recording``, ``copy``, ``adapted``, ``bare``; of a free sentence ``spoken``, and ``production``, as the
            release that production serves says it.
    """

    role: str
    title: str
    path: str


class Sample(Record):
    """One held-out clip or one free sentence: all sounds made of it, side by side.

    Attributes:
        name: as in ``Check.per_clip``.
        language: of the text; empty: the voice's.
        heard: what the recogniser wrote down of it; empty without one.
    """

    name: str
    evidence: EvidenceName
    text: str
    language: str = ""
    sounds: tuple[AudioFile, ...]
    notes: tuple[str, ...] = ()
    heard: str = ""


class QualityReport(Record):
    """The gate's verdict on exactly one version of one voice.

    Attributes:
        review: why a person should listen before it is used, though nothing blocks.
        base_speech: how far the base's own speech is from recordings, by its card.
        ears: ear -> digest of its weights, of those that were here.
        compared_with: the release that production served, or why there was nothing to compare with.
    """

    voice: str
    version: str
    base: str
    base_digest: str
    language: str = "en"
    passed: bool
    reasons: tuple[str, ...]
    floors: Floors
    checks: tuple[Check, ...]
    samples: tuple[Sample, ...]
    heldout_clips: tuple[str, ...]
    duration_s: float
    review: tuple[str, ...] = ()
    base_speech: str = ""
    ears: dict[str, str] = Field(default_factory=dict)
    compared_with: str = ""

    def not_comparable(self, served: QualityReport | None) -> str:
        """Why there is nothing to compare with in what production serves; empty where there is."""
        if served is None:
            return "not applicable: production serves no release with a report"
        if served.version == self.version:
            return f"not applicable: production serves this very version, {served.version}"
        if served.base_digest != self.base_digest:
            return f"not applicable: {served.version} stands on another base, {served.base} {served.base_digest[:12]}"
        return ""

    @property
    def metrics(self) -> dict[str, float | None]:
        """Every mean by the check's id, as the registry keeps it."""
        return {check.id: check.value for check in self.checks if check.evidence != "last_release"}
