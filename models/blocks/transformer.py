"""Text encoder of the synthesizer: relative-attention transformers and the MRTE bridge (docs/networks/synthesizer.md).

Letters: B batch, C channels, H heads, K channels per head, T frames, S phones, w window of relative positions.
Sequences are (B, C, T); masks are (B, 1, T), 1 on real frames.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks.dropout import Dropout
from models.configs.synthesizer import SynthesizerConfig
from models.sound.masks import length_mask

MASKED_SCORE = -1e4  # not -inf: a row of padding only must stay finite, and upstream's weights were trained so
RELATIVE_WINDOW = 4


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (B, C, T); parameters are called gamma and beta."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)  # (B, C, T) -> (B, T, C)
        x = F.layer_norm(x, (x.shape[-1],), self.gamma, self.beta, eps=1e-5)
        return x.transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention; with a window also learned relative positions, shared by the heads.

    score(i, j) = q_i . k_j / sqrt(K), and for |j - i| <= w also + q_i . rel_k[j - i + w] / sqrt(K);
    out_i = sum_j p(i, j) v_j, and for |j - i| <= w also + p(i, j) rel_v[j - i + w].
    """

    def __init__(self, channels: int, heads: int, window: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.conv_q = nn.Conv1d(channels, channels, 1)
        self.conv_k = nn.Conv1d(channels, channels, 1)
        self.conv_v = nn.Conv1d(channels, channels, 1)
        self.conv_o = nn.Conv1d(channels, channels, 1)
        self.drop = Dropout(dropout)
        for conv in (self.conv_q, self.conv_k, self.conv_v):
            nn.init.xavier_uniform_(conv.weight)
        if window is not None:
            width = channels // heads
            self.emb_rel_k = nn.Parameter(torch.randn(1, 2 * window + 1, width) * width**-0.5)
            self.emb_rel_v = nn.Parameter(torch.randn(1, 2 * window + 1, width) * width**-0.5)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """x (B, C, T) attends to context (B, C, S); mask (B, 1, T, S)."""
        q, k, v = self._split(self.conv_q(x)), self._split(self.conv_k(context)), self._split(self.conv_v(context))
        q = q / math.sqrt(q.shape[-1])
        scores = q @ k.transpose(-1, -2)  # (B, H, T, S)
        if self.window is not None:
            scores = scores + spread_band(q @ self.emb_rel_k.transpose(-1, -2), self.window)
        scores = scores.float().masked_fill(mask == 0, MASKED_SCORE)
        weights = self.drop(scores.softmax(dim=-1).to(v.dtype))
        out = weights @ v  # (B, H, T, K)
        if self.window is not None:
            out = out + gather_band(weights, self.window) @ self.emb_rel_v
        out = out.transpose(2, 3).flatten(1, 2)  # (B, H, T, K) -> (B, H, K, T) -> (B, C, T)
        return self.conv_o(out)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.heads, -1)).transpose(2, 3)  # (B, C, T) -> (B, H, K, T) -> (B, H, T, K)


def spread_band(relative: Tensor, window: int) -> Tensor:
    """Put column r of row i at column i + r - w, zeros elsewhere: (B, H, T, 2w+1) -> (B, H, T, T).

    Rows are padded to T+2w+1 and read again with a width of T+2w, which moves row i right by i.
    """
    batch, heads, frames, band = relative.shape
    width = frames + 2 * window
    padded = F.pad(relative, (0, width + 1 - band)).flatten(2)  # (B, H, T * (T+2w+1))
    shifted = padded[..., : frames * width].view(batch, heads, frames, width)
    return shifted[..., window : window + frames]


def gather_band(weights: Tensor, window: int) -> Tensor:
    """The inverse: column i + r - w of row i becomes column r, zeros outside: (B, H, T, T) -> (B, H, T, 2w+1)."""
    batch, heads, frames, _ = weights.shape
    width = frames + 2 * window
    padded = F.pad(F.pad(weights, (window, window)).flatten(2), (0, frames))
    return padded.view(batch, heads, frames, width + 1)[..., : 2 * window + 1]


