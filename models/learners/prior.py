"""What fine-tuning of a base like nano minimises: the audible distance of its prior (`models/learners/prior_loss.py`).

Decoder and posterior stay as they are, so copies of recordings do: decoders fine-tuned on a minute lost 0.1 DNSMOS in
free speech and gave copies nothing. Adapters on the whole prior unlearn in a minute how the tokens of the
text-to-semantic network sound (DNSMOS -0.3 on noisy recordings); so they go where the speaker enters, and learn faster.
Noise in recordings makes their voicing look undecided, which would be drawn as hiss: it is learned as decided.
Letters: B clips, T 50 Hz frames, F bins, S phones, Z latent channels.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from models.clip_tensors import ClipTensors
from models.learners.prior_loss import WEIGHTS, prior_losses
from models.learners.vits import StepLoss, collate_codes, draw_noise
from models.sound.harmonics import PITCH_CHANNELS
from models.sound.masks import length_mask
from models.synthesizer.tokens import TrainingBatch
from models.synthesizer.vits import Synthesizer

DECISION = 4.0  # times voicing, in -1..1
SPEAKER_PATHS = ("cond_layer", "ge_to512")


class PriorLearner:
    """Prior and flow of a base whose latent is a linear image of the spectrum (`can_judge_prior`)."""

    critic = None
    rate_factor = 12.0  # 5e-4 becomes 6e-3: what is adapted sees one vector, of the speaker, in all clips
    kept_share = 0.8  # more is more like the recordings, also in what they lack
    groups: ClassVar = {"prior": ("flow.", "ge_to512.")}
    losses: ClassVar = {"prior": "audible distance of its mean"}

    def __init__(self, network: Synthesizer, device: torch.device) -> None:
        self.network, self.device = network, device

    def targets(self) -> list[str]:
        modules = self.network.adaptable_modules(("flow", "ge_to512"))
        return [name for name in modules if name.rpartition(".")[2] in SPEAKER_PATHS]

    def weight_of(self, clip: ClipTensors) -> float:
        return 1.0

    def step_loss(self, clips: Sequence[ClipTensors], seeds: Sequence[int], batch_weight: float) -> StepLoss:
        torch.manual_seed(seeds[0])  # of the network's dropout
        batch = collate_codes(clips, self.network.config.frames_per_token, self.device)
        noise = draw_noise(clips, seeds, self.network.config.inter_channels, batch.spec.shape[-1]).to(self.device)
        parts = self._parts(batch, noise)
        loss = torch.stack([WEIGHTS[name] * value for name, value in parts.items()]).sum()
        return StepLoss(loss * (len(clips) / batch_weight), {"prior": _audible(parts)})

    @torch.no_grad()
    def heldout_losses(self, clips: Sequence[ClipTensors]) -> dict[str, float]:
        """Without the divergence, and without noise in the posterior."""
        step = self.network.config.frames_per_token
        total = sum(_audible(self._parts(collate_codes([clip], step, self.device))) for clip in clips)
        return {"prior": total / len(clips)}

    def _parts(self, batch: TrainingBatch, noise: Tensor | None = None) -> dict[str, Tensor]:
        network, spec = self.network, batch.spec
        mask = length_mask(batch.spec_lengths, spec.shape[2])
        with torch.no_grad():  # nothing of it is adapted
            ge = network.condition(spec, batch.spec_lengths, batch.speaker)
            mean, log_deviation = network.enc_q.stats(spec, mask, ge)
            mean = with_decided_voicing(mean)
            z = mean if noise is None else (mean + noise * log_deviation.exp()) * mask
        frames = network.token_frames(batch.codes)
        prior = network.prior(frames, mask, batch.text, batch.text_lengths, ge)
        return prior_losses(network, z, (mean, log_deviation), prior, mask, ge)


def with_decided_voicing(mean: Tensor) -> Tensor:
    """Latents (B, Z, T) whose second channel, voicing, is nearer to yes and no."""
    voicing = (DECISION * mean[:, 1:PITCH_CHANNELS]).clamp(-1, 1)
    return torch.cat([mean[:, :1], voicing, mean[:, PITCH_CHANNELS:]], dim=1)


def _audible(parts: Mapping[str, Tensor]) -> float:
    """What can be heard of it; the divergence keeps the flow a flow."""
    return sum(WEIGHTS[name] * float(value.detach()) for name, value in parts.items() if name != "kl")
