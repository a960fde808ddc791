"""What fine-tuning minimises: batches of clips to losses, for either network that carries adapters.

A learner owns one network and its losses; the loop around it (order, optimizer, checkpoints) does not know which.
Random numbers are drawn per step and clip, so that neither a resumed run nor a smaller micro-batch changes them.
Letters: B clips, T 50 Hz frames, F bins, S phones, N samples, Z latent channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from models.clip_tensors import ClipTensors
from models.learners.critic import Critic
from models.learners.discriminator import Discriminator
from models.learners.losses import MelLoss, StftLoss, kl_loss
from models.sound.masks import take_slices
from models.synthesizer.tokens import TrainingBatch
from models.synthesizer.vits import NO_NOISE, Synthesizer
from models.text2semantic.network import Text2Semantic, TextAndTokens

MEL_WEIGHT = 45.0  # of the family's own recipe (docs/networks/synthesizer.md)
STFT_WEIGHT = 5.0


@dataclass(frozen=True)
class StepLoss:
    """`total` is what the optimizer follows, a mean over the effective batch; `shown` is for the curves, of the
    groups whose training and held-out losses are the same measure."""

    total: Tensor
    shown: dict[str, float]


class Learner(Protocol):
    """One network with its losses.

    `groups`: name of a group of weights -> prefixes of their names; every group is kept at its own best step.
    `losses`: name of a group -> what its held-out loss counts.
    `rate_factor`: times the learning rate of the settings; 0: a clip's speaker has nothing to teach this network.
    `kept_share`: of what was learned; below 1 the voice is a mean of the bare base and the fine-tuned one.
    """

    @property
    def rate_factor(self) -> float: ...

    @property
    def kept_share(self) -> float: ...

    @property
    def network(self) -> nn.Module: ...

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]: ...

    @property
    def losses(self) -> Mapping[str, str]: ...

    def targets(self) -> list[str]:
        """Names of the modules that adapters go into."""
        ...

    def weight_of(self, clip: ClipTensors) -> float:
        """How much a clip counts in the mean over a batch."""
        ...

    def step_loss(self, clips: Sequence[ClipTensors], seeds: Sequence[int], batch_weight: float) -> StepLoss:
        """Loss of a micro-batch, as its part of the mean over a batch whose weights sum to `batch_weight`."""
        ...

    def heldout_losses(self, clips: Sequence[ClipTensors]) -> dict[str, float]:
        """Loss of every group on clips that are never trained on; no random numbers."""
        ...

    @property
    def critic(self) -> Critic | None:
        """What learns beside the network and is not kept."""
        ...


class SynthesizerLearner:
    """Decoder and prior of the v2 family.

    The two share no gradient: the decoder follows the sound of slices decoded from the frozen posterior, prior and flow
    follow the divergence from it. On held-out clips the prior is judged by the sound of tokens and text: a lower
    divergence was seen to sound worse. Where the base has a discriminator it is trained along and the losses are those
    of the family's own recipe; without one, distances of spectrograms stand in for it.
    """

    rate_factor = kept_share = 1.0
    groups: ClassVar = {"decoder": ("dec.",), "prior": ("enc_p.", "flow.")}
    losses: ClassVar = {"decoder": "mel L1 of copies, nepers", "prior": "mel L1 from tokens, nepers"}

    def __init__(self, network: Synthesizer, discriminator: Discriminator | None, device: torch.device) -> None:
        self.network, self.device = network, device
        self.critic = None if discriminator is None else Critic(discriminator)
        self.mel = MelLoss(network.config.mel).to(device)
        self.stft = StftLoss().to(device)

    def targets(self) -> list[str]:
        return self.network.adaptable_modules()

    def weight_of(self, clip: ClipTensors) -> float:
        return 1.0

    def step_loss(self, clips: Sequence[ClipTensors], seeds: Sequence[int], batch_weight: float) -> StepLoss:
        torch.manual_seed(seeds[0])  # of the network's dropout
        config = self.network.config
        batch = self._collate(clips)
        noise, uniform = self._noise(clips, seeds, batch.spec.shape[-1])
        ge = self.network.condition(batch.spec, batch.spec_lengths, batch.speaker)
        out = self.network(batch, ge=ge, noise=noise, uniform=uniform)
        hop, length = config.spectrogram.hop_samples, config.segment_frames
        waves = self._pad([clip.wave for clip in clips])  # (B, N)
        target = take_slices(waves[:, None], out.starts * hop, length * hop)  # (B, 1, N)
        mel = self.mel(out.wave[:, 0].float(), target[:, 0])
        prior = kl_loss(out.z_p, out.logs_q, out.m_p, out.logs_p, out.mask)
        share = len(clips) / batch_weight
        if self.critic is not None:
            sound = MEL_WEIGHT * mel + self.critic.loss(target, out.wave, share)
        else:
            sound = MEL_WEIGHT * mel + STFT_WEIGHT * self.stft(out.wave[:, 0], target[:, 0])
        return StepLoss((sound + prior) * share, {"decoder": float(mel.detach())})

    @torch.no_grad()
    def heldout_losses(self, clips: Sequence[ClipTensors]) -> dict[str, float]:
        sums = {"decoder": 0.0, "prior": 0.0}
        for clip in clips:
            batch = self._collate([clip])
            ge = self.network.condition(batch.spec, batch.spec_lengths, batch.speaker)
            copy = self.network.copy_synthesis(batch.spec, ge)
            sums["decoder"] += self._apart(copy, clip)
            spoken = self.network.decode(batch.codes, batch.text, ge, NO_NOISE)
            sums["prior"] += self._apart(spoken, clip)
        return {name: total / len(clips) for name, total in sums.items()}

    def _apart(self, wave: Tensor, clip: ClipTensors) -> float:
        """Mel L1 of a wave (1, 1, N) and the clip's recording."""
        samples = min(wave.shape[2], len(clip.wave))
        recording = clip.wave[None, :samples].to(self.device)
        return float(self.mel(wave[:, 0, :samples].float(), recording))

    def _collate(self, clips: Sequence[ClipTensors]) -> TrainingBatch:
        config = self.network.config
        return collate_codes(clips, config.frames_per_token, self.device, least_frames=config.segment_frames)

    def _pad(self, waves: Sequence[Tensor]) -> Tensor:
        least = self.network.config.segment_frames * self.network.config.spectrogram.hop_samples
        samples = max(max(len(wave) for wave in waves), least)
        return torch.stack([pad_to(wave, samples) for wave in waves]).to(self.device)

    def _noise(self, clips: Sequence[ClipTensors], seeds: Sequence[int], frames: int) -> tuple[Tensor, Tensor]:
        """Posterior noise (B, Z, T) and slice positions (B,)."""
        places = [torch.rand((), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        noise = draw_noise(clips, seeds, self.network.config.inter_channels, frames)
        return noise.to(self.device), torch.stack(places).to(self.device)


class Text2SemanticLearner:
    """The text-to-semantic network: cross entropy of a clip's own tokens, given its phones.

    One with a guide stays as it is: a minute of speech taught nano's nothing that could be measured.
    """

    critic = None
    kept_share = 1.0
    groups: ClassVar = {"tokens": ("h.",)}
    losses: ClassVar = {"tokens": "cross entropy, nats per token"}

    def __init__(self, network: Text2Semantic, device: torch.device) -> None:
        self.network, self.device = network, device
        self.rate_factor = 1.0 if network.guide is None else 0.0

    def targets(self) -> list[str]:
        return self.network.adaptable_modules()

    def weight_of(self, clip: ClipTensors) -> float:
        return float(len(clip.tokens) + 1)  # the end token counts, too

    def step_loss(self, clips: Sequence[ClipTensors], seeds: Sequence[int], batch_weight: float) -> StepLoss:
        torch.manual_seed(seeds[0])  # of the network's dropout
        prediction = self.network(self._collate(clips))
        loss = prediction.loss_sum
        return StepLoss(loss / batch_weight, {"tokens": float(loss.detach()) / sum(map(self.weight_of, clips))})

    @torch.no_grad()
    def heldout_losses(self, clips: Sequence[ClipTensors]) -> dict[str, float]:
        total = sum(float(self.network(self._collate([clip])).loss_sum) for clip in clips)
        return {"tokens": total / sum(map(self.weight_of, clips))}

    def _collate(self, clips: Sequence[ClipTensors]) -> TextAndTokens:
        device = self.device
        phones = pad_sequence([clip.phones.long() for clip in clips], batch_first=True).to(device)
        bert = None
        if any(clip.bert is not None for clip in clips):
            width = self.network.config.bert_dim
            rows = [torch.zeros(width, len(clip.phones)) if clip.bert is None else clip.bert for clip in clips]
            bert = torch.stack([pad_to(row.float(), phones.shape[1]) for row in rows]).to(device)
        return TextAndTokens(
            phones=phones,
            phone_lengths=torch.tensor([len(clip.phones) for clip in clips], device=device),
            tokens=pad_sequence([clip.tokens.long() for clip in clips], batch_first=True).to(device),
            token_lengths=torch.tensor([len(clip.tokens) for clip in clips], device=device),
            bert=bert,
        )


def pad_to(x: Tensor, length: int) -> Tensor:
    """Zeros on the right of the last dimension."""
    return F.pad(x, (0, length - x.shape[-1]))


def collate_codes(
    clips: Sequence[ClipTensors], step: int, device: torch.device, least_frames: int = 0
) -> TrainingBatch:
    """Rows padded on the right to the longest clip.

    `step`: frames per token.
    """
    frames = max(max(clip.acoustic_features.shape[1] for clip in clips), least_frames)
    frames += -frames % step
    speakers = [clip.speaker.float() for clip in clips if clip.speaker is not None]
    return TrainingBatch(
        spec=torch.stack([pad_to(clip.acoustic_features.float(), frames) for clip in clips]).to(device),
        spec_lengths=torch.tensor([clip.acoustic_features.shape[1] for clip in clips], device=device),
        text=pad_sequence([clip.phones.long() for clip in clips], batch_first=True).to(device),
        text_lengths=torch.tensor([len(clip.phones) for clip in clips], device=device),
        codes=torch.stack([pad_to(clip.tokens.long()[None], frames // step) for clip in clips]).to(device),
        speaker=torch.stack(speakers).to(device) if speakers else None,
    )


def draw_noise(clips: Sequence[ClipTensors], seeds: Sequence[int], channels: int, frames: int) -> Tensor:
    """Posterior noise (B, Z, T), drawn on the CPU from each clip's own seed."""
    rows = []
    for clip, seed in zip(clips, seeds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        torch.rand((), generator=generator)  # where a slice would begin
        own = torch.randn(channels, clip.acoustic_features.shape[1], generator=generator)
        rows.append(pad_to(own, frames))
    return torch.stack(rows)
