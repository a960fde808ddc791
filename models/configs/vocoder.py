"""Numbers of the vocoders: BigVGAN-v2 for v3, a HiFi-GAN type generator for v4 (SPEC section 5)."""

from __future__ import annotations

from math import prod

from pydantic import BaseModel, ConfigDict, PositiveInt


class _UpsamplerConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    mel_channels: PositiveInt = 100
    resblock_kernels: tuple[PositiveInt, ...] = (3, 7, 11)
    resblock_dilations: tuple[tuple[PositiveInt, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    upsample_rates: tuple[PositiveInt, ...]
    upsample_kernels: tuple[PositiveInt, ...]
    initial_channels: PositiveInt

    @property
    def hop_samples(self) -> int:
        """Samples made out of one mel frame."""
        return prod(self.upsample_rates)


class VocoderConfig(_UpsamplerConfig):
    """The v4 vocoder: 100 Hz mel of 32 kHz audio in, 48 kHz wave out."""

    upsample_rates: tuple[PositiveInt, ...] = (10, 6, 2, 2, 2)
    upsample_kernels: tuple[PositiveInt, ...] = (20, 12, 4, 4, 4)
    initial_channels: PositiveInt = 512
    final_bias: bool = True
    weight_norm: bool = False
    """The published file holds plain weights; training a vocoder would switch this on."""


class BigVGANConfig(_UpsamplerConfig):
    """The v3 vocoder, nvidia/bigvgan_v2_24khz_100band_256x."""

    upsample_rates: tuple[PositiveInt, ...] = (4, 4, 2, 2, 2, 2)
    upsample_kernels: tuple[PositiveInt, ...] = (8, 8, 4, 4, 4, 4)
    initial_channels: PositiveInt = 1536
    final_bias: bool = False
    final_tanh: bool = False
    """False clamps to [-1, 1] instead."""
