"""What the gate measures: one row for each metric. Whoever names metrics reads the rows: settings, cards of bases, the
gate, reports, the docs. A new metric is a row here and its measure in `pipeline/stages/evaluate/measures.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

EvidenceName = Literal["base", "copy_synthesis", "resynthesis", "free_speech"]
Against = Literal["limit", "recordings", "bare", "shuffled", "nothing"]


@dataclass(frozen=True)
class Evidence:
    """A part of the report: what is looked at in it, and what a person can do where it blocks."""

    title: str
    meaning: str
    advice: str


# In the order of the report; the advice of the first that blocks is told.
EVIDENCES: dict[EvidenceName, Evidence] = {
    "base": Evidence(
        title="The base",
        meaning="What this voice is built on.",
        advice="take a base that is trained and speaks the language (voxline bases list)",
    ),
    "copy_synthesis": Evidence(
        title="Copy-synthesis",
        meaning="Each held-out recording goes through encoder and decoder with the adapter and is compared with itself,"
        " after one constant delay is undone. It shows the best sound this voice can make.",
        advice="training does not change how the base copies these recordings: record them with less noise and"
        " echo, or take another --base",
    ),
    "resynthesis": Evidence(
        title="Resynthesis through tokens",
        meaning="Each held-out recording is reduced to semantic tokens and text, then spoken again with another"
        " recording as the reference. Compared with the same by the bare base.",
        advice="more recordings of the same kind, or fewer finetune.epochs, may help",
    ),
    "free_speech": Evidence(
        title="Free speech",
        meaning="Sentences nobody recorded. Judged beside the speaker's own held-out recordings, by the same tools.",
        advice="longer and cleaner recordings, with the speaker in an even voice, may help",
    ),
}


@dataclass(frozen=True)
class Metric:
    """One row.

    Attributes:
        name: with the evidence before it, the id of its check; the function in `measures.py` has this id.
        against: what decides. ``limit``: the mean must reach the limit. ``recordings``: the mean may be worse by the
            limit than that of the speaker's own recordings. ``bare``, ``shuffled``: the deciding end of the interval of
            the paired difference to the bare base, or to shuffled tokens, must reach the limit. ``nothing``: shown.
        limit: where the base's card states none. ``limit_source``: whose it is where no card can state one.
        floor: the key of section ``gate`` of a base's card; empty: the same limit for every base.
        setting: the key of the settings' section ``gate`` that can raise it; ``asks``: its description.
        bounds: of what a card or a setting may ask for; None: no end.
        useless, perfect: what such systems score; the report draws the value between them.
        whole: a clip without a number is a failure of the measurement, not a clip less.
        ear: what has to listen, an attribute of `measures.Ears`; ``absent``: why there is no number without it.
        waits: required only where its ear is there.
        explained: for the reader; empty: the measure says it.
    """

    evidence: EvidenceName
    name: str
    title: str
    unit: str
    against: Against
    useless: float
    perfect: float
    limit: float = 0.0
    limit_source: str = ""
    floor: str = ""
    setting: str = ""
    asks: str = ""
    brief: float | None = None
    bounds: tuple[float | None, float | None] = (0.0, None)
    whole: bool = False
    ear: str = ""
    absent: str = ""
    waits: bool = False
    explained: str = ""

    @property
    def id(self) -> str:
        return f"{self.evidence}.{self.name}"

    @property
    def higher_is_better(self) -> bool:
        return self.perfect > self.useless

    def admits(self, value: float) -> bool:
        """Whether a card or a setting may ask for this."""
        low, high = self.bounds
        return (low is None or value >= low) and (high is None or value <= high)


_READER = "for the reader; decides nothing"

# In the order of the report.
METRICS: dict[str, Metric] = {
    metric.id: metric
    for metric in (
        Metric(
            "base",
            "trained",
            "Base has trained weights",
            "",
            "limit",
            useless=0.0,
            perfect=1.0,
            limit=1.0,
            limit_source="every base that is published on",
        ),
        Metric(
            "base",
            "language",
            "Base speaks the voice's language",
            "",
            "limit",
            useless=0.0,
            perfect=1.0,
            limit=1.0,
            limit_source="the base's card",
        ),
        Metric(
            "copy_synthesis",
            "pesq_wb",
            "PESQ-WB",
            "MOS-LQO",
            "limit",
            useless=1.04,
            perfect=4.64,
            limit=3.5,
            floor="pesq_wb",
            setting="pesq_wb_min",
            asks="Copy-synthesis PESQ-WB on held-out clips; brief: 3.5.",
            brief=3.5,
            bounds=(1.0, 4.64),
            whole=True,
            explained="likeness to the recording as listeners hear it (ITU-T P.862.2)",
        ),
        Metric(
            "copy_synthesis",
            "stoi",
            "STOI",
            "",
            "limit",
            useless=0.0,
            perfect=1.0,
            limit=0.85,
            floor="stoi",
            setting="stoi_min",
            asks="Copy-synthesis STOI on held-out clips; brief: 0.85.",
            brief=0.85,
            bounds=(0.0, 1.0),
            whole=True,
            explained="how well the words can be made out (Taal 2011)",
        ),
        Metric(
            "resynthesis",
            "stoi_change",
            "STOI against the bare base",
            "",
            "bare",
            useless=-0.5,
            perfect=0.5,
            limit=-0.03,
            limit_source="margin of the gate",
            explained="change by the adapter on the same clips; the low end of the interval decides",
        ),
        Metric(
            "resynthesis",
            "mcd_change",
            "Mel-cepstral distortion against the bare base",
            "dB",
            "bare",
            useless=5.0,
            perfect=-5.0,
            limit=0.5,
            limit_source="margin of the gate",
            explained="change by the adapter on the same clips; the high end of the interval decides",
        ),
        # How much better the right tokens must do than shuffled ones, for tokens to carry what is said.
        Metric(
            "resynthesis",
            "tokens_matter",
            "STOI against shuffled tokens",
            "",
            "shuffled",
            useless=-0.5,
            perfect=0.5,
            limit=0.03,
            limit_source="margin of the gate",
            explained="the right tokens must say more than the same tokens in random order",
        ),
        Metric("resynthesis", "pesq_wb", "PESQ-WB", "MOS-LQO", "nothing", 1.04, 4.64, explained=_READER),
        Metric("resynthesis", "stoi", "STOI", "", "nothing", 0.0, 1.0, explained=_READER),
        Metric("resynthesis", "mcd_db", "Mel-cepstral distortion", "dB", "nothing", 15.0, 0.0, explained=_READER),
        Metric("resynthesis", "pitch_rmse_cents", "Pitch error", "cents", "nothing", 600.0, 0.0, explained=_READER),
        Metric("resynthesis", "pitch_correlation", "Pitch correlation", "", "nothing", 0.0, 1.0, explained=_READER),
        Metric("resynthesis", "voicing_error", "Voicing error", "", "nothing", 0.5, 0.0, explained=_READER),
        Metric(
            "free_speech",
            "complete",
            "Sentences spoken to their end",
            "",
            "limit",
            useless=0.0,
            perfect=1.0,
            limit=0.75,
            limit_source="the gate",
            explained="the end was reached by itself, at a human pace, without silence or clipping",
        ),
        Metric(
            "free_speech",
            "dnsmos_ovr",
            "DNSMOS overall",
            "MOS",
            "recordings",
            useless=1.0,
            perfect=5.0,
            limit=1.0,
            floor="dnsmos_loss",
        ),
        Metric(
            "free_speech",
            "similarity",
            "Speaker similarity (GE2E)",
            "cosine",
            "recordings",
            useless=0.4,
            perfect=1.0,
            limit=0.2,
            floor="similarity_loss",
            bounds=(0.0, 1.0),
        ),
        Metric(
            "free_speech",
            "phone_errors",
            "Phone error rate",
            "",
            "recordings",
            useless=1.0,
            perfect=0.0,
            limit=0.3,
            floor="phone_errors_more",
            bounds=(0.0, 1.0),
            ear="recogniser",
            absent="the base brings no phone recogniser for this language",
            waits=True,
        ),
        Metric(
            "free_speech",
            "cer",
            "Character error rate",
            "",
            "recordings",
            useless=1.0,
            perfect=0.0,
            limit=0.1,
            floor="cer_more",
            bounds=(0.0, 1.0),
            ear="transcribe",
            absent="needs a speech recogniser: set evaluate.recogniser",
        ),
    )
}


def floored() -> Iterator[Metric]:
    """The metrics whose limit is for a base's card to state."""
    return (metric for metric in METRICS.values() if metric.floor)


