"""Numbers of the flow-matching decoder of GPT-SoVITS v3 and v4 (SPEC section 4)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, PositiveInt


class DiTConfig(BaseModel):
    """The velocity estimator: a diffusion transformer over mel frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mel_channels: PositiveInt = 100
    condition_channels: PositiveInt = 512
    dim: PositiveInt = 1024
    depth: PositiveInt = 22
    heads: PositiveInt = 16
    head_dim: PositiveInt = 64
    ff_mult: PositiveInt = 2
    condition_layers: PositiveInt = 4
    dropout: float = 0.1

    time_channels: PositiveInt = 256
    """Width of the sinusoid in front of the two time embeddings."""
    time_scale: float = 1000.0
    max_positions: PositiveInt = 4096
    """Rows of the fixed position table of the condition; later frames reuse the last row."""
    position_kernel: PositiveInt = 31
    position_groups: PositiveInt = 16


class FlowMatchingConfig(BaseModel):
    """How the estimator is trained: flow matching, with a part of the steps teaching it to take long steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shortcut_probability: float = 0.3
    """Chance, per batch, that the loss is the self-consistency one."""
    shortcut_exponent_min: PositiveInt = 2
    shortcut_exponent_max: PositiveInt = 7
    shortcut_smallest_step: float = 0.01
    """Steps below this are shown to the estimator as 0, the plain flow-matching step."""
    mel_floor: float = -12.0
    mel_ceiling: float = 2.0
    """Natural-log mels between floor and ceiling are mapped to [-1, 1]."""
