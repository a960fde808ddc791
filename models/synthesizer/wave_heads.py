"""Decoders of the synthesizer: latent frames and a speaker -> wave.

Two kinds, chosen by the config: transposed convolutions of the HiFi-GAN v1 type (docs/networks/synthesizer.md), and
ConvNeXt blocks with an inverse-STFT head for small bases on a CPU. Letters: B batch, C channels, T frames, F bins, G
width of the speaker condition, N = T * hop samples.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks.weight_norm import NormedConv1d, NormedConvTranspose1d
from models.configs.synthesizer import (
    DecoderConfig,
    HifiGanDecoderConfig,
    IstftDecoderConfig,
    MagnitudeConfig,
    SpectrogramConfig,
)
from models.sound.harmonics import Harmonics
from models.sound.source_filter import SourceFilter
from models.sound.spectrogram import InverseSpectrogram, compress, expand, float32_region

SLOPE = 0.1
LAST_SLOPE = 0.01  # the default of leaky_relu, which upstream's last activation uses


class ResBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair with a residual: (B, C, T) -> (B, C, T)."""

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...]) -> None:
        super().__init__()

        def conv(dilation: int) -> NormedConv1d:
            padding = dilation * (kernel_size - 1) // 2
            return NormedConv1d(channels, channels, kernel_size, padding=padding, dilation=dilation)

        self.convs1 = nn.ModuleList([conv(dilation) for dilation in dilations])
        self.convs2 = nn.ModuleList([conv(1) for _ in dilations])

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            x = x + plain(F.leaky_relu(dilated(F.leaky_relu(x, SLOPE)), SLOPE))
        return x


