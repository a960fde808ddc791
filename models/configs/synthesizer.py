"""Numbers of the v2-family synthesizer, its decoders and its discriminator (docs/networks/signals.md).

Defaults are those of GPT-SoVITS v2; what a base changes stands in its base.yaml. Free of torch.
"""

from math import prod
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from models.configs.strict import StrictConfig


class SpectrogramConfig(StrictConfig):
    """Linear magnitude spectrogram: periodic Hann window, reflect padding of (n_fft - hop) / 2, no centring."""

    sample_rate_hz: PositiveInt = 32000
    n_fft: PositiveInt = 2048
    win_samples: PositiveInt = 2048
    hop_samples: PositiveInt = 640

    @property
    def bins(self) -> int:
        return self.n_fft // 2 + 1


class MelConfig(SpectrogramConfig):
    """Mel bands over such a spectrogram: librosa's defaults (Slaney scale and area norm)."""

    n_mels: PositiveInt = 128
    f_min_hz: float = 0.0
    f_max_hz: float | None = None  # None: half the sample rate


class HifiGanDecoderConfig(StrictConfig):
    """HiFi-GAN v1 type decoder: transposed convolutions up to the wave (docs/networks/synthesizer.md)."""

    kind: Literal["hifigan"] = "hifigan"
    resblock_kernel_sizes: tuple[PositiveInt, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[PositiveInt, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    upsample_rates: tuple[PositiveInt, ...] = (10, 8, 2, 2, 2)
    upsample_initial_channel: PositiveInt = 512
    upsample_kernel_sizes: tuple[PositiveInt, ...] = (16, 16, 8, 2, 2)
    conv_post_bias: bool = False  # True in the v4 vocoder

    @property
    def hop_samples(self) -> int:
        return prod(self.upsample_rates)

    @model_validator(mode="after")
    def _lists_match(self) -> "HifiGanDecoderConfig":
        if len(self.upsample_rates) != len(self.upsample_kernel_sizes):
            raise ValueError("upsample_rates and upsample_kernel_sizes have different lengths")
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilation_sizes):
            raise ValueError("resblock_kernel_sizes and resblock_dilation_sizes have different lengths")
        return self


class SynthesizerConfig(StrictConfig):
    """Everything `models.synthesizer.vits.Synthesizer` needs; upstream's names in brackets where they differ."""

    spectrogram: SpectrogramConfig = SpectrogramConfig()
    mel: MelConfig = MelConfig()  # of the mel loss
    segment_frames: PositiveInt = 32  # frames decoded per row in training [segment_size]
    n_symbols: PositiveInt = 732
    ssl_dim: PositiveInt = 768
    codebook_size: PositiveInt = 1024
    frames_per_token: PositiveInt = 2  # 50 Hz frames, 25 Hz tokens
    inter_channels: PositiveInt = 192  # width of the latent z
    hidden_channels: PositiveInt = 192
    filter_channels: PositiveInt = 768
    n_heads: PositiveInt = 2
    n_layers: PositiveInt = 6  # text encoder; the two encoders around it have half
    kernel_size: PositiveInt = 3
    p_dropout: float = Field(default=0.1, ge=0, lt=1)
    mrte_hidden: PositiveInt = 512
    mrte_heads: PositiveInt = 4
    style_bins: PositiveInt = 704  # lowest bins of the reference spectrogram
    style_hidden: PositiveInt = 128
    style_heads: PositiveInt = 2
    style_dropout: float = Field(default=0.1, ge=0, lt=1)
    gin_channels: PositiveInt = 512
    speaker_dim: PositiveInt | None = None  # width of the speaker vector of v2Pro [sv_dim]; None: v2 has none
    posterior_layers: PositiveInt = 16
    flow_steps: PositiveInt = 4
    flow_layers: PositiveInt = 4
    noise_scale: float = Field(default=0.5, ge=0)  # of the prior's deviation, where a caller does not say
    decoder: HifiGanDecoderConfig = HifiGanDecoderConfig()

    @model_validator(mode="after")
    def _numbers_fit(self) -> "SynthesizerConfig":
        if self.decoder.hop_samples != self.spectrogram.hop_samples:
            raise ValueError(
                f"decoder.upsample_rates multiply to {self.decoder.hop_samples},"
                f" but spectrogram.hop_samples is {self.spectrogram.hop_samples}"
            )
        if self.style_bins > self.spectrogram.bins:
            raise ValueError(f"style_bins is {self.style_bins}, but the spectrogram has {self.spectrogram.bins} bins")
        if self.hidden_channels % self.n_heads or self.mrte_hidden % self.mrte_heads:
            raise ValueError("hidden_channels and mrte_hidden must be multiples of their number of heads")
        if self.inter_channels % 2:
            raise ValueError(f"inter_channels is {self.inter_channels}; the flow splits it in halves")
        return self


class ScaleLayer(StrictConfig):
    """One grouped convolution of the scale discriminator."""

    channels: PositiveInt
    kernel_size: PositiveInt
    stride: PositiveInt
    groups: PositiveInt


def _upstream_scale_layers() -> tuple[ScaleLayer, ...]:
    rows = ((16, 15, 1, 1), (64, 41, 4, 4), (256, 41, 4, 16), (1024, 41, 4, 64), (1024, 41, 4, 256), (1024, 5, 1, 1))
    return tuple(ScaleLayer(channels=c, kernel_size=k, stride=s, groups=g) for c, k, s, g in rows)


class DiscriminatorConfig(StrictConfig):
    """One discriminator on the wave and one for every period (docs/networks/synthesizer.md)."""

    periods: tuple[PositiveInt, ...] = (2, 3, 5, 7, 11)
    scale_layers: tuple[ScaleLayer, ...] = Field(default_factory=_upstream_scale_layers)
    period_channels: tuple[PositiveInt, ...] = (32, 128, 512, 1024, 1024)  # the last layer has stride 1