class FeedForward(nn.Module):
    """Two convolutions with ReLU between; padding frames are zeroed before each and after."""

    def __init__(self, channels: int, hidden: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.padding = ((kernel_size - 1) // 2, kernel_size // 2)
        self.conv_1 = nn.Conv1d(channels, hidden, kernel_size)
        self.conv_2 = nn.Conv1d(hidden, channels, kernel_size)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.drop(torch.relu(self.conv_1(F.pad(x * mask, self.padding))))
        return self.conv_2(F.pad(x * mask, self.padding)) * mask


class RelativeTransformer(nn.Module):
    """Post-norm layers: x = norm1(x + attn(x)); x = norm2(x + ffn(x))."""

    def __init__(self, channels: int, filters: int, heads: int, layers: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.attn_layers = nn.ModuleList(
            [Attention(channels, heads, window=RELATIVE_WINDOW, dropout=dropout) for _ in range(layers)]
        )
        self.norm_layers_1 = nn.ModuleList([ChannelNorm(channels) for _ in range(layers)])
        self.ffn_layers = nn.ModuleList([FeedForward(channels, filters, kernel_size, dropout) for _ in range(layers)])
        self.norm_layers_2 = nn.ModuleList([ChannelNorm(channels) for _ in range(layers)])
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        pairs = mask[:, :, :, None] * mask[:, :, None, :]  # (B, 1, T, T)
        x = x * mask
        layers = zip(self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2, strict=True)
        for attention, norm_1, feed_forward, norm_2 in layers:
            x = norm_1(x + self.drop(attention(x, x, pairs)))
            x = norm_2(x + self.drop(feed_forward(x, mask)))
        return x * mask


class Mrte(nn.Module):
    """Lets frames look at the phones and adds the speaker: y = post(attn(s, t) + s + ge)."""

    def __init__(self, channels: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.cross_attention = Attention(hidden, heads)
        self.c_pre = nn.Conv1d(channels, hidden, 1)
        self.text_pre = nn.Conv1d(channels, hidden, 1)
        self.c_post = nn.Conv1d(hidden, channels, 1)

    def forward(self, x: Tensor, mask: Tensor, text: Tensor, text_mask: Tensor, ge: Tensor) -> Tensor:
        """x (B, C, T), text (B, C, S), ge (B, hidden, 1) -> (B, C, T)."""
        pairs = mask[:, :, :, None] * text_mask[:, :, None, :]  # (B, 1, T, S)
        s = self.c_pre(x * mask)
        t = self.text_pre(text * text_mask)
        attended = self.cross_attention(s * mask, t * text_mask, pairs)
        return self.c_post((attended + s + ge) * mask)


class TextEncoder(nn.Module):
    """Semantic frames and phones -> mean and log standard deviation of the prior."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        channels = config.hidden_channels

        def transformer(layers: int) -> RelativeTransformer:
            return RelativeTransformer(
                channels, config.filter_channels, config.n_heads, layers, config.kernel_size, config.p_dropout
            )

        self.ssl_proj = nn.Conv1d(config.ssl_dim, channels, 1)
        self.encoder_ssl = transformer(config.n_layers // 2)
        self.encoder_text = transformer(config.n_layers)
        self.text_embedding = nn.Embedding(config.n_symbols, channels)
        nn.init.normal_(self.text_embedding.weight, 0.0, channels**-0.5)
        self.mrte = Mrte(channels, config.mrte_hidden, config.mrte_heads)
        self.encoder2 = transformer(config.n_layers // 2)
        self.proj = nn.Conv1d(channels, 2 * config.inter_channels, 1)

    def encode(self, frames: Tensor, mask: Tensor, text: Tensor, text_lengths: Tensor, ge: Tensor) -> Tensor:
        """What v3 and v4 condition on, and what streaming keeps: frames (B, ssl_dim, T), text (B, S) -> (B, C, T)."""
        x = self.ssl_proj(frames * mask) * mask
        x = self.encoder_ssl(x, mask)
        text_mask = length_mask(text_lengths, text.shape[1])
        phones = self.text_embedding(text).transpose(1, 2)  # (B, S, C) -> (B, C, S)
        phones = self.encoder_text(phones, text_mask)
        x = self.mrte(x, mask, phones, text_mask, ge)
        return self.encoder2(x, mask)

    def project(self, latent: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """m and logs of the prior, in float32: (B, C, T) -> twice (B, inter, T)."""
        m, logs = (self.proj(latent) * mask).float().chunk(2, dim=1)
        return m, logs


def change_speed(latent: Tensor, mask: Tensor, speed: float) -> tuple[Tensor, Tensor]:
    """Stretch encoded frames to int(T / speed) + 1; speed 1 changes nothing."""
    if speed == 1:
        return latent, mask
    frames = int(latent.shape[-1] / speed) + 1
    return F.interpolate(latent, size=frames, mode="linear"), F.interpolate(mask, size=frames, mode="nearest")