class HifiGanDecoder(nn.Module):
    """(B, C, T) and (B, G, 1) -> (B, 1, N); without `gin_channels` it is a plain vocoder."""

    def __init__(self, config: HifiGanDecoderConfig, in_channels: int, gin_channels: int | None = None) -> None:
        super().__init__()
        channels = config.upsample_initial_channel
        self.conv_pre = nn.Conv1d(in_channels, channels, 7, padding=3)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()  # index: stage * kernels + kernel
        for rate, kernel_size in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            padding = (kernel_size - rate) // 2
            self.ups.append(NormedConvTranspose1d(channels, channels // 2, kernel_size, stride=rate, padding=padding))
            channels //= 2
            for size, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                self.resblocks.append(ResBlock(channels, size, dilations))
        self.conv_post = nn.Conv1d(channels, 1, 7, padding=3, bias=config.conv_post_bias)
        self.cond = nn.Conv1d(gin_channels, config.upsample_initial_channel, 1) if gin_channels is not None else None
        self.kernels = len(config.resblock_kernel_sizes)

    def forward(self, z: Tensor, g: Tensor | None = None) -> Tensor:
        x = self.conv_pre(z)
        if self.cond is not None:
            x = x + self.cond(g)
        for stage, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, SLOPE))
            blocks = self.resblocks[stage * self.kernels : (stage + 1) * self.kernels]
            x = sum(block(x) for block in blocks) / self.kernels
        return torch.tanh(self.conv_post(F.leaky_relu(x, LAST_SLOPE)))

    def decode(self, z: Tensor, g: Tensor) -> tuple[Tensor, None]:
        """As `IstftDecoder.decode`; there is no predicted magnitude."""
        return self(z, g), None


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, norm, two linear layers with GELU between, scaled residual: (B, C, T) -> (B, C, T)."""

    def __init__(self, channels: int, hidden: int, kernel_size: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.up = nn.Linear(channels, hidden)
        self.down = nn.Linear(hidden, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        h = self.depthwise(x).transpose(1, 2)  # (B, C, T) -> (B, T, C)
        h = self.down(F.gelu(self.up(self.norm(h)))) * self.scale
        return x + h.transpose(1, 2)  # (B, T, C) -> (B, C, T)


class IstftDecoder(nn.Module):
    """(B, C, T) and (B, G, 1) -> (B, 1, N): predicts compressed magnitude and phase of every frame.

    compressed = skip(z) + magnitude(h), h from ConvNeXt blocks; `skip` is the linear way back from a PCA latent.
    With `pitch`, this is an envelope that the harmonics of the first channels of z are drawn into, and the predicted
    phase is relative to theirs.
    A fixed number of Griffin-Lim rounds makes the phases agree with the magnitudes; gradients pass through them. They
    are for magnitudes of real sound. With `source_filter`, predicted ones get the phases of harmonics and noise.
    """

    def __init__(
        self,
        config: IstftDecoderConfig,
        spectrogram: SpectrogramConfig,
        magnitude: MagnitudeConfig,
        in_channels: int,
        gin_channels: int,
        pitch: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.compression = config, magnitude
        self.harmonics = Harmonics(spectrogram) if pitch else None
        channels, bins = config.channels, spectrogram.bins
        self.conv_pre = nn.Conv1d(in_channels, channels, config.kernel_size, padding=config.kernel_size // 2)
        self.cond = nn.Conv1d(gin_channels, 2 * channels, 1)  # scale and shift by speaker
        self.norm_pre = nn.LayerNorm(channels, eps=1e-6)
        self.blocks = nn.ModuleList(
            [
                ConvNeXtBlock(channels, config.hidden_channels, config.kernel_size, 1 / config.n_blocks)
                for _ in range(config.n_blocks)
            ]
        )
        self.norm_post = nn.LayerNorm(channels, eps=1e-6)
        self.to_magnitude = nn.Linear(channels, bins)
        self.to_phase = nn.Linear(channels, 2 * bins)
        self.skip = nn.Conv1d(in_channels, bins, 1) if config.magnitude_skip else None
        self.inverse = InverseSpectrogram(spectrogram)
        self.source = SourceFilter(spectrogram) if pitch and config.source_filter else None

    def forward(self, z: Tensor, g: Tensor, rounds: int | None = None) -> Tensor:
        return self.decode(z, g, rounds)[0]

    def decode(self, z: Tensor, g: Tensor, rounds: int | None = None) -> tuple[Tensor, Tensor]:
        """Wave (B, 1, N) and compressed magnitude (B, F, T), float32; rounds None: as the config says for the mode."""
        if rounds is None:
            config = self.config
            rounds = config.griffin_lim_rounds_training if self.training else config.griffin_lim_rounds_synthesis
        compressed, phase = self.predict(z, g)
        with float32_region(z):
            magnitude = expand(compressed, self.compression)
            wave = self.inverse(magnitude, phase, rounds, self.config.griffin_lim_momentum)
        return wave[:, None], compressed

    def copy(self, z: Tensor, g: Tensor, rounds: int | None = None) -> Tensor:
        """The wave (B, 1, N) of a latent that was heard.

        Griffin-Lim ends in the nearest of many rests. It begins from both phases that there are, the predicted ones and
        those of the `source_filter`, and the wave whose magnitudes are nearer to the wanted ones is kept.
        """
        if self.source is None or self.harmonics is None:
            return self(z, g, rounds)
        config = self.config
        rounds = config.griffin_lim_rounds_synthesis if rounds is None else rounds
        compressed, phase = self.predict(z, g)
        with float32_region(z):
            magnitude = expand(compressed, self.compression)
            envelope = expand(self._compressed(self._hidden(z, g), z), self.compression)
            starts = (phase, self.source(self.harmonics, z, envelope)[1])
            waves = [self.inverse(magnitude, start, rounds, config.griffin_lim_momentum) for start in starts]
            first, second = (self.inverse.misfit(wave, magnitude) for wave in waves)
            return torch.where((second < first)[:, None], waves[1], waves[0])[:, None]

    def speak(self, z: Tensor, g: Tensor) -> Tensor:
        """The wave (B, 1, N) of a latent that was predicted, not heard."""
        if self.source is None or self.harmonics is None:
            return self(z, g)
        h = self._hidden(z, g)
        with float32_region(z):
            magnitude, phase = self.source(self.harmonics, z, expand(self._compressed(h, z), self.compression))
            return self.inverse(magnitude, phase, 0, 0.0)[:, None]

    def predict(self, z: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """Compressed magnitude (B, F, T), float32, and phase as points on the unit circle (B, F, T), complex64."""
        h = self._hidden(z, g)
        with float32_region(z):
            real, imaginary = self.to_phase(h.float()).transpose(1, 2).chunk(2, dim=1)
            length = torch.sqrt(real.square() + imaginary.square() + 1e-6)
            phase = torch.complex(real / length, imaginary / length)
            if self.harmonics is not None:
                phase = phase * self.harmonics.phase(z)
        return self._magnitude(h, z), phase

    def magnitude(self, z: Tensor, g: Tensor) -> Tensor:
        """The compressed magnitude alone, (B, F, T), float32."""
        return self._magnitude(self._hidden(z, g), z)

    def _hidden(self, z: Tensor, g: Tensor) -> Tensor:
        """What both heads read: (B, T, C)."""
        scale, shift = self.cond(g).chunk(2, dim=1)  # (B, C, 1)
        x = self.conv_pre(z)
        x = self.norm_pre(x.transpose(1, 2)).transpose(1, 2) * (1 + scale) + shift
        for block in self.blocks:
            x = block(x)
        return self.norm_post(x.transpose(1, 2))  # (B, C, T) -> (B, T, C)

    def _magnitude(self, h: Tensor, z: Tensor) -> Tensor:
        with float32_region(z):
            compressed = self._compressed(h, z)
            if self.harmonics is not None:
                envelope = expand(compressed, self.compression)
                compressed = compress(envelope * self.harmonics.comb(z).exp(), self.compression)
            return compressed

    def _compressed(self, h: Tensor, z: Tensor) -> Tensor:
        """(B, F, T), in float32; with `pitch`, without the harmonics."""
        compressed = self.to_magnitude(h.float()).transpose(1, 2)  # (B, T, F) -> (B, F, T)
        return compressed if self.skip is None else compressed + self.skip(z.float())


def build_decoder(
    config: DecoderConfig,
    spectrogram: SpectrogramConfig,
    magnitude: MagnitudeConfig,
    in_channels: int,
    gin_channels: int,
    pitch: bool = False,
) -> HifiGanDecoder | IstftDecoder:
    """The decoder that a config asks for."""
    if isinstance(config, IstftDecoderConfig):
        return IstftDecoder(config, spectrogram, magnitude, in_channels, gin_channels, pitch)
    return HifiGanDecoder(config, in_channels, gin_channels)
