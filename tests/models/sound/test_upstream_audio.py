"""Resampling and levels where no fixtures are at hand."""

import pytest
import torch

from models.sound.upstream_audio import mix_levels, resample_sinc


@pytest.mark.parametrize(("before", "after"), [(32_000, 16_000), (24_000, 32_000), (44_100, 16_000)])
def test_a_tone_keeps_its_pitch_and_level(before: int, after: int) -> None:
    def tone(rate: int) -> torch.Tensor:
        return torch.sin(2 * torch.pi * 440 * torch.arange(rate) / rate)

    ours, expected = resample_sinc(tone(before), before, after), tone(after)
    assert ours.shape == expected.shape
    middle = slice(after // 10, -after // 10)
    assert (ours[middle] - expected[middle]).abs().max() < 2e-3


def test_what_the_lower_rate_cannot_hold_is_taken_out() -> None:
    high = torch.sin(2 * torch.pi * 12_000 * torch.arange(32_000) / 32_000)
    assert resample_sinc(high, 32_000, 16_000)[1000:-1000].abs().max() < 0.01


def test_every_row_is_resampled_alone_and_the_same_rate_changes_nothing() -> None:
    waves = torch.randn(2, 3, 500, generator=torch.Generator().manual_seed(0))
    both = resample_sinc(waves, 32_000, 24_000)
    assert both.shape == (2, 3, 375)
    assert torch.allclose(both[1, 2], resample_sinc(waves[1, 2], 32_000, 24_000), atol=1e-6)
    assert resample_sinc(waves, 8000, 8000) is waves


def test_silence_has_no_level_to_mix() -> None:
    assert torch.equal(mix_levels(torch.zeros(10)), torch.zeros(10))
    assert mix_levels(torch.tensor([0.1, -0.2])).abs().max().item() == pytest.approx(0.475 + 0.1)
