"""Flow matching, the v3/v4 synthesizer and its vocoders: what must hold whatever the weights are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.adapters.lora import adapter_parameters, inject
from models.blocks.weight_norm import fold_weight_norm
from models.configs.cfm import CfmSynthesizerConfig, DiTConfig, FlowMatchingConfig
from models.configs.synthesizer import MelConfig, SynthesizerConfig
from models.configs.vocoder import BigVGANConfig, VocoderConfig
from models.synthesizer.cfm import FlowDraws, FlowMatching, FlowPath
from models.synthesizer.cfm_synthesizer import CfmSynthesizer
from models.synthesizer.dit import padding_mask
from models.synthesizer.tokens import TrainingBatch
from models.synthesizer.vocoder import build_vocoder

DIT = DiTConfig(mel_channels=6, condition_channels=8, dim=32, depth=2, heads=2, head_dim=16, condition_layers=1)
ENCODER = SynthesizerConfig(
    ssl_dim=8, codebook_size=10, inter_channels=8, hidden_channels=8, filter_channels=12, n_layers=2,
    mrte_hidden=8, style_hidden=8, gin_channels=8,
)  # fmt: skip
CONFIG = CfmSynthesizerConfig(
    encoder=ENCODER, mel=MelConfig(n_mels=6), bridge_channels=8, condition_layers=2, dit=DIT,
    prompt_frames=10, chunk_frames=30, sampling_steps=2,
)  # fmt: skip


@pytest.fixture
def flow() -> FlowMatching:
    torch.manual_seed(3)
    return FlowMatching(DIT, FlowMatchingConfig()).eval()


@pytest.fixture
def network() -> CfmSynthesizer:
    torch.manual_seed(3)
    return CfmSynthesizer(CONFIG).eval()


def batch() -> tuple[TrainingBatch, torch.Tensor, torch.Tensor]:
    torch.manual_seed(4)
    codes = torch.randint(0, 10, (2, 1, 12))
    spec, lengths = torch.rand(2, 1025, 24), torch.tensor([24, 20])
    text, text_lengths = torch.randint(0, 700, (2, 7)), torch.tensor([7, 5])
    return TrainingBatch(spec, lengths, text, text_lengths, codes), torch.randn(2, 6, 48), torch.tensor([48, 40])


def test_a_row_that_is_not_padded_needs_no_mask() -> None:
    assert padding_mask(torch.tensor([5, 5]), 5) is None
    mask = padding_mask(torch.tensor([5, 3]), 5)
    assert mask is not None and mask.tolist() == [[True] * 5, [True, True, True, False, False]]


def test_attention_does_not_look_at_padding(flow: FlowMatching) -> None:
    """Only attention is masked; the convolutions and the response norm are not, as upstream's are not."""
    block = flow.estimator.transformer_blocks[0]
    x, time = torch.randn(1, 9, 32), torch.randn(1, 32)
    rotation = flow.estimator.rotary_embed(9)
    changed = x.clone()
    changed[:, 6:] += 100
    mask = padding_mask(torch.tensor([6]), 9)
    with torch.no_grad():
        assert torch.allclose(block(x, time, mask, rotation)[:, :6], block(changed, time, mask, rotation)[:, :6])


@pytest.mark.parametrize("is_shortcut", [False, True])
def test_the_noise_of_the_prompt_does_not_count_and_that_of_the_rest_does(
    flow: FlowMatching, is_shortcut: bool
) -> None:
    mel, condition = torch.randn(1, 6, 20), torch.randn(1, 20, 8)
    drawn = flow.draw(mel, torch.Generator().manual_seed(1))

    def loss(changed: slice) -> torch.Tensor:
        noise = drawn.noise.clone()
        noise[..., changed] += 1
        draws = FlowDraws(drawn.time, noise, is_shortcut, drawn.exponent)
        return flow.loss(mel, torch.tensor([20]), torch.tensor([5]), condition, draws)

    assert torch.equal(loss(slice(0, 0)), loss(slice(0, 5)))
    assert not torch.equal(loss(slice(0, 0)), loss(slice(5, 6)))


def test_draws_repeat_with_their_generator_and_take_the_shortcut_as_often_as_asked(flow: FlowMatching) -> None:
    mel = torch.zeros(3, 6, 4)
    one, two = (flow.draw(mel, torch.Generator().manual_seed(8)) for _ in range(2))
    assert torch.equal(one.noise, two.noise) and torch.equal(one.exponent, two.exponent)
    generator = torch.Generator().manual_seed(9)
    drawn = [flow.draw(mel, generator) for _ in range(500)]
    share = sum(draw.is_shortcut for draw in drawn) / len(drawn)
    assert 0.22 < share < 0.38
    exponents = torch.cat([draw.exponent for draw in drawn])
    assert (int(exponents.min()), int(exponents.max())) == (2, 7)


def test_only_the_shortcuts_own_step_carries_a_gradient(flow: FlowMatching) -> None:
    """Its target comes from two more evaluations, which upstream also differentiates, and then throws that away."""
    mel, condition = torch.randn(2, 6, 12), torch.randn(2, 12, 8)
    draws = flow.draw(mel)
    calls: list[bool] = []
    flow.estimator.register_forward_hook(lambda module, inputs, output: calls.append(output.requires_grad))
    flow.loss(
        mel,
        torch.tensor([12, 9]),
        torch.tensor([3, 2]),
        condition,
        FlowDraws(draws.time, draws.noise, True, draws.exponent),
    ).backward()
    assert calls == [False, False, True]


