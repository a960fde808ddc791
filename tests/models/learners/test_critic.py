"""The discriminator in fine-tuning: what it adds to the loss, what it learns, and that a stop changes nothing."""

from __future__ import annotations

import copy

import torch

from models.adapters.lora import adapter_parameters, inject
from models.clip_tensors import ClipTensors
from models.configs.synthesizer import DiscriminatorConfig, HifiGanDecoderConfig, ScaleLayer, SynthesizerConfig
from models.learners.critic import Critic
from models.learners.discriminator import Discriminator
from models.learners.losses import MelLoss, discriminator_loss, feature_loss, generator_loss, kl_loss
from models.learners.vits import SynthesizerLearner
from models.sound.masks import take_slices
from models.synthesizer.vits import Synthesizer

SMALL = DiscriminatorConfig(
    periods=(2, 3), scale_layers=(ScaleLayer(channels=4, kernel_size=5, stride=2, groups=1),), period_channels=(4, 8)
)
CPU = torch.device("cpu")


def discriminator() -> Discriminator:
    torch.manual_seed(3)
    return Discriminator(SMALL)


def waves(seed: int) -> torch.Tensor:
    return torch.randn(4, 1, 600, generator=torch.Generator().manual_seed(seed)) * 0.1


def test_the_loss_is_the_adversarial_and_the_feature_loss_of_the_recipe() -> None:
    critic, network = Critic(discriminator()), discriminator()
    generated = waves(1).requires_grad_()
    loss = critic.loss(waves(0), generated, 1.0)
    (real_logits, real_maps), (logits, maps) = network.compare(waves(0), waves(1))
    expected = generator_loss(logits) + feature_loss(real_maps, maps)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, generated)
    assert gradient.abs().sum() > 0
    discriminator_loss(real_logits, logits).backward()
    for ours, theirs in zip(critic.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_generators_gradient_never_reaches_the_critic() -> None:
    critic = Critic(discriminator())
    generated = waves(1).requires_grad_()
    loss = critic.loss(waves(0), generated, 1.0)
    before = [parameter.grad.clone() for parameter in critic.network.parameters()]
    loss.backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(before, critic.network.parameters(), strict=True))


def test_it_learns_to_tell_the_two_apart() -> None:
    critic = Critic(discriminator())

    def confusion() -> float:
        (real, _), (fake, _) = critic.network.compare(waves(0) + 0.5, waves(1))
        return float(discriminator_loss(real, fake).detach())

    before = confusion()
    for _ in range(30):
        critic.begin_step()
        critic.loss(waves(0) + 0.5, waves(1), 1.0)
        critic.end_step()
    assert confusion() < before


def test_a_broken_batch_changes_nothing() -> None:
    critic = Critic(discriminator())
    before = copy.deepcopy(critic.network.state_dict())
    critic.begin_step()
    critic.loss(waves(0), waves(1) * float("nan"), 1.0)
    critic.end_step()
    assert all(torch.equal(value, before[name]) for name, value in critic.network.state_dict().items())


def test_a_saved_state_goes_on_as_if_never_stopped() -> None:
    def steps(critic: Critic, seeds: range) -> None:
        for seed in seeds:
            critic.begin_step()
            critic.loss(waves(seed), waves(seed + 50), 1.0)
            critic.end_step()

    straight = Critic(discriminator())
    steps(straight, range(3))
    kept = {name: value.clone() for name, value in straight.state().items()}
    steps(straight, range(3, 6))
    resumed = Critic(Discriminator(SMALL))
    resumed.set_state(kept)
    steps(resumed, range(3, 6))
    ours, theirs = resumed.network.state_dict(), straight.network.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


class TestLearner:
    """A v2 synthesizer of small numbers with such a discriminator."""

    def learner(self) -> SynthesizerLearner:
        torch.manual_seed(5)
        config = SynthesizerConfig(
            ssl_dim=8, codebook_size=12, inter_channels=8, hidden_channels=8, filter_channels=12, n_layers=2,
            mrte_hidden=8, mrte_heads=2, style_hidden=8, gin_channels=8, segment_frames=8, p_dropout=0.0,
            style_dropout=0.0,
            decoder=HifiGanDecoderConfig(
                upsample_initial_channel=32, resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1,),)
            ),
        )  # fmt: skip
        network = Synthesizer(config).remove_weight_norm()
        network.requires_grad_(False)
        inject(network, network.adaptable_modules(), 2)
        return SynthesizerLearner(network, discriminator(), CPU)

    def clip(self, seed: int, scale: float = 1.0) -> ClipTensors:
        random = torch.Generator().manual_seed(seed)
        frames = 20 + 2 * seed
        return ClipTensors(
            wave=torch.randn(frames * 640, generator=random) * 0.1 * scale,
            acoustic_features=torch.rand(1025, frames, generator=random),
            tokens=torch.randint(0, 12, (frames // 2,), generator=random),
            phones=torch.randint(0, 300, (7 + seed,), generator=random),
        )

    def test_the_total_is_that_of_the_recipe(self) -> None:
        learner, clips = self.learner(), [self.clip(0), self.clip(1)]
        learner.network.eval()
        loss = learner.step_loss(clips, [1, 2], 2.0)
        batch = learner._collate(clips)
        noise, uniform = learner._noise(clips, [1, 2], batch.spec.shape[-1])
        out = learner.network(batch, noise=noise, uniform=uniform)
        target = take_slices(learner._pad([c.wave for c in clips])[:, None], out.starts * 640, 8 * 640)
        (_, real_maps), (logits, maps) = discriminator().compare(target, out.wave)
        expected = (
            45 * MelLoss(learner.network.config.mel)(out.wave[:, 0], target[:, 0])
            + generator_loss(logits)
            + feature_loss(real_maps, maps)
            + kl_loss(out.z_p, out.logs_q, out.m_p, out.logs_p, out.mask)
        )
        torch.testing.assert_close(loss.total, expected)

    def test_micro_batches_give_the_gradient_of_the_whole_batch(self) -> None:
        """Rows of one length, so that no row is padded; the mean of means is then the mean."""
        clips = [self.clip(2, scale) for scale in (1.0, 0.5)]
        gradients = []
        for size in (2, 1):
            learner = self.learner()
            learner.network.eval()
            for first in range(0, 2, size):
                rows = slice(first, first + size)
                learner.step_loss(clips[rows], [7, 8][rows], 2.0).total.backward()
            critic = learner.critic
            assert critic is not None
            gradients.append([p.grad for p in (*adapter_parameters(learner.network), *critic.network.parameters())])
        for whole, parts in zip(*gradients, strict=True):
            torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-3)