def settable() -> Iterator[Metric]:
    """Those of them that settings can raise."""
    return (metric for metric in METRICS.values() if metric.setting)


def minima(card: Mapping[str, float]) -> dict[str, float]:
    """What a base's card asks for of that which settings can raise, by the setting's name in section gate."""
    return {metric.setting: card.get(metric.floor, metric.limit) for metric in settable()}


def unit_of(check_id: str) -> str:
    """The unit of a number that the registry keeps under a check's id; empty for shares, indices and strangers."""
    return METRICS[check_id].unit if check_id in METRICS else ""


def metrics_table() -> str:
    """The rows for the docs, as Markdown."""
    lines = ["| check | measures | decides | a base's card | raised by |", "|---|---|---|---|---|"]
    for metric in METRICS.values():
        names = (f"`gate.{metric.floor}`" if metric.floor else "", f"`gate.{metric.setting}`" if metric.setting else "")
        lines.append(f"| `{metric.id}` | {metric.title} | {_decides(metric)} | {names[0]} | {names[1]} |")
    return "\n".join(lines) + "\n"


def _decides(metric: Metric) -> str:
    word = "at least" if metric.higher_is_better else "at most"
    sign = "-" if metric.higher_is_better else "+"
    return {
        "limit": f"mean {word} {metric.limit:g}",
        "recordings": f"mean {word} that of the recordings {sign} {metric.limit:g}",
        "bare": f"interval of the change against the bare base {word} {metric.limit:g}",
        "shuffled": f"interval of the gain over shuffled tokens {word} {metric.limit:g}",
        "nothing": "nothing; shown",
    }[metric.against]
