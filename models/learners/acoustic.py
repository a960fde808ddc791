"""What the acoustic model is trained by, before and in fine-tuning: distances of FARGAN's features and of prosody.

Letters: B passages, T frames at 50 Hz, L = 2 T frames of FARGAN at 100 Hz.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.sound.fargan import FEATURES
from models.synthesizer.acoustic import PERIODICITY, PITCH, VOICED, AcousticModel, Saying

SQUARED = 0.5  # of squared beside absolute distances
STEPS, STEP_SHARE = (1, 2, 4), 0.2  # frames apart, whose differences are compared as well
MELODY_STEPS, MELODY_SHARE = (2, 8), 0.3
UNVOICED = 0.1  # what a pitch counts where none is heard
PERIODICITY_WEIGHT = 2.0
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
