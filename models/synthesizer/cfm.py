"""Conditional flow matching with shortcut steps: the training loss and the sampler of v3 and v4
(docs/networks/flow-matching.md).

Shapes: B batch, M mel channels, T mel frames, C condition channels. Mels are (B, M, T) and scaled to
[-1, 1] by `models.sound.spectrogram.scale_mel`; conditions are (B, T, C), as the estimator takes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.configs.cfm import DiTConfig, FlowMatchingConfig
from models.synthesizer.dit import DiT, padding_mask


@dataclass(frozen=True)
class FlowDraws:
    """The random numbers of one training step."""

    time: Tensor
    """(B,) in [0, 1)."""
    noise: Tensor
    """(B, M, T), standard normal."""
    is_shortcut: bool
    """One draw for the whole batch."""
    exponent: Tensor
    """(B,) integers; a shortcut step is 2^-exponent long."""


@dataclass(frozen=True)
class FlowPath:
    """How the way from noise to a mel is gone: in equal steps, from noise of this temperature.

    guidance: strength of classifier-free guidance; 0 evaluates the estimator once a step.
    """

    steps: int
    temperature: float = 1.0
    guidance: float = 0.0


class FlowMatching(nn.Module):
    """Wraps the estimator with the loss it is trained by and the integration that samples from it."""

    def __init__(self, dit: DiTConfig, config: FlowMatchingConfig) -> None:
        super().__init__()
        self.config = config
        self.estimator = DiT(dit)

    def draw(self, mel: Tensor, generator: torch.Generator | None = None) -> FlowDraws:
        """Random numbers for ``loss``; with a generator the step can be repeated."""
        rows, device, config = mel.shape[0], mel.device, self.config
        time = torch.rand(rows, generator=generator, device=device, dtype=mel.dtype)
        noise = torch.randn(mel.shape, generator=generator, device=device, dtype=mel.dtype)
        chance = torch.rand(1, generator=generator, device=device)
        exponent = torch.randint(
            config.shortcut_exponent_min,
            config.shortcut_exponent_max + 1,
            (rows,),
            generator=generator,
            device=device,
        )
        return FlowDraws(time, noise, bool(chance < config.shortcut_probability), exponent)

    def loss(self, mel: Tensor, lengths: Tensor, prompt_lengths: Tensor, condition: Tensor, draws: FlowDraws) -> Tensor:
        """Mean over rows of the squared error of the velocity on the frames after the prompt.

        Args:
            mel: (B, M, T), the target. lengths, prompt_lengths: (B,) frames. condition: (B, T, C).
        """
        frames = torch.arange(mel.shape[-1], device=mel.device)
        in_prompt = (frames < prompt_lengths[:, None])[:, None]  # (B, 1, T)
        counted = (frames < lengths[:, None])[:, None] & ~in_prompt
        prompt = torch.where(in_prompt, mel, 0.0)
        velocity = mel - draws.noise
        noisy = torch.where(in_prompt, 0.0, draws.noise + draws.time[:, None, None] * velocity)
        if draws.is_shortcut:
            velocity, step = self._two_steps(noisy, prompt, lengths, draws, condition)
        else:
            step = torch.zeros_like(draws.time)
        estimate = self._estimate(noisy, prompt, lengths, draws.time, step, condition)
        squares = torch.where(counted, (estimate - velocity).square(), 0.0)
        return (squares.sum(dim=(1, 2)) / (counted.sum(dim=(1, 2)) * mel.shape[1])).mean()

    @torch.no_grad()
    def _two_steps(
        self, noisy: Tensor, prompt: Tensor, lengths: Tensor, draws: FlowDraws, condition: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The mean velocity of two steps of length d, which one step of length 2d has to match, and 2d."""
        length = 2.0 ** -draws.exponent.to(noisy.dtype)
        shown = torch.where(length < self.config.shortcut_smallest_step, 0.0, length)
        first = self._estimate(noisy, prompt, lengths, draws.time, shown, condition)
        moved = noisy + length[:, None, None] * first
        second = self._estimate(moved, prompt, lengths, draws.time + length, shown, condition)
        return (first + second) / 2, 2 * length

    def _estimate(
        self, noisy: Tensor, prompt: Tensor, lengths: Tensor, time: Tensor, step: Tensor, condition: Tensor
    ) -> Tensor:
        estimate = self.estimator(noisy.transpose(1, 2), prompt.transpose(1, 2), lengths, time, step, condition)
        return estimate.transpose(1, 2)  # (B, T, M) -> (B, M, T)

    @torch.no_grad()
    def sample(
        self,
        condition: Tensor,
        lengths: Tensor,
        prompt: Tensor,
        path: FlowPath,
        noise: Tensor | torch.Generator | None = None,
    ) -> Tensor:
        """Integrate from noise to a mel.

        Args:
            condition: (B, T, C). lengths: (B,) frames. prompt: (B, M, P), the mel of the first P <= T frames.
            noise: (B, M, T) standard normal, or what to draw it from.

        Returns:
            (B, M, T); the P frames of the prompt come back as zeros.
        """
        rows, frames, prompt_frames = condition.shape[0], condition.shape[1], prompt.shape[-1]
        if not isinstance(noise, Tensor):
            shape = (rows, prompt.shape[1], frames)
            noise = torch.randn(shape, generator=noise, device=condition.device, dtype=condition.dtype)
        x = (noise * path.temperature).transpose(1, 2).clone()  # (B, M, T) -> (B, T, M)
        x[:, :prompt_frames] = 0
        known = torch.zeros_like(x)
        known[:, :prompt_frames] = prompt.transpose(1, 2)

        estimator, mask = self.estimator, padding_mask(lengths, frames)
        step = estimator.d_embed(x.new_full((rows,), 1 / path.steps))
        embedded = estimator.text_embed(condition)
        unconditional = estimator.text_embed(torch.zeros_like(condition)) if path.guidance else embedded
        for index in range(path.steps):
            time = x.new_full((rows,), index / path.steps)
            velocity = estimator.velocity(x, known, mask, time, step, embedded)
            if path.guidance:
                free = estimator.velocity(x, torch.zeros_like(known), mask, time, step, unconditional)
                velocity = velocity + (velocity - free) * path.guidance
            x = x + velocity / path.steps
            x[:, :prompt_frames] = 0
        return x.transpose(1, 2)
