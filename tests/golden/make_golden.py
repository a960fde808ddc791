"""Golden values of the synthesizer family, so that the code is protected where upstream's tensors are not at hand.

The numbers were written by this script at a commit that passes every parity fixture; weights and inputs come from names
and shapes, so only a few outputs are stored. `python tests/golden/make_golden.py` writes them again: do that only
when a change of numbers is meant, and say why in the commit.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("synthesizer.json")
KEPT = 12  # values stored of every tensor, evenly spread


def pseudo_random(name: str, shape: tuple[int, ...]) -> Tensor:
    """Uniform numbers in [-1, 1) that depend on name and shape alone, the same on every machine."""
    words = np.random.PCG64(np.random.SeedSequence([zlib.crc32(name.encode()), 7])).random_raw(int(np.prod(shape)))
    numbers = (words >> np.uint64(40)).astype(np.float64) / 2**23 - 1.0
    return torch.from_numpy(numbers.astype(np.float32)).reshape(shape)


def fill(network: nn.Module) -> nn.Module:
    """Give every entry of the state dict values of a sensible size; the network is left in eval mode."""
    state = {}
    for name, value in network.state_dict().items():
        u = pseudo_random(name, tuple(value.shape))
        last = name.rsplit(".", 1)[-1]
        if last in ("weight_g", "gamma", "scale") or "norm" in name.split(".")[-2]:
            state[name] = 1 + 0.3 * u
        elif value.dim() <= 1:
            state[name] = 0.1 * u
        else:
            fan = value.shape[-1] if "emb_rel" in name else int(np.prod(value.shape[1:]))
            state[name] = u * (3.0 / fan) ** 0.5
    network.load_state_dict(state)
    return network.eval()


def compute() -> dict[str, Tensor]:
    """Every tensor that is compared, by name."""
    from models.configs.synthesizer import (
        DiscriminatorConfig,
        HifiGanDecoderConfig,
        MelConfig,
        ScaleLayer,
        SpectrogramConfig,
        SynthesizerConfig,
    )
    from models.learners.discriminator import Discriminator
    from models.learners.losses import MelLoss, StftLoss, discriminator_loss, feature_loss, generator_loss, kl_loss
    from models.synthesizer.tokens import TrainingBatch
    from models.synthesizer.vits import NO_NOISE, Noise, StreamPiece, Synthesizer

    spectrogram = SpectrogramConfig(sample_rate_hz=16000, n_fft=256, win_samples=256, hop_samples=80)
    sizes = {
        "spectrogram": spectrogram,
        "mel": MelConfig(sample_rate_hz=16000, n_fft=256, win_samples=256, hop_samples=80, n_mels=20),
        "segment_frames": 8,
        "n_symbols": 30,
        "ssl_dim": 12,
        "codebook_size": 16,
        "inter_channels": 8,
        "hidden_channels": 8,
        "filter_channels": 16,
        "n_layers": 2,
        "mrte_hidden": 12,
        "style_bins": 100,
        "style_hidden": 8,
        "gin_channels": 12,
        "posterior_layers": 2,
        "flow_steps": 2,
        "flow_layers": 2,
    }
    hifigan = HifiGanDecoderConfig(
        resblock_kernel_sizes=(3, 5),
        resblock_dilation_sizes=((1, 3), (1, 2)),
        upsample_rates=(10, 8),
        upsample_initial_channel=16,
        upsample_kernel_sizes=(16, 16),
    )
    variants = {
        "v2": SynthesizerConfig(**sizes, decoder=hifigan),
        "v2pro": SynthesizerConfig(**{**sizes, "gin_channels": 10}, speaker_dim=6, decoder=hifigan),
    }
    spec = pseudo_random("spec", (2, 129, 16)).abs() * 3
    lengths, text_lengths = torch.tensor([16, 12]), torch.tensor([7, 5])
    text = (pseudo_random("text", (2, 7)).abs() * 30).long()
    ssl = pseudo_random("ssl", (2, 12, 16)) * 2
    speaker = pseudo_random("speaker", (2, 6))
    results: dict[str, Tensor] = {}
    for name, config in variants.items():
        network = fill(Synthesizer(config))
        voices = None if config.speaker_dim is None else speaker
        codes = network.extract_tokens(ssl)
        noise, uniform = pseudo_random("noise", (2, 8, 16)), torch.tensor([0.3, 0.9])
        out = network(TrainingBatch(spec, lengths, text, text_lengths, codes, voices), noise=noise, uniform=uniform)
        ge = network.condition(spec[:1], speaker=None if voices is None else voices[:1])
        wave = network.decode(codes[:1], text[:1], ge, Noise(noise[:1, :, :14], 0.5), speed=1.2)
        piece, frames = network.decode_stream(codes[:1], text[:1], ge, StreamPiece(4, out.z[:1, :, :4]), NO_NOISE)
        kl = kl_loss(out.z_p, out.logs_q, out.m_p, out.logs_p, out.mask)
        (kl + out.wave.square().mean()).backward()
        gradient = (
            torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None]).square().sum().sqrt()
        )
        results |= {
            f"{name}.codes": codes,
            f"{name}.wave": out.wave,
            f"{name}.z_p": out.z_p,
            f"{name}.m_p": out.m_p,
            f"{name}.kl": kl,
            f"{name}.gradient": gradient,
            f"{name}.decode": wave,
            f"{name}.stream": piece,
            f"{name}.frames": frames,
            f"{name}.copy": network.copy_synthesis(spec[:1], ge),
        }

    layers = tuple(ScaleLayer(channels=8, kernel_size=5, stride=2, groups=g) for g in (1, 4))
    judge = fill(Discriminator(DiscriminatorConfig(periods=(2, 3), scale_layers=layers, period_channels=(4, 8))))
    real, generated = pseudo_random("real", (1, 1, 640)), pseudo_random("generated", (1, 1, 640))
    (real_logits, real_maps), (logits, maps) = judge.compare(real, generated)
    results |= {
        "losses.discriminator": discriminator_loss(real_logits, logits),
        "losses.generator": generator_loss(logits),
        "losses.features": feature_loss(real_maps, maps),
        "losses.mel": MelLoss(variants["v2"].mel)(generated[:, 0], real[:, 0]),
        "losses.stft": StftLoss((128, 256))(generated[:, 0], real[:, 0]),
    }
    return {name: value.detach() for name, value in results.items()}


def digest(value: Tensor) -> dict[str, object]:
    """Shape, some values and the mean of squares of a tensor."""
    flat = value.double().flatten()
    places = np.linspace(0, len(flat) - 1, min(KEPT, len(flat))).astype(int).tolist()
    return {
        "shape": list(value.shape),
        "values": [float(f"{flat[place]:.7g}") for place in places],
        "power": float(f"{flat.square().mean():.7g}"),
    }


def write_golden(path: Path, compute: Callable[[], dict[str, Tensor]]) -> None:
    """Compute and store, one line a tensor."""
    sys.path.insert(0, str(REPOSITORY))
    torch.manual_seed(0)
    rows = [f"  {json.dumps(name)}: {json.dumps(digest(value))}" for name, value in compute().items()]
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write_golden(GOLDEN, compute)
