"""Train the acoustic model: features of recordings from their own tokens, the phones laid along them and other speech
of the speaker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.learners.acoustic import OWN_MELODY, Passage, acoustic_losses, filled
from models.sound.fargan_analysis import analyse
from models.synthesizer.acoustic import AT_ONCE, AcousticModel, Saying, prosody_of, statistics
from models.synthesizer.fargan_synthesizer import FarganSynthesizer, Spoken
from models.text2semantic.laying import lay_text
from pipeline.pretrain.loop import Losses, train
from pipeline.pretrain.prepare import Clip, Corpus
from pipeline.pretrain.recipe import Stage

FRAME_S = 0.02
SHORTEST_FRAMES = 60
MARGIN_FRAMES = 10  # between a passage and what stands in for other speech of its speaker
REFERENCE_CLIPS = 3
SHORTEST_REFERENCE = 200  # frames of 10 ms
Rows = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass(frozen=True)
class HeardClip:
    """One recording: what is said in it, its features (2 T, 20), their statistics (40,) and its prosody (2 T, 2)."""

    speaker: str
    spoken: Spoken
    features: Tensor
    own: Tensor
    prosody: Tensor

    @property
    def frames(self) -> int:
        return len(self.spoken.tokens)


@dataclass(frozen=True)
class HeardClips:
    """What is trained on, and clips of speakers that never are."""

    training: Sequence[HeardClip]
    held_out: Sequence[HeardClip]


def fargan_features(corpus: Corpus, path: Path) -> list[Rows]:
    """Features of every clip, (L, 20) each, cached in `path`."""
    if not path.exists():
        rows = [analyse(torch.from_numpy(corpus.wave(clip))).numpy() for clip in corpus.clips]
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, features=np.concatenate(rows), lengths=np.array([len(row) for row in rows]))
        partial.replace(path)
    stored = np.load(path)
    return np.split(stored["features"], np.cumsum(stored["lengths"])[:-1])


def heard_clip(
    network: FarganSynthesizer, clip: Clip, tokens: Tensor, phones: Tensor, features: Rows
) -> HeardClip | None:
    """A transcribed clip; None where its text cannot be laid along its tokens, or where it is too short."""
    laid = lay_text(tokens, phones, network.reader, network.frames_per_token)
    if laid is None:
        return None
    spoken = Spoken(tokens.repeat_interleave(network.frames_per_token), laid.symbols, laid.places)
    frames = min(len(spoken.tokens), len(features) // AT_ONCE)
    if frames < SHORTEST_FRAMES:
        return None
    cut = Spoken(spoken.tokens[:frames], spoken.phones[:frames], spoken.places[:frames])
    rows = torch.from_numpy(features[: AT_ONCE * frames].copy())
    own = statistics(rows)
    return HeardClip(clip.speaker, cut, rows, own, prosody_of(rows, own))


class Passages:
    """Draws stretches of clips, with statistics of other speech of the same speaker."""

    def __init__(self, clips: Sequence[HeardClip], stage: Stage) -> None:
        self.clips, self.batch_size, self.frames = clips, stage.batch, round(stage.segment_s / FRAME_S)
        self.of_speaker: dict[str, list[int]] = {}
        for index, clip in enumerate(clips):
            self.of_speaker.setdefault(clip.speaker, []).append(index)
        counts = np.array([len(self.of_speaker[clip.speaker]) for clip in clips])
        weights = np.array([min(clip.frames, 4 * self.frames) for clip in clips]) / np.sqrt(counts)
        self.weights = weights / weights.sum()

    def batch(self, rng: np.random.Generator) -> Passage:
        return self.of(rng.choice(len(self.clips), self.batch_size, p=self.weights).tolist(), rng)

    def of(self, indices: Sequence[int], rng: np.random.Generator) -> Passage:
        """One stretch of each of these clips."""
        rows = [self._stretch(index, rng) for index in indices]
        tokens, phones, places, reference, features, prosody, inside = (
            torch.stack(column) for column in zip(*rows, strict=True)
        )
        return Passage(Saying(tokens, phones, places), reference, features, prosody, inside)

    def _stretch(self, index: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        clip = self.clips[index]
        first = int(rng.integers(0, max(clip.frames - self.frames, 0) + 1))
        last = min(first + self.frames, clip.frames)
        said = (clip.spoken.tokens, clip.spoken.phones, clip.spoken.places)
        whole = slice(AT_ONCE * first, AT_ONCE * last)
        inside = torch.ones(AT_ONCE * (last - first))
        return (
            *(filled(part[first:last], self.frames) for part in said),
            self._reference(index, first, last, rng),
            filled(clip.features[whole], AT_ONCE * self.frames),
            filled(clip.prosody[whole], AT_ONCE * self.frames),
            F.pad(inside, (0, AT_ONCE * self.frames - len(inside))),
        )

    def _reference(self, index: int, first: int, last: int, rng: np.random.Generator) -> Tensor:
        """Statistics of other clips; of the rest of the clip where there are none; of all of it where that is short."""
        clip = self.clips[index]
        others = [one for one in self.of_speaker[clip.speaker] if one != index]
        if len(others) >= REFERENCE_CLIPS:
            picks = rng.choice(others, REFERENCE_CLIPS, replace=False)
            return statistics(torch.cat([self.clips[pick].features for pick in picks]))
        before, after = AT_ONCE * max(first - MARGIN_FRAMES, 0), AT_ONCE * (last + MARGIN_FRAMES)
        rest = torch.cat([clip.features[:before], clip.features[after:]])
        return statistics(rest) if len(rest) >= SHORTEST_REFERENCE else clip.own


def train_acoustic(
    network: AcousticModel, clips: HeardClips, stage: Stage, folder: Path, seed: int, device: torch.device
) -> None:
    """The stage `acoustic`."""
    passages = Passages(clips.training, stage)
    network.set_typical(torch.stack([clip.own for clip in clips.training]))
    kept = Passages(clips.held_out, stage) if clips.held_out else None

    def forward(step: int, rng: np.random.Generator) -> Losses:
        passage = passages.batch(rng)
        own = torch.from_numpy(rng.random(stage.batch) < OWN_MELODY).float()
        return _summed(acoustic_losses(network, passage.to(device), own.to(device)))

    def evaluate(step: int) -> dict[str, float]:
        if kept is None:
            return {}
        passage = kept.of(range(len(kept.clips)), np.random.default_rng(seed))
        return {name: float(value) for name, value in _summed(acoustic_losses(network, passage.to(device))).items()}

    train(network, forward, stage, folder, seed, device, evaluate=evaluate)


def _summed(losses: Losses) -> Losses:
    return {"loss": losses["features"] + losses["prosody"], **losses}
