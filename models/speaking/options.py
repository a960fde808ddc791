"""How a voice computes: chosen by one word, and only what this processor has."""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from models.machine.processor import ProcessorError, require, works
from models.text2semantic.projections import WeightKind


@dataclass(frozen=True)
class VoiceOptions:
    """How a voice computes. The lighter kinds lose a little and are never chosen for you.

    `text2semantic_weights`: see `models.text2semantic.decoding.compare_weights` for what bf16 and int8 cost.
    `wave_precision`: of a HiFi-GAN type decoder on a CPU; others are fast as they are.
    `cfm_steps`: of v3 and v4; None as the base says.
    `keeps_modules`: no part of a network is replaced by a quicker one of the same numbers; adapters are plugged in.
    """

    text2semantic_weights: WeightKind = "f32"
    wave_precision: Literal["f32", "bf16"] = "f32"
    cfm_steps: int | None = None
    keeps_modules: bool = False


Precision = Literal["f32", "bf16", "int8"]
# What a user asks for by one word.
PRECISIONS: dict[Precision, VoiceOptions] = {
    "f32": VoiceOptions(),
    "bf16": VoiceOptions("bf16", "bf16"),
    "int8": VoiceOptions("int8", "bf16"),
}
INT8_WITHOUT_BF16 = "int8: this processor has no bf16 for the rest of the work; that is computed in float32"


def choose_options(precision: Precision, device: torch.device) -> tuple[VoiceOptions, list[str]]:
    """How a precision is computed here, and what is different from elsewhere, a line each.

    Raises ProcessorError where this processor does not have it; nothing takes its place unasked.
    """
    options = PRECISIONS[precision]
    if precision == "int8" and device.type != "cpu":
        raise ProcessorError(f"int8: its weights are for decoding on a CPU, not on {device.type}")
    if device.type != "cpu" or precision == "f32":
        return options, []
    require(precision)
    if works("bf16"):
        return options, []
    return replace(options, wave_precision="f32"), [INT8_WITHOUT_BF16]
