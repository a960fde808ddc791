"""What fine-tuning leaves: two LoRA adapters, and how they were found."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.records.base import Record

Part = Literal["text2semantic", "synthesizer"]
PARTS: tuple[Part, ...] = ("text2semantic", "synthesizer")

ADAPTER_FOLDER = "adapter"


class CurvePoint(Record):
    """One pass over the training clips.

    Attributes:
        training_loss: mean over the pass; None before the first.
        heldout_loss: on clips never trained on; the weights with the lowest one are kept.
    """

    step: int
    training_loss: float | None
    heldout_loss: float


class TrainedGroup(Record):
    """Weights that follow one loss and are kept at their own best step: a better prior must not cost the decoder.

    Attributes:
        loss: what is counted, with its unit.
        best_step: optimiser step whose weights were kept; 0: the bare base was best and the adapter changes nothing.
    """

    name: str
    loss: str
    best_step: int
    heldout_loss_before: float
    heldout_loss: float
    curve: tuple[CurvePoint, ...]


class TrainedPart(Record):
    """One network's adapter.

    Attributes:
        folder: ``adapter/<part>`` with adapter_config.json and adapter_model.safetensors.
        batch_size: clips per optimiser step; micro_batch: in memory at once, after any halving for lack of memory.
        ended_by: ``epochs`` all were done, ``heldout`` no held-out loss fell any more, ``fixed`` this network of
            the base is not fine-tuned, and the adapter changes nothing.
    """

    part: Part
    folder: str
    rank: int
    alpha: float
    trainable_parameters: int
    frozen_parameters: int
    batch_size: int
    micro_batch: int
    steps: int
    ended_by: Literal["epochs", "heldout", "fixed"]
    groups: tuple[TrainedGroup, ...]

    def summary(self, group: TrainedGroup) -> str:
        """What training did to one group of weights, in one line."""
        name = f"{self.part}, {group.name}"
        if self.ended_by == "fixed":
            return f"{name}: as in the base, which does not fine-tune it"
        before, after = f"{group.heldout_loss_before:.4g}", f"{group.heldout_loss:.4g}"
        if group.best_step == 0:
            return f"{name}: held-out {group.loss} stays {before}; none of {self.steps} steps made it better"
        return f"{name}: held-out {group.loss} {before} -> {after} at step {group.best_step} of {self.steps}"


class AdapterRecord(Record):
    """Both adapters of a voice. No clip of ``heldout_clips`` was ever trained on."""

    base: str
    base_digest: str
    seed: int
    device: str
    precision: Literal["float32", "bfloat16"]
    training_clips: tuple[str, ...]
    heldout_clips: tuple[str, ...] = Field(min_length=1)
    training_s: float
    parts: tuple[TrainedPart, ...]
