"""What the synthesizer promises beyond upstream's numbers: batches, adapters, precision."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from models.adapters.lora import adapter_parameters, inject, merge
from models.configs.synthesizer import (
    HifiGanDecoderConfig,
    MelConfig,
    SpectrogramConfig,
    SynthesizerConfig,
)
from models.errors import ConfigError, WeightsError
from models.learners.losses import kl_loss
from models.loading.bases import list_bases, load_base
from models.synthesizer.tokens import TrainingBatch
from models.synthesizer.vits import NO_NOISE, Noise, StreamPiece, Synthesizer
from models.weights import load_weights

SPECTROGRAM = SpectrogramConfig(sample_rate_hz=16000, n_fft=256, win_samples=256, hop_samples=80)
SIZES = {
    "spectrogram": SPECTROGRAM,
    "mel": MelConfig(sample_rate_hz=16000, n_fft=256, win_samples=256, hop_samples=80, n_mels=20),
    "segment_frames": 8,
    "n_symbols": 40,
    "ssl_dim": 12,
    "codebook_size": 16,
    "inter_channels": 16,
    "hidden_channels": 16,
    "filter_channels": 24,
    "n_layers": 2,
    "p_dropout": 0.0,
    "mrte_hidden": 16,
    "style_bins": 129,
    "style_hidden": 16,
    "style_dropout": 0.0,
    "gin_channels": 16,
    "posterior_layers": 2,
    "flow_steps": 2,
    "flow_layers": 2,
}
HIFIGAN = HifiGanDecoderConfig(
    resblock_kernel_sizes=(3,),
    resblock_dilation_sizes=((1, 3),),
    upsample_rates=(10, 8),
    upsample_initial_channel=16,
    upsample_kernel_sizes=(16, 16),
)


def build(**changes: object) -> Synthesizer:
    torch.manual_seed(3)
    network = Synthesizer(SynthesizerConfig(**{**SIZES, "decoder": HIFIGAN, **changes}))
    with torch.no_grad():  # a fresh flow is the identity, and would hide its mistakes
        for name, parameter in network.flow.named_parameters():
            if ".post." in name:
                parameter.normal_(0, 0.3)
    return network.eval()


def tokens(rows: int, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    codes = torch.randint(0, 16, (rows, 1, count), generator=generator)
    return codes, torch.randint(1, 40, (rows, 9), generator=generator)


def batch() -> TrainingBatch:
    generator = torch.Generator().manual_seed(6)
    codes, text = tokens(2, 10)
    spec = torch.rand(2, 129, 20, generator=generator) * 3
    return TrainingBatch(spec, torch.tensor([20, 14]), text, torch.tensor([9, 6]), codes)


def test_the_encoder_does_not_see_padding() -> None:
    network = build()
    codes, text = tokens(2, 10)
    ge = network.condition(torch.rand(2, 129, 12))
    with torch.no_grad():
        together, _ = network._encode(codes, text, ge, torch.tensor([20, 12]), torch.tensor([9, 5]))
        alone, _ = network._encode(codes[1:, :, :6], text[1:, :5], ge[1:])
    torch.testing.assert_close(together[1:, :, :12], alone, atol=1e-5, rtol=1e-4)


def test_the_same_seed_speaks_the_same_and_another_does_not() -> None:
    network = build()
    codes, text = tokens(1, 10)
    ge = network.condition(torch.rand(1, 129, 12))

    def spoken(seed: int) -> Tensor:
        return network.decode(codes, text, ge, Noise(torch.Generator().manual_seed(seed)))

    assert torch.equal(spoken(1), spoken(1))
    assert not torch.allclose(spoken(1), spoken(2))


def test_streaming_everything_at_once_is_plain_decoding() -> None:
    network = build()
    codes, text = tokens(1, 10)
    ge = network.condition(torch.rand(1, 129, 12))
    whole, frames = network.decode_stream(codes, text, ge, StreamPiece(codes.shape[-1]), NO_NOISE)
    torch.testing.assert_close(whole, network.decode(codes, text, ge, NO_NOISE))
    blended, _ = network.decode_stream(codes, text, ge, StreamPiece(4, frames[..., -8:-4]), NO_NOISE)
    assert blended.shape[-1] == 4 * 2 * 80
    # The overlap is the very same frames here: weights that add to 1 must leave them unchanged.
    _, kept = network.decode_stream(codes, text, ge, StreamPiece(4, frames[..., 12:16]), NO_NOISE)
    torch.testing.assert_close(kept, frames[..., 12:])
    _, louder = network.decode_stream(codes, text, ge, StreamPiece(4, frames[..., 12:16], "upstream"), NO_NOISE)
    assert louder[..., 2].norm() > 1.3 * kept[..., 2].norm()


@pytest.mark.slow
def test_an_adapter_acts_in_eval_mode_and_merging_it_changes_nothing() -> None:
    """The three failures that peft has had: no effect, an effect only in training, a merge that differs."""
    network = build().remove_weight_norm()
    codes, text = tokens(1, 10)
    ge = network.condition(torch.rand(1, 129, 12))
    bare = network.decode(codes, text, ge, NO_NOISE)
    adapted = inject(network, network.adaptable_modules(), rank=4)
    assert {name.split(".")[0] for name in adapted} == {"enc_p", "flow", "dec"}
    network.eval()
    torch.testing.assert_close(network.decode(codes, text, ge, NO_NOISE), bare)
    with torch.no_grad():
        for parameter in adapter_parameters(network):
            parameter.add_(0.1 * torch.randn_like(parameter))
    unmerged = network.decode(codes, text, ge, NO_NOISE)
    assert (unmerged - bare).abs().max() > 1e-3
    merged = merge(network).decode(codes, text, ge, NO_NOISE)
    torch.testing.assert_close(merged, unmerged, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("part", ["enc_p", "flow", "dec"])
def test_every_adapted_part_gets_a_gradient(part: str) -> None:
    network = build().remove_weight_norm()
    inject(network, network.adaptable_modules([part]), rank=2)
    with torch.no_grad():
        for parameter in adapter_parameters(network):
            parameter.normal_(0, 0.1)
    out = network.train()(batch())
    (kl_loss(out.z_p, out.logs_q, out.m_p, out.logs_p, out.mask) + out.wave.square().mean()).backward()
    silent = [n for n, p in network.named_parameters() if "lora_" in n and (p.grad is None or not p.grad.any())]
    # Attention scores do not move when all keys move alike; everything else must.
    assert [name for name in silent if ".conv_k." not in name] == []


def test_transposed_grouped_and_dilated_convolutions_stay_frozen() -> None:
    hifigan = build().remove_weight_norm().adaptable_modules()
    assert not [name for name in hifigan if ".ups." in name]
    assert "dec.conv_pre" in hifigan and "enc_p.encoder2.attn_layers.0.conv_q" in hifigan
    dilated = [name for name in hifigan if ".convs1.1" in name]  # of dilation 3 in these sizes
    assert not dilated and "dec.resblocks.0.convs1.0" in hifigan


def test_before_folding_an_adapter_is_refused() -> None:
    network = build()
    with pytest.raises(WeightsError, match="fold the weight norm"):
        inject(network, ["flow.flows.0.enc.in_layers.0"], rank=2)


def test_a_training_step_in_bfloat16_stays_near_float32() -> None:
    network, rows = build(), batch()
    noise, uniform = torch.randn(2, 16, 20), torch.tensor([0.2, 0.7])
    exact = network(rows, noise=noise, uniform=uniform)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(rows, noise=noise, uniform=uniform)
    for name in ("m_p", "logs_p", "m_q", "logs_q", "z", "z_p"):
        ours, theirs = getattr(rough, name), getattr(exact, name)
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() / theirs.norm() < 0.05, name
    loss = kl_loss(rough.z_p, rough.logs_q, rough.m_p, rough.logs_p, rough.mask) + rough.wave.float().square().mean()
    loss.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients and all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients)


@pytest.mark.parametrize(("rates", "kernels"), [((10, 8), (16, 16)), ((10, 8), (20, 16)), ((8, 10), (8, 12))])
def test_the_decoder_arranged_for_a_cpu_computes_the_same(rates: tuple[int, ...], kernels: tuple[int, ...]) -> None:
    decoder = HIFIGAN.model_copy(update={"upsample_rates": rates, "upsample_kernel_sizes": kernels})
    network = build(decoder=decoder)
    z, ge = torch.randn(2, 16, 13), torch.randn(2, 16, 1)
    with torch.no_grad():
        before = network.dec(z, ge)
        half = copy.deepcopy(network).prepare_for_inference("bfloat16").dec(z, ge)
        after = network.prepare_for_inference().dec(z, ge)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
    assert half.dtype == torch.float32
    assert 0 < (half - before).norm() / (before - before.mean()).norm() < 0.05


def test_a_decoder_is_arranged_once() -> None:
    with pytest.raises(ConfigError, match="bfloat16"):
        build().prepare_for_inference().prepare_for_inference("bfloat16")


def test_a_network_can_be_copied() -> None:
    network = build()
    again = copy.deepcopy(network)
    codes, text = tokens(1, 6)
    ge = network.condition(torch.rand(1, 129, 12))
    assert torch.equal(again.decode(codes, text, ge, NO_NOISE), network.decode(codes, text, ge, NO_NOISE))


def test_the_speaker_vector_is_asked_for_where_the_network_needs_one() -> None:
    network = build(speaker_dim=5)
    with pytest.raises(ValueError, match="speaker vector"):
        network.condition(torch.rand(1, 129, 12))
    near, far = (network.condition(torch.rand(1, 129, 12), speaker=torch.full((1, 5), v)) for v in (0.0, 1.0))
    assert not torch.allclose(near, far)


def test_foreign_weights_are_named() -> None:
    network = build()
    state = network.state_dict()
    state["dec.somewhere.weight"] = state.pop("dec.conv_pre.weight")
    with pytest.raises(
        WeightsError, match=r"x\.pth.*missing: dec\.conv_pre\.weight.*unexpected: dec\.somewhere\.weight"
    ):
        load_weights(network, state, "x.pth")
    state = network.state_dict()
    state["dec.conv_pre.bias"] = torch.zeros(3)
    with pytest.raises(WeightsError, match=r"dec\.conv_pre\.bias has shape \[3\]"):
        load_weights(network, state, "x.pth")


def test_inference_files_may_leave_out_the_posterior_encoder() -> None:
    network = build()
    state = {k: v + 1 for k, v in network.state_dict().items() if not k.startswith("enc_q.")}
    kept = network.enc_q.proj.weight.clone()
    load_weights(network, state, "x.pth", absent=("enc_q.",))
    assert torch.equal(network.enc_q.proj.weight, kept)
    assert torch.equal(network.dec.conv_pre.bias, state["dec.conv_pre.bias"])
    with pytest.raises(WeightsError, match="missing"):
        load_weights(network, state, "x.pth")


@pytest.mark.slow
def test_every_base_of_the_family_builds_its_networks() -> None:
    built = 0
    for name in list_bases():
        base = load_base(name)
        if base.synthesizer is not None:
            with torch.device("meta"):
                network = Synthesizer(base.synthesizer)
            assert network.config.spectrogram.hop_samples == base.hop_samples
            assert network.config.spectrogram.sample_rate_hz == base.sample_rate_hz
            built += 1
    assert built >= 3
