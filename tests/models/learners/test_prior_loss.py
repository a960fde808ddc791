"""The prior of nano is judged by the sound that its mean would make."""

from pathlib import Path

import pytest
import torch

from models.learners.prior_loss import can_judge_prior, prior_losses
from models.loading.bases import load_base
from models.loading.networks import load_synthesizer


@pytest.fixture(scope="module")
def nano():
    return load_synthesizer(load_base("nano"), Path("no-cache"))


def judge(nano, mean, prior):
    mask, ge = torch.ones_like(mean[:, :1]), torch.zeros(1, nano.config.gin_channels, 1)
    deviation = torch.full_like(mean, -2.0)
    with torch.no_grad():
        before_flow = nano.flow(prior, mask, ge)
        return prior_losses(nano, mean, (mean, deviation), (before_flow, deviation), mask, ge)


@pytest.fixture(scope="module")
def mean(nano):
    """A latent in voiced speech."""
    mean = 0.3 * torch.randn(1, nano.config.inter_channels, 40, generator=torch.Generator().manual_seed(3))
    mean[:, 1] = 1.0
    return mean


def test_a_prior_that_says_the_latent_is_nowhere_apart_from_it(nano, mean):
    parts = judge(nano, mean, mean)
    for name in ("latent", "spectrum", "pitch", "voicing"):
        assert float(parts[name]) == pytest.approx(0.0, abs=1e-4), name


def test_another_pitch_is_seen_in_the_pitch_alone_and_another_envelope_in_the_spectrum(nano, mean):
    higher, other = mean.clone(), mean.clone()
    higher[:, 0] += 0.5
    other[:, 2] += 0.5
    by_pitch, by_envelope = judge(nano, mean, higher), judge(nano, mean, other)
    assert float(by_pitch["pitch"]) == pytest.approx(0.5, abs=1e-3)
    assert float(by_envelope["pitch"]) == pytest.approx(0.0, abs=1e-3)
    assert float(by_envelope["spectrum"]) > 10 * float(by_pitch["spectrum"])


def test_nano_has_the_linear_latent_that_is_judged(nano):
    assert can_judge_prior(nano)
