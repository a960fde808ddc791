"""The semantic codebook: content features at 25 Hz <-> tokens (docs/networks/synthesizer.md).

The codebook is data. GPT-SoVITS freezes it in every training that we reproduce, so nothing here learns; a new base
brings its own table through `set_codebook`.
"""

import torch
from torch import Tensor, nn

from models.sound.spectrogram import float32_region


class Codebook(nn.Module):
    """A table of vectors; the other buffers are upstream's training statistics, kept for its file layout."""

    inited: Tensor
    cluster_size: Tensor
    embed: Tensor
    embed_avg: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        table = torch.randn(size, width)
        self.register_buffer("inited", torch.ones(1))
        self.register_buffer("cluster_size", torch.ones(size))
        self.register_buffer("embed", table)
        self.register_buffer("embed_avg", table.clone())


class _Layer(nn.Module):
    """One level of a residual quantizer; only its name matters to the files."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self._codebook = Codebook(size, width)


class _Levels(nn.Module):
    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_Layer(size, width)])


class Quantizer(nn.Module):
    """Nearest codebook entry and back; one level. D is the width of a content feature."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.vq = _Levels(size, width)

    @property
    def codebook(self) -> Codebook:
        layer = self.vq.layers[0]
        assert isinstance(layer, _Layer)
        return layer._codebook

    @torch.no_grad()
    def encode(self, features: Tensor) -> Tensor:
        """argmin_e ||x||^2 - 2 x.e + ||e||^2, the first on ties: (B, D, T) -> (B, 1, T), int64, in float32."""
        with float32_region(features):
            x = features.float().transpose(1, 2)  # (B, D, T) -> (B, T, D)
            table = self.codebook.embed.float()  # (size, D)
            distance = x.square().sum(-1, keepdim=True) - 2 * x @ table.T + table.square().sum(-1)
            return (-distance).argmax(dim=-1)[:, None]

    def decode(self, codes: Tensor) -> Tensor:
        """Look codes up: (B, 1, T) -> (B, D, T)."""
        return self.codebook.embed[codes[:, 0]].transpose(1, 2)  # (B, T, D) -> (B, D, T)

    @torch.no_grad()
    def set_codebook(self, table: Tensor) -> None:
        """Put a table (size, D) in, for a base whose codebook is found by clustering."""
        codebook = self.codebook
        if table.shape != codebook.embed.shape:
            raise ValueError(f"codebook of shape {tuple(table.shape)}, expected {tuple(codebook.embed.shape)}")
        codebook.embed.copy_(table)
        codebook.embed_avg.copy_(table)
        codebook.cluster_size.fill_(1)
        codebook.inited.fill_(1)
