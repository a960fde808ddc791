"""What the acoustic model is trained by, before and in fine-tuning: distances of FARGAN's features and of prosody.

Letters: B passages, T frames at 50 Hz, L = 2 T frames of FARGAN at 100 Hz.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from models.clip_tensors import ClipTensors
from models.learners.vits import StepLoss
from models.sound.fargan import FEATURES
from models.synthesizer.acoustic import PERIODICITY, PITCH, VOICED, AcousticModel, Saying, prosody_of, statistics
from models.synthesizer.fargan_synthesizer import FarganSynthesizer

SQUARED = 0.5  # of squared beside absolute distances
STEPS, STEP_SHARE = (1, 2, 4), 0.2  # frames apart, whose differences are compared as well
MELODY_STEPS, MELODY_SHARE = (2, 8), 0.3
UNVOICED = 0.1  # what a pitch counts where none is heard
PERIODICITY_WEIGHT = 2.0
CUT_FRAMES = 128  # of a clip in one step of fine-tuning
OWN_MELODY = 1 / 3  # share of the passages that hear the prosody head and not the recording


@dataclass(frozen=True)
class Passage:
    """Stretches of recordings, as long as the longest. `inside` (B, L) is 1 where a stretch is, 0 behind its end."""

    said: Saying
    reference: Tensor  # (B, 40), of other speech of the same speaker
    features: Tensor  # (B, L, 20)
    prosody: Tensor  # (B, L, 2), of the recording
    inside: Tensor

    def to(self, device: torch.device) -> Passage:
        """The same on another device."""
        said = Saying(*(part.to(device) for part in (self.said.tokens, self.said.phones, self.said.places)))
        rest = (part.to(device) for part in (self.reference, self.features, self.prosody, self.inside))
        return Passage(said, *rest)


def acoustic_losses(network: AcousticModel, passage: Passage, own: Tensor | None = None) -> dict[str, Tensor]:
    """`features` and `prosody`, means per frame; `own` (B,) is 1 for passages that hear the predicted prosody."""
    melody = network.predict_prosody(passage.said, passage.reference).float()
    given = passage.prosody
    if own is not None:
        share = own[:, None, None]
        given = given * (1 - share) + melody.detach() * share
    features = network(passage.said, passage.reference, given).float()
    weights = feature_weights(network).to(features)
    return {
        "features": features_loss(features, passage, weights),
        "prosody": prosody_loss(melody, passage),
    }


def feature_weights(network: AcousticModel) -> Tensor:
    """How much each feature counts (20,): half-way between its own scale and that of its spread; pitch is given."""
    weights = network.typical[FEATURES:].clamp(min=0.1).rsqrt().clone()
    weights[PERIODICITY] *= PERIODICITY_WEIGHT
    weights[PITCH] = 0.0
    return weights


def features_loss(predicted: Tensor, passage: Passage, weights: Tensor) -> Tensor:
    """Weighted distance of features (B, L, 20), and of their differences over a few frames."""
    error, inside = (predicted - passage.features) * weights, passage.inside[..., None]
    total = ((error.abs() + SQUARED * error.square()) * inside).sum()
    for step in STEPS:
        total = total + STEP_SHARE * ((error[:, step:] - error[:, :-step]).abs() * inside[:, step:]).sum()
    return total / (passage.inside.sum() * (FEATURES - 1))


def prosody_loss(predicted: Tensor, passage: Passage) -> Tensor:
    """Absolute distance of pitch, mostly where it is heard, and of energy, (B, L, 2), and of their movements."""
    error, inside = predicted - passage.prosody, passage.inside
    voiced = (passage.features[..., PERIODICITY] > VOICED) * inside
    counts = torch.stack([UNVOICED * inside + voiced, inside], 2)
    total = (error.abs() * counts).sum()
    for step in MELODY_STEPS:
        total = total + MELODY_SHARE * ((error[:, step:] - error[:, :-step]).abs() * inside[:, step:, None]).sum()
    return total / inside.sum()


class AcousticLearner:
    """The acoustic model of a base that speaks through FARGAN. Pitch and energy are the recordings' own: a minute
    teaches a poor melody, so the head that predicts it stays as it is."""

    critic = None
    rate_factor = 4.0  # 5e-4 becomes 2e-3
    # Free speech of three voices, kept whole / 0.75 / 0.5: DistillMOS 2.86 / 3.01 / 3.29, ECAPA 0.44 / 0.38 / 0.31.
    kept_share = 0.75
    groups: ClassVar = {"sound": ("acoustic.stack.",)}
    losses: ClassVar = {"sound": "weighted distance of FARGAN's features"}

    def __init__(self, network: FarganSynthesizer, device: torch.device) -> None:
        self.network, self.device = network, device
        self._known: dict[int, tuple[ClipTensors, Passage]] = {}

    def targets(self) -> list[str]:
        return self.network.adaptable_modules()

    def weight_of(self, clip: ClipTensors) -> float:
        return 1.0

    def step_loss(self, clips: Sequence[ClipTensors], seeds: Sequence[int], batch_weight: float) -> StepLoss:
        torch.manual_seed(seeds[0])  # of the network's dropout
        rows = [self._cut(self._whole(clip), seed) for clip, seed in zip(clips, seeds, strict=True)]
        loss = self._loss(joined(rows))
        return StepLoss(loss * (len(clips) / batch_weight), {"sound": float(loss.detach())})

    @torch.no_grad()
    def heldout_losses(self, clips: Sequence[ClipTensors]) -> dict[str, float]:
        return {"sound": sum(float(self._loss(self._whole(clip))) for clip in clips) / len(clips)}

    def _loss(self, passage: Passage) -> Tensor:
        acoustic = self.network.acoustic
        features = acoustic(passage.said, passage.reference, passage.prosody).float()
        return features_loss(features, passage, feature_weights(acoustic).to(features))

    def _whole(self, clip: ClipTensors) -> Passage:
        """A clip as one passage; laid once, since that takes longer than a step."""
        if id(clip) not in self._known:
            spoken = self.network.lay(clip.tokens.long().to(self.device), clip.phones.long().to(self.device))
            length = min(2 * len(spoken.tokens), clip.acoustic_features.shape[1] // 2 * 2)
            rows = clip.acoustic_features[:, :length].T
            own = statistics(rows)
            said = cut(spoken.batch(), 0, length // 2)
            whole = Passage(said, own[None], rows[None], prosody_of(rows, own)[None], torch.ones(1, length))
            self._known[id(clip)] = (clip, whole.to(self.device))
        return self._known[id(clip)][1]

    def _cut(self, whole: Passage, seed: int) -> Passage:
        frames = whole.said.tokens.shape[1]
        if frames <= CUT_FRAMES:
            return whole
        generator = torch.Generator().manual_seed(seed)
        first = int(torch.randint(frames - CUT_FRAMES + 1, (), generator=generator))
        rows = slice(2 * first, 2 * (first + CUT_FRAMES))
        return Passage(
            cut(whole.said, first, first + CUT_FRAMES), whole.reference, whole.features[:, rows],
            whole.prosody[:, rows], whole.inside[:, rows],
        )  # fmt: skip


def cut(said: Saying, first: int, last: int) -> Saying:
    """Some of its frames."""
    return Saying(said.tokens[:, first:last], said.phones[:, first:last], said.places[:, first:last])


def joined(passages: Sequence[Passage]) -> Passage:
    """Passages of one row each as one batch, the last frame of the shorter ones repeated outside of `inside`."""
    frames = max(one.said.tokens.shape[1] for one in passages)
    rows = []
    for one in passages:
        said = one.said
        halves = [filled(part[0], frames) for part in (said.tokens, said.phones, said.places)]
        wholes = [filled(part[0], 2 * frames) for part in (one.features, one.prosody)]
        rows.append((*halves, one.reference[0], *wholes, F.pad(one.inside[0], (0, 2 * frames - one.inside.shape[1]))))
    tokens, phones, places, *rest = (torch.stack(column) for column in zip(*rows, strict=True))
    return Passage(Saying(tokens, phones, places), *rest)


def filled(rows: Tensor, length: int) -> Tensor:
    """The last row repeated up to `length`."""
    missing = length - len(rows)
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows
