"""Golden values of v3 and v4, the vocoders and the speaker encoder, made as make_golden.py makes the synthesizer's."""

from __future__ import annotations

from pathlib import Path

import torch
from make_golden import fill, pseudo_random, write_golden
from torch import Tensor, nn

GOLDEN = Path(__file__).with_name("cfm.json")
COMPUTED = ("inv_freq", "filter", "num_batches_tracked")  # what constructors compute, and counters


def filled(network: nn.Module) -> nn.Module:
    """Invented weights, but what the constructor computes stays, and variances stay positive."""
    own = {name: value.clone() for name, value in network.state_dict().items() if name.endswith(COMPUTED)}
    fill(network)
    for name, value in network.state_dict().items():
        if name in own:
            value.copy_(own[name])
        elif name == "conv_post.weight_g":
            value.mul_(0.05)  # most of the wave would be clipped otherwise
        elif name.endswith("running_var"):
            value.copy_(1 + 0.3 * pseudo_random(name, tuple(value.shape)))
    return network


def compute() -> dict[str, Tensor]:
    """Every tensor that is compared, by name."""
    return {name: value.detach() for name, value in {**synthesizer(), **others()}.items()}


def synthesizer() -> dict[str, Tensor]:
    from models.configs.cfm import CfmSynthesizerConfig, DiTConfig
    from models.configs.synthesizer import MelConfig, SynthesizerConfig
    from models.synthesizer.cfm import FlowDraws, FlowPath
    from models.synthesizer.cfm_synthesizer import CfmSynthesizer
    from models.synthesizer.tokens import TrainingBatch

    encoder = SynthesizerConfig(
        n_symbols=30, ssl_dim=12, codebook_size=16, inter_channels=8, hidden_channels=8, filter_channels=16,
        n_layers=2, mrte_hidden=12, style_bins=100, style_hidden=8, gin_channels=12,
    )  # fmt: skip
    dit = DiTConfig(mel_channels=6, condition_channels=10, dim=32, depth=2, heads=2, head_dim=16, condition_layers=2)
    sizes = {"encoder": encoder, "mel": MelConfig(n_mels=6), "bridge_channels": 10, "condition_layers": 2, "dit": dit}
    spec = pseudo_random("spec", (2, 129, 16)).abs() * 3
    lengths, text_lengths = torch.tensor([16, 12]), torch.tensor([7, 5])
    text = (pseudo_random("text", (2, 7)).abs() * 30).long()
    ssl = pseudo_random("ssl", (2, 12, 16)) * 2
    results: dict[str, Tensor] = {}
    for name, ratio, shown in (("v3", 1.875, 3.875), ("v4", 2.0, 4.0)):
        config = CfmSynthesizerConfig(
            **sizes, frames_ratio=ratio, mask_frames_per_token=shown, prompt_frames=8, chunk_frames=20
        )
        network = filled(CfmSynthesizer(config))
        codes = network.extract_tokens(ssl)
        frames = int(16 * ratio)
        mel, mel_lengths = pseudo_random("mel", (2, 6, frames)), torch.tensor([frames, int(12 * ratio)])
        for is_shortcut in (False, True):
            draws = FlowDraws(
                torch.tensor([0.3, 0.8]), pseudo_random("x0", (2, 6, frames)) * 1.7, is_shortcut, torch.tensor([3, 7])
            )
            loss = network(
                TrainingBatch(spec, lengths, text, text_lengths, codes), mel, mel_lengths,
                prompt_draw=torch.tensor([0.4, 0.7]), flow_draws=draws,
            )  # fmt: skip
            results[f"{name}.loss.{'shortcut' if is_shortcut else 'plain'}"] = loss
        ge = network.condition(spec[:1])
        features = network.features(codes[:1], text[:1], ge)
        results[f"{name}.features"] = features
        results[f"{name}.slower"] = network.features(codes[:1], text[:1], ge, 0.8)
        noise = pseudo_random("z0", (1, 6, features.shape[-1])) * 1.7
        results[f"{name}.sample"] = network.cfm.sample(
            features.transpose(1, 2),
            torch.tensor([features.shape[-1]]),
            mel[:1, :, :5],
            FlowPath(3, guidance=0.5),
            noise,
        )
    return results


def others() -> dict[str, Tensor]:
    from models.configs.speaker import FbankConfig, SpeakerEncoderConfig
    from models.configs.synthesizer import HifiGanDecoderConfig
    from models.configs.vocoder import BigVGANConfig, VocoderConfig
    from models.encoders.eres2net import SpeakerEncoder
    from models.sound.fbank import fbank
    from models.synthesizer.bigvgan import BigVGAN
    from models.synthesizer.vocoder import MelVocoder

    kernels = {"resblock_kernel_sizes": (3, 5), "resblock_dilation_sizes": ((1, 3), (1, 2))}
    mel = pseudo_random("vocoded", (1, 6, 9))
    big = BigVGANConfig(
        mel_channels=6, upsample_rates=(4, 2), upsample_kernel_sizes=(8, 4), upsample_initial_channel=16, **kernels
    )
    decoder = HifiGanDecoderConfig(
        upsample_rates=(5, 2),
        upsample_kernel_sizes=(11, 4),
        upsample_initial_channel=16,
        conv_post_bias=True,
        **kernels,
    )
    features = fbank(pseudo_random("speech", (2, 8000)) * 0.1, FbankConfig())
    encoder = filled(SpeakerEncoder(SpeakerEncoderConfig(channels=8, blocks=(1, 1, 1, 1), expansion=2)))
    return {
        "bigvgan": filled(BigVGAN(big))(mel),
        "vocoder": filled(MelVocoder(VocoderConfig(mel_channels=6, decoder=decoder)))(mel),
        "fbank": features,
        "speaker": encoder(features),
        "speaker.embedding": encoder.embed(features),
    }


if __name__ == "__main__":
    write_golden(GOLDEN, compute)
