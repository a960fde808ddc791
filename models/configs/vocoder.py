"""Numbers of the vocoders: BigVGAN-v2 for v3, a HiFi-GAN type generator for v4 (docs/networks/flow-matching.md)."""

from math import prod
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from models.configs.strict import StrictConfig
from models.configs.synthesizer import HifiGanDecoderConfig


class VocoderConfig(StrictConfig):
    """The v4 vocoder: 100 Hz mel of 32 kHz audio in, 48 kHz wave out."""

    kind: Literal["hifigan"] = "hifigan"
    sample_rate_hz: PositiveInt = 48000
    mel_channels: PositiveInt = 100
    decoder: HifiGanDecoderConfig = HifiGanDecoderConfig(
        upsample_rates=(10, 6, 2, 2, 2), upsample_kernel_sizes=(20, 12, 4, 4, 4), conv_post_bias=True
    )
    weight_norm: bool = False  # the published file holds plain weights


class BigVGANConfig(StrictConfig):
    """The v3 vocoder, nvidia/bigvgan_v2_24khz_100band_256x."""

    kind: Literal["bigvgan"] = "bigvgan"
    sample_rate_hz: PositiveInt = 24000
    mel_channels: PositiveInt = 100
    upsample_rates: tuple[PositiveInt, ...] = (4, 4, 2, 2, 2, 2)
    upsample_kernel_sizes: tuple[PositiveInt, ...] = (8, 8, 4, 4, 4, 4)
    upsample_initial_channel: PositiveInt = 1536
    resblock_kernel_sizes: tuple[PositiveInt, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[PositiveInt, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    use_tanh_at_final: bool = False  # False clamps to [-1, 1] instead
    use_bias_at_final: bool = False

    @property
    def hop_samples(self) -> int:
        """Samples made out of one mel frame."""
        return prod(self.upsample_rates)


AnyVocoderConfig = Annotated[VocoderConfig | BigVGANConfig, Field(discriminator="kind")]
