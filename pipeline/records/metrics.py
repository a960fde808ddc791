"""What the gate measures: one row for each metric. Whoever names metrics reads the rows: settings, cards of bases, the
gate, reports, the docs. A new metric is a row here and its measure in `pipeline/stages/evaluate/measures.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

EvidenceName = Literal["base", "free_speech", "last_release", "resynthesis", "copy_synthesis"]
Against = Literal["limit", "base", "recordings", "bare", "shuffled", "nothing"]


@dataclass(frozen=True)
class Evidence:
    """A part of the report: what is looked at in it, and what a person can do where it blocks."""

    title: str
    meaning: str
    advice: str


# In the order of the report.
EVIDENCES: dict[EvidenceName, Evidence] = {
    "base": Evidence(
        title="The base",
        meaning="What this voice is built on.",
        advice="take a base that is trained and speaks the language (voxline bases list)",
    ),
    "free_speech": Evidence(
        title="Free speech",
        meaning="Sentences nobody recorded. Judged beside the speaker's own held-out recordings, by the same tools.",
        advice="longer and cleaner recordings, with the speaker in an even voice, may help",
    ),
    "last_release": Evidence(
        title="Against the last release",
        meaning="The same sentences with the same seeds, by this version and by the one that production serves. Only a"
        " clear loss blocks: its whole interval is a loss, and its mean is more than the limit.",
        advice="production is better: compare the recordings that changed since, or leave it as it is",
    ),
    "resynthesis": Evidence(
        title="Resynthesis through tokens",
        meaning="Each held-out recording is reduced to semantic tokens and text, then spoken again with another"
        " recording as the reference. Compared with the same by the bare base.",
        advice="more recordings of the same kind, or fewer finetune.epochs, may help",
    ),
    "copy_synthesis": Evidence(
        title="Copy-synthesis",
        meaning="Each held-out recording goes through encoder and decoder, drawn as speech is drawn, and is compared"
        " with itself, after one constant delay is undone. It says what the base can draw, and blocks only where the"
        " bare base copies these recordings well enough and the adapter does not.",
        advice="the adapter draws worse than the bare base: fewer finetune.epochs, or another base",
    ),
}


@dataclass(frozen=True)
class Metric:
    """One row.

    Attributes:
        name: with the evidence before it, the id of its check; the function in `measures.py` has this id.
        against: what decides. ``limit``: the mean must reach the limit. ``base``: likewise, but where the bare base
            does not reach it either, no training can, and it is noted. ``recordings``: the mean may be worse by the
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
        stands_for: the id of a better ear's metric; where that one was measured, this one decides nothing.
        agrees_with: the id of the other ear: this one blocks only where that one fails, too; alone it asks for review.
        knows_speaker: somebody else's speech must fail it: its limit lies between good voices and wrong speakers.
        clear_loss: against the last release, the mean loss that blocks; None: not compared.
        advice: what a voice team can do where it fails, in their words.
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
    official: float | None = None
    bounds: tuple[float | None, float | None] = (0.0, None)
    whole: bool = False
    ear: str = ""
    absent: str = ""
    waits: bool = False
    stands_for: str = ""
    agrees_with: str = ""
    knows_speaker: bool = False
    clear_loss: float | None = None
    explained: str = ""
    advice: str = ""

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
            limit_source="required of every base",
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
            advice="the base does not find the end of its sentences: record more sentences of ordinary length",
        ),
        Metric(
            "free_speech",
            "tempo",
            "Length against its tokens",
            "",
            "limit",
            useless=0.5,
            perfect=0.0,
            limit=0.03,
            limit_source="the gate",
            explained="how much longer or shorter sentences sound than their tokens last: a tape at another speed",
            advice="what draws the sound runs at another rate than the tokens: nothing that recordings can change; tell"
            " who runs voxline here",
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
            bounds=(0.0, 2.0),
            ear="words",
            absent="needs Whisper: voxline artifacts pull gate",
            clear_loss=0.1,
            advice="listeners would misread it: check that each text says what its clip says, and record ten more"
            " sentences, spoken clearly",
        ),
        Metric(
            "free_speech",
            "as_written",
            "Sentences heard as written",
            "",
            "recordings",
            useless=0.0,
            perfect=1.0,
            limit=0.25,
            floor="as_written_less",
            bounds=(0.0, 1.0),
            ear="words",
            absent="needs Whisper: voxline artifacts pull gate",
            waits=True,
            explained="none broken off, none with words repeated or invented",
            advice="sentences break off, repeat or gain words: check the texts of the clips, above all their ends",
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
            stands_for="free_speech.cer",
            advice="check that each text says what its clip says",
        ),
        Metric(
            "free_speech",
            "likeness",
            "Speaker likeness (ECAPA)",
            "cosine",
            "limit",
            useless=0.0,
            perfect=1.0,
            limit=0.45,
            floor="likeness",
            bounds=(0.0, 1.0),
            ear="speaker",
            absent="needs ECAPA-TDNN: voxline artifacts pull gate",
            waits=True,
            knows_speaker=True,
            clear_loss=0.05,
            advice="it sounds like somebody else: take out clips of other people, and record ten more sentences in the"
            " same room with the same microphone",
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
            stands_for="free_speech.likeness",
            knows_speaker=True,
            advice="it sounds like somebody else: take out clips of other people, and record ten more sentences in the"
            " same room with the same microphone",
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
            agrees_with="free_speech.naturalness",
            clear_loss=0.3,
            advice="noise or artefacts: record in a quieter room, nearer to the microphone",
        ),
        Metric(
            "free_speech",
            "naturalness",
            "Naturalness (DistillMOS)",
            "MOS",
            "recordings",
            useless=1.0,
            perfect=5.0,
            limit=1.0,
            floor="naturalness_loss",
            ear="listener",
            absent="needs DistillMOS: voxline artifacts pull gate",
            waits=True,
            agrees_with="free_speech.dnsmos_ovr",
            clear_loss=0.3,
            advice="it does not sound like a person: record more sentences, in an even voice",
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
            "copy_synthesis",
            "pesq_wb",
            "PESQ-WB",
            "MOS-LQO",
            "base",
            useless=1.04,
            perfect=4.64,
            limit=3.5,
            floor="pesq_wb",
            setting="pesq_wb_min",
            asks="PESQ-WB that copies should have; blocks only where the bare base has it. Official bases: 3.5.",
            official=3.5,
            bounds=(1.0, 4.64),
            whole=True,
            explained="likeness to the recording as listeners hear it (ITU-T P.862.2)",
        ),
        Metric(
            "copy_synthesis",
            "stoi",
            "STOI",
            "",
            "base",
            useless=0.0,
            perfect=1.0,
            limit=0.85,
            floor="stoi",
            setting="stoi_min",
            asks="STOI that copies should have; blocks only where the bare base has it. Official bases: 0.85.",
            official=0.85,
            bounds=(0.0, 1.0),
            whole=True,
            explained="how well the words can be made out (Taal 2011)",
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


def advice_of(check_id: str) -> str:
    """What a person can do where this check blocks."""
    evidence, metric = check_id.partition(".")[0], METRICS.get(check_id)
    if metric is not None and metric.advice:
        return metric.advice
    return next((one.advice for known, one in EVIDENCES.items() if known == evidence), "")


def metrics_table() -> str:
    """The rows for the docs, as Markdown: what decides, what is measured, and what else there is to say."""
    lines = ["| check | passes when | card | clear loss |", "|---|---|---|---|"]
    for metric in METRICS.values():
        loss = "" if metric.clear_loss is None else f"{metric.clear_loss:g}"
        card = f"`{metric.floor}`" if metric.floor else ""
        lines.append(f"| `{metric.id}` | {_decides(metric)} | {card} | {loss} |")
    lines += ["", "| check | measures | unit |", "|---|---|---|"]
    lines += [f"| `{metric.id}` | {metric.title} | {metric.unit} |" for metric in METRICS.values()]
    told = [line for metric in METRICS.values() for line in _remarks(metric)]
    return "\n".join([*lines, "", *(f"- {line}" for line in told)]) + "\n"


def _decides(metric: Metric) -> str:
    word, sign = ("at least", "-") if metric.higher_is_better else ("at most", "+")
    return {
        "limit": f"{word} {metric.limit:g}",
        "base": f"{word} {metric.limit:g}, if the bare base has that",
        "recordings": f"{word} the recordings' {sign} {metric.limit:g}",
        "bare": f"change {word} {metric.limit:g} against the bare base",
        "shuffled": f"gain {word} {metric.limit:g} over shuffled tokens",
        "nothing": "always; shown",
    }[metric.against]


def _remarks(metric: Metric) -> Iterator[str]:
    if metric.setting:
        yield f"`{metric.id}`: settings can raise it, `gate.{metric.setting}`."
    if metric.stands_for:
        yield f"`{metric.id}` decides only where `{metric.stands_for}` was not measured."
    if metric.agrees_with:
        yield f"`{metric.id}` blocks only together with `{metric.agrees_with}`; alone it asks for a person."
