"""The semantic codebook: k-means over content features of pairs of frames."""

import numpy as np
import torch
from torch import Tensor, nn

from models.encoders.content import PhoneEncoder
from models.synthesizer.tokens import SemanticTokens
from pipeline.pretrain.features import clip_features
from pipeline.pretrain.prepare import Corpus

ROUNDS = 25
SAMPLES = 60000


@torch.no_grad()
def fit_quantizer(network: SemanticTokens, encoder: PhoneEncoder, corpus: Corpus, seed: int) -> dict[str, float]:
    """Set `ssl_proj` to the mean of two frames and the codebook to cluster centres; how well they fit."""
    dim = network.ssl_proj.in_channels
    nn.init.zeros_(network.ssl_proj.weight)
    assert network.ssl_proj.bias is not None
    nn.init.zeros_(network.ssl_proj.bias)
    for step in range(network.frames_per_token):
        network.ssl_proj.weight[:, :, step] = torch.eye(dim) / network.frames_per_token
    rng = np.random.default_rng(seed)
    clips = corpus.used_for("gpt")
    features, budget = [], SAMPLES
    for pick in rng.permutation(len(clips)):
        projected = network.ssl_proj(clip_features(encoder, corpus, clips[pick]))[0].T
        features.append(projected)
        budget -= len(projected)
        if budget <= 0:
            break
    points = torch.cat(features)
    table, distortion = cluster(points, len(network.quantizer.codebook.embed), rng)
    network.quantizer.set_codebook(table)
    variance = float((points - points.mean(0)).square().sum(1).mean())
    return {"distortion": distortion, "explained": 1 - distortion / variance}


def cluster(points: Tensor, size: int, rng: np.random.Generator) -> tuple[Tensor, float]:
    """k-means: centres (size, D) and the mean squared distance; an empty cluster moves to a far point."""
    centres = points[torch.from_numpy(rng.choice(len(points), size, replace=False))].clone()
    distortion = 0.0
    for _ in range(ROUNDS):
        distance, nearest = _nearest(points, centres)
        distortion = float(distance.mean())
        count = torch.bincount(nearest, minlength=size)
        total = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = total / count.clamp(min=1)[:, None]
        empty = (count == 0).nonzero()[:, 0]
        centres[empty] = points[distance.topk(len(empty)).indices]
    return centres, distortion


def _nearest(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance to the nearest centre and its index, in pieces that stay small."""
    pieces = [torch.cdist(piece, centres).square().min(dim=1) for piece in torch.split(points, 8192)]
    return torch.cat([piece.values for piece in pieces]), torch.cat([piece.indices for piece in pieces])
