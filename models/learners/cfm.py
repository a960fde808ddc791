"""What fine-tuning of v3 and v4 minimises: the flow-matching loss, a part of every clip given as the prompt.

Letters: B clips, T 50 Hz frames, F bins, S phones, M mel channels, L mel frames.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from models.clip_tensors import ClipTensors
from models.learners.vits import StepLoss, collate_codes, pad_to
from models.synthesizer.cfm import FlowDraws
from models.synthesizer.cfm_synthesizer import CfmSynthesizer

HELDOUT_PROMPT = 0.3  # of each held-out clip; the rest is judged
HELDOUT_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)  # between noise and mel


class CfmLearner:
    """The flow of v3 and v4, which carries the adapters; everything before it is frozen.

    As in upstream's recipe a share of the steps is shortcut steps; here every clip draws for itself, so that a smaller
    micro-batch changes nothing.
    """

    critic = None
    rate_factor = kept_share = 1.0
    groups: ClassVar = {"flow": ("cfm.",)}
    losses: ClassVar = {"flow": "squared error of the velocity"}

    def __init__(self, network: CfmSynthesizer, device: torch.device) -> None:
        self.network, self.device = network, device

    def targets(self) -> list[str]:
        return self.network.adaptable_modules()

    def weight_of(self, clip: ClipTensors) -> float:
        return 1.0

    def step_loss(self, clips: Sequence[ClipTensors], seeds: Sequence[int], batch_weight: float) -> StepLoss:
        torch.manual_seed(seeds[0])  # of the network's dropout
        drawn = [self._draw(clip, seed) for clip, seed in zip(clips, seeds, strict=True)]
        total = torch.zeros((), device=self.device)
        for is_shortcut in (False, True):
            rows = [row for row, (_, draws) in enumerate(drawn) if draws.is_shortcut == is_shortcut]
            if rows:
                prompts = torch.stack([drawn[row][0] for row in rows])
                loss = self._loss([clips[row] for row in rows], prompts, [drawn[row][1] for row in rows])
                total = total + loss * len(rows)
        return StepLoss(total / batch_weight, {"flow": float(total.detach()) / len(clips)})

    @torch.no_grad()
    def heldout_losses(self, clips: Sequence[ClipTensors]) -> dict[str, float]:
        """Mean over clips and over fixed times; every clip has noise of its own, the same in every call."""
        total = 0.0
        for row, clip in enumerate(clips):
            _, draws = self._draw(clip, row)
            for time in HELDOUT_TIMES:
                fixed = FlowDraws(torch.tensor([time]), draws.noise, False, draws.exponent)
                total += float(self._loss([clip], torch.tensor([HELDOUT_PROMPT]), [fixed]))
        return {"flow": total / (len(clips) * len(HELDOUT_TIMES))}

    def _draw(self, clip: ClipTensors, seed: int) -> tuple[Tensor, FlowDraws]:
        """Where the prompt ends, and the random numbers of the flow for one row, on the CPU."""
        generator = torch.Generator().manual_seed(seed)
        prompt = torch.rand((), generator=generator)
        return prompt, self.network.cfm.draw(torch.empty(1, *_mel(clip).shape), generator)

    def _loss(self, clips: Sequence[ClipTensors], prompts: Tensor, draws: Sequence[FlowDraws]) -> Tensor:
        batch = collate_codes(clips, self.network.numbers.frames_per_token, self.device)
        mels = [_mel(clip) for clip in clips]
        lengths = torch.tensor([mel.shape[1] for mel in mels], device=self.device)
        frames = max(mel.shape[1] for mel in mels)
        mel = torch.stack([pad_to(mel.float(), frames) for mel in mels]).to(self.device)
        together = FlowDraws(
            torch.cat([one.time for one in draws]).to(self.device),
            torch.cat([pad_to(one.noise, frames) for one in draws]).to(self.device),
            draws[0].is_shortcut,
            torch.cat([one.exponent for one in draws]).to(self.device),
        )
        return self.network(batch, mel, lengths, prompt_draw=prompts.to(self.device), flow_draws=together)


def _mel(clip: ClipTensors) -> Tensor:
    assert clip.mel is not None, "the recordings of a base with a flow have mels"
    return clip.mel
