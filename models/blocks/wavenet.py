"""WaveNet stacks: the posterior encoder and the inside of the flow (docs/networks/synthesizer.md).

Letters: B batch, C channels, T frames, G width of the global condition.
"""

import torch
from torch import Tensor, nn

from models.blocks.weight_norm import NormedConv1d
from models.configs.synthesizer import SynthesizerConfig
from models.sound.harmonics import PITCH_CHANNELS, Harmonics, pitch_latent
from models.sound.pitch import PitchTracker
from models.sound.spectrogram import compress, float32_region

PITCH_LOG_STD = -3.5  # of measured pitch and voicing: about one percent of F0


class WaveNet(nn.Module):
    """Gated convolutions with residual and skip sums: (B, C, T) -> (B, C, T)."""

    def __init__(self, channels: int, kernel_size: int, layers: int, gin_channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.cond_layer = NormedConv1d(gin_channels, 2 * channels * layers, 1)
        self.in_layers = nn.ModuleList(
            [NormedConv1d(channels, 2 * channels, kernel_size, padding=kernel_size // 2) for _ in range(layers)]
        )
        self.res_skip_layers = nn.ModuleList(
            [NormedConv1d(channels, channels * (1 if i == layers - 1 else 2), 1) for i in range(layers)]
        )

    def forward(self, x: Tensor, mask: Tensor, g: Tensor) -> Tensor:
        """mask (B, 1, T); g (B, G, 1), or (B, G, T) for a condition that moves."""
        conditions = self.cond_layer(g).chunk(len(self.in_layers), dim=1)
        out = torch.zeros_like(x)
        for in_layer, res_skip, condition in zip(self.in_layers, self.res_skip_layers, conditions, strict=True):
            a, b = (in_layer(x) + condition).chunk(2, dim=1)
            skip = res_skip(torch.tanh(a) * torch.sigmoid(b))
            if skip.shape[1] > self.channels:  # every layer but the last
                residual, skip = skip.chunk(2, dim=1)
                x = (x + residual) * mask
            out = out + skip
        return out * mask


class WaveNetEncoder(nn.Module):
    """Into a WaveNet and out of it again: (B, C_in, T) -> (B, C_out, T)."""

    def __init__(
        self, in_channels: int, hidden: int, out_channels: int, layers: int, gin_channels: int, kernel_size: int = 5
    ) -> None:
        super().__init__()
        self.pre = nn.Conv1d(in_channels, hidden, 1)
        self.enc = WaveNet(hidden, kernel_size, layers, gin_channels)
        self.proj = nn.Conv1d(hidden, out_channels, 1)

    def forward(self, x: Tensor, mask: Tensor, g: Tensor) -> Tensor:
        return self.proj(self.enc(self.pre(x) * mask, mask, g)) * mask


class PosteriorEncoder(WaveNetEncoder):
    """Spectrogram -> mean and log standard deviation of the latent: (B, F, T) -> twice (B, inter, T), float32.

    With `skip`, a linear path from the compressed magnitude is added to the mean; started from a PCA
    (`Synthesizer.set_pca`), it makes z carry the spectrum from the first step on. With `pitch`, the first two channels
    are pitch and voicing, measured, and the skip sees the spectrum without its harmonics.
    """

    def __init__(self, config: SynthesizerConfig) -> None:
        bins, inter = config.spectrogram.bins, config.inter_channels
        super().__init__(bins, config.hidden_channels, 2 * inter, config.posterior_layers, config.gin_channels)
        self.magnitude = config.magnitude
        self.skip = nn.Conv1d(bins, inter, 1) if config.posterior_skip else None
        self.tracker = PitchTracker(config.spectrogram) if config.pitch else None
        self.harmonics = Harmonics(config.spectrogram) if config.pitch else None

    def stats(self, spec: Tensor, mask: Tensor, g: Tensor, pitch: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """m and logs of z; spec is the linear magnitude (B, F, T).

        `pitch` (B, 2, T): the pitch channels, where they have been measured over more than these frames.
        """
        if self.harmonics is not None and self.tracker is not None:
            if pitch is None:
                pitch = pitch_latent(self.tracker.track(spec))
            spec = spec * (-self.harmonics.comb(pitch)).exp()
        seen = compress(spec, self.magnitude)
        m, logs = self(seen, mask, g).float().chunk(2, dim=1)
        if self.skip is not None:
            with float32_region(seen):  # rounding here would be audible: it is the whole spectrum
                m = m + self.skip(seen) * mask
        if pitch is not None:
            m = torch.cat([pitch * mask, m[:, PITCH_CHANNELS:]], dim=1)
            logs = torch.cat([torch.full_like(pitch, PITCH_LOG_STD), logs[:, PITCH_CHANNELS:]], dim=1)
        return m, logs
