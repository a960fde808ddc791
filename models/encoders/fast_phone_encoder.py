"""A phone encoder that only listens: what `PhoneEncoder.recognise` hears, in a third of its time on a processor.

Everything lies as (T, C), so nothing is turned around between the layers; the three projections of the attention are
one product, and its weights are divided after the product with the values. All but the mels and the head is bfloat16
where the processor multiplies that. A recording is filled up to a multiple of 64 frames, because a product of a new
shape costs more to prepare than to compute. `tests/models/encoders/test_fast_phone_encoder.py` compares both.
Letters: T frames of 20 ms, C channels, M mel bands, F frequencies.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks.convnext import ConvNeXtBlock
from models.encoders.content import MAX_FRAMES, PhoneEncoder
from models.encoders.hubert import Encoder, FeatureProjection, Layer
from models.sound.spectrogram import LOG_FLOOR

_HOPS = 2  # spectra per frame
_LEAST_HOPS = 100  # of the last piece of a long recording
_ROWS = 64  # 1.28 s
_SCORE_MAX = 80.0  # whose exponential is still a number

Rows = Callable[[Tensor], Tensor]  # (T', C) -> (T', C), each row by itself
Step = Callable[
    [Tensor, int], Tensor
]  # the same where rows look at others: T of the T' are frames, the rest is filling


class PhoneListener:
    """The recognising half of a trained encoder, its weights copied and arranged."""

    @torch.no_grad()
    def __init__(self, encoder: PhoneEncoder, dtype: torch.dtype) -> None:
        hubert = encoder.hubert
        self.dtype, self.phones = dtype, encoder.config.phones
        self.filters = encoder.front.mel.filters.float()  # (M, F)
        self.head = (encoder.ctc_head.weight.float(), encoder.ctc_head.bias.float())
        self.first = _strided(encoder.front.conv, dtype)
        self.steps = [
            *(_block(block, dtype) for block in encoder.front.blocks),
            _projected(hubert.feature_projection, dtype),
            _placed(hubert.encoder, dtype),
            *(_layer(layer, dtype) for layer in hubert.encoder.layers),
        ]

    @torch.inference_mode()
    def recognise(self, power: Tensor) -> list[str]:
        """Phones of power spectra (F, 2 T) of the encoder's own size and hop, by the best path through the CTC head."""
        log_mel = torch.log((self.filters @ (power + 1e-8).sqrt_()).clamp_(min=LOG_FLOOR))
        best = torch.cat([self._best(piece) for piece in _pieces(log_mel)])
        return [self.phones[label] for label in torch.unique_consecutive(best).tolist() if label]

    def _best(self, log_mel: Tensor) -> Tensor:
        """(M, 2 T) -> the likeliest class of every frame, (T,)."""
        frames = -(-log_mel.shape[1] // _HOPS)
        spare = -frames % _ROWS
        centred = (log_mel - log_mel.mean(1, keepdim=True)) / 2.0
        x = F.pad(centred, (0, _HOPS * (frames + spare) - log_mel.shape[1])).t().contiguous().to(self.dtype)
        x = self.first(x)
        for step in self.steps:
            x = step(x, frames)
        return F.linear(x[:frames].float(), *self.head).argmax(-1)


def _pieces(log_mel: Tensor) -> list[Tensor]:
    """(M, 2 T) cut into pieces that the transformer takes; the last one is never shorter than a second."""
    pieces = list(log_mel.split(MAX_FRAMES * _HOPS, dim=1))
    if len(pieces) > 1 and pieces[-1].shape[1] < _LEAST_HOPS:
        pieces[-2:] = [torch.cat(pieces[-2:], dim=1)]
    return pieces


def _strided(conv: nn.Conv1d, dtype: torch.dtype) -> Rows:
    """The first convolution as a product over windows, then GELU: (2 T', M) -> (T', C)."""
    width, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
    weight, bias = conv.weight.permute(2, 1, 0).flatten(0, 1).to(dtype), _bias(conv, dtype)
    bands = conv.in_channels

    def step(x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 0, padding, padding))
        windows = padded.as_strided(((len(padded) - width) // stride + 1, width * bands), (stride * bands, 1))
        return F.gelu(torch.addmm(bias, windows, weight))

    return step


def _block(block: nn.Module, dtype: torch.dtype) -> Step:
    if not isinstance(block, ConvNeXtBlock):
        raise TypeError(f"a front end of {type(block).__name__}")
    depthwise, norm = _along_time(block.depthwise, dtype), _normed(block.norm, dtype)
    up, down, scale = _linear([block.up], dtype), _linear([block.down], dtype), block.scale.to(dtype)
    return lambda x, frames: torch.addcmul(x, down(F.gelu(up(norm(depthwise(x, frames))))), scale)


def _projected(projection: FeatureProjection, dtype: torch.dtype) -> Step:
    norm, linear = _normed(projection.layer_norm, dtype), _linear([projection.projection], dtype)
    return lambda x, frames: linear(norm(x))


def _placed(encoder: Encoder, dtype: torch.dtype) -> Step:
    """The positional convolution, whose even kernel gives a frame too many, and the norm behind it."""
    conv, norm = _along_time(encoder.pos_conv_embed.conv, dtype), _normed(encoder.layer_norm, dtype)
    return lambda x, frames: norm(x + F.gelu(conv(x, frames)[: len(x)]))


def _layer(layer: nn.Module, dtype: torch.dtype) -> Step:
    if not isinstance(layer, Layer):
        raise TypeError(f"a transformer of {type(layer).__name__}")
    attention, dense = layer.attention, layer.feed_forward
    project = _linear([attention.q_proj, attention.k_proj, attention.v_proj], dtype)
    out, heads = _linear([attention.out_proj], dtype), attention.heads
    norms = _normed(layer.layer_norm, dtype), _normed(layer.final_layer_norm, dtype)
    up, down = _linear([dense.intermediate_dense], dtype), _linear([dense.output_dense], dtype)

    def step(x: Tensor, frames: int) -> Tensor:
        x = norms[0](x + out(_attend(project(x).view(len(x), 3, heads, -1), frames)))
        return norms[1](x + down(F.gelu(up(x))))

    return step


def _attend(projected: Tensor, frames: int) -> Tensor:
    """Query, key and value (T', 3, heads, C / heads) -> (T', C).

    A column of ones beside the values sums the weights, so the softmax needs no pass of its own, and filling counts for
    nothing where both are zero.
    """
    rows, _, heads, width = projected.shape
    query, key, value = projected.permute(1, 2, 0, 3)  # (heads, T', C / heads) each
    weights = torch.bmm(query * width**-0.5, key.transpose(1, 2)).clamp_(max=_SCORE_MAX).exp_()
    summed = F.pad(value, (0, 1), value=1.0)
    summed[:, frames:] = 0
    mixed = torch.bmm(weights, summed)
    return (mixed[..., :width] / mixed[..., width:]).transpose(0, 1).reshape(rows, heads * width)


def _along_time(conv: nn.Conv1d, dtype: torch.dtype) -> Step:
    """A convolution without turning anything around: a picture of one line, its channels last in memory."""
    weight, bias = conv.weight[:, :, None].to(dtype), _bias(conv, dtype)
    padding, groups = (0, *conv.padding), conv.groups

    def step(x: Tensor, frames: int) -> Tensor:
        x[frames:] = 0
        picture = x[None, None].permute(0, 3, 1, 2)  # (T', C) -> (1, C, 1, T')
        return F.conv2d(picture, weight, bias, padding=padding, groups=groups).permute(0, 2, 3, 1)[0, 0]

    return step


def _linear(layers: list[nn.Linear], dtype: torch.dtype) -> Rows:
    """Several layers over the same input as one: (T', C) -> (T', sum of their outputs)."""
    weight = torch.cat([layer.weight for layer in layers]).t().contiguous().to(dtype)
    bias = torch.cat([layer.bias for layer in layers]).to(dtype)
    return lambda x: torch.addmm(bias, x, weight)


def _normed(norm: nn.LayerNorm, dtype: torch.dtype) -> Rows:
    weight, bias = norm.weight.to(dtype), norm.bias.to(dtype)
    return lambda x: F.layer_norm(x, (x.shape[-1],), weight, bias, norm.eps)


def _bias(conv: nn.Conv1d, dtype: torch.dtype) -> Tensor:
    assert conv.bias is not None
    return conv.bias.to(dtype)