def test_the_prompt_comes_back_as_zeros_and_the_seed_decides_the_rest(flow: FlowMatching) -> None:
    condition, prompt = torch.randn(1, 25, 8), torch.randn(1, 6, 7)

    def sample(seed: int) -> torch.Tensor:
        return flow.sample(condition, torch.tensor([25]), prompt, FlowPath(3), torch.Generator().manual_seed(seed))

    assert torch.equal(sample(1), sample(1)) and not torch.equal(sample(1), sample(2))
    assert sample(1)[..., :7].abs().max() == 0
    assert sample(1).shape == (1, 6, 25)


def test_guidance_of_zero_evaluates_the_estimator_once_a_step(flow: FlowMatching) -> None:
    calls = []
    flow.estimator.proj_out.register_forward_hook(lambda *_: calls.append(1))
    condition, prompt = torch.randn(1, 9, 8), torch.randn(1, 6, 2)
    flow.sample(condition, torch.tensor([9]), prompt, FlowPath(4))
    assert len(calls) == 4
    flow.sample(condition, torch.tensor([9]), prompt, FlowPath(4, guidance=0.7))
    assert len(calls) == 12


def test_only_what_upstream_trains_is_trained(network: CfmSynthesizer) -> None:
    network.train()
    assert not network.enc_p.training and not network.ssl_proj.training and network.cfm.training
    network(*batch(), generator=torch.Generator().manual_seed(2)).backward()
    reached = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert reached == {"bridge", "wns1", "cfm"}


def test_the_same_generator_gives_the_same_loss(network: CfmSynthesizer) -> None:
    losses = {network(*batch(), generator=torch.Generator().manual_seed(seed)).item() for seed in (5, 5, 6)}
    assert len(losses) == 2


def test_features_have_two_mel_frames_per_frame_and_slow_speech_has_more(network: CfmSynthesizer) -> None:
    given, *_ = batch()
    text, codes = given.text, given.codes
    ge = network.condition(given.spec[:1])
    assert network.features(codes[:1], text[:1], ge).shape == (1, 8, 48)
    assert network.features(codes[:1], text[:1], ge, 0.5).shape == (1, 8, 98)


@pytest.mark.parametrize(("frames", "passes"), [(12, 1), (20, 1), (21, 2), (75, 4)])
def test_long_speech_is_continued_pass_by_pass(network: CfmSynthesizer, frames: int, passes: int) -> None:
    """The prompt keeps its last 10 frames, so each pass of 30 makes 20 new ones."""
    calls: list[torch.Tensor] = []
    sample = network.cfm.sample

    def counted(
        condition: torch.Tensor, lengths: torch.Tensor, prompt: torch.Tensor, *args: Any, **options: Any
    ) -> Any:
        calls.append(prompt)
        return sample(condition, lengths, prompt, *args, **options)

    network.cfm.sample = counted  # type: ignore[method-assign]
    prompt, prompt_features = torch.randn(1, 6, 14), torch.randn(1, 8, 13)
    mel = network.continue_mel(
        prompt, prompt_features, torch.randn(1, 8, frames), generator=torch.Generator().manual_seed(1)
    )
    assert mel.shape == (1, 6, frames)
    assert len(calls) == passes
    assert torch.equal(calls[0], prompt[..., 3:13]), "the last frames that both mel and features have"
    for index, given in enumerate(calls[1:], 1):
        end = 20 * index
        assert torch.equal(given, mel[..., end - 10 : end])


def test_adapters_go_where_upstreams_go_and_change_the_speech(network: CfmSynthesizer) -> None:
    features, prompt = torch.randn(1, 8, 16), torch.randn(1, 6, 6)
    bare = network.continue_mel(prompt, features[..., :6], features, generator=torch.Generator().manual_seed(1))
    injected = inject(network, network.adaptable_modules(), rank=2)
    assert len(injected) == 8
    with torch.no_grad():
        for parameter in adapter_parameters(network):
            parameter.normal_()
    adapted = network.continue_mel(prompt, features[..., :6], features, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(bare, adapted)


@pytest.mark.parametrize(
    "config",
    [
        VocoderConfig(
            mel_channels=6, decoder=VocoderConfig().decoder.model_copy(update={"upsample_initial_channel": 32})
        ),
        BigVGANConfig(mel_channels=6, upsample_initial_channel=64),
    ],
)
def test_a_vocoder_makes_the_samples_its_rates_promise(config: Any) -> None:
    vocoder = build_vocoder(config).eval()
    mel = torch.randn(2, 6, 5)
    with torch.no_grad():
        wave = vocoder(mel)
        hop = config.decoder.hop_samples if isinstance(config, VocoderConfig) else config.hop_samples
        assert wave.shape == (2, 1, 5 * hop)
        assert wave.abs().max() <= 1
        fold_weight_norm(vocoder)
        assert torch.allclose(vocoder(mel), wave, atol=1e-5)
