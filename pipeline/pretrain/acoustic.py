"""Train the acoustic model: features of recordings from their own tokens, the phones laid along them and other speech
of the speaker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.learners.acoustic import OWN_MELODY, Passage, acoustic_losses, filled
from models.sound.fargan import CEPSTRA
from models.sound.fargan_analysis import BAND_EDGES, LOUDEST, PREEMPHASIS, analyse
from models.synthesizer.acoustic import AT_ONCE, PITCH, AcousticModel, Saying, prosody_of, statistics
from models.synthesizer.fargan_synthesizer import FarganSynthesizer, Spoken
from models.text2semantic.laying import lay_text
from pipeline.pretrain.loop import Losses, Run, train
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
    """One recording: what is said in it, its features (2 T, 20), their statistics (40,) and its prosody (2 T, 2).

    What was spoken by another synthesizer says nothing about how speakers differ.
    """

    speaker: str
    spoken: Spoken
    features: Tensor
    own: Tensor
    prosody: Tensor
    weight: float = 1.0
    synthetic: bool = False

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
    return HeardClip(clip.speaker, cut, rows, own, prosody_of(rows, own), clip.weight, clip.synthetic)


class Passages:
    """Draws stretches of clips, with statistics of other speech of the same speaker.

    A few hundred speakers are soon known by heart. So each stretch is one of a speaker who never was: formants and
    pitch are moved by up to ``formants`` (log of a ratio) and ``pitch`` (octaves), speech is up to ``tempo`` (log of a
    ratio) faster or slower: options of the stage, 0 where they are absent.
    """

    def __init__(self, clips: Sequence[HeardClip], stage: Stage) -> None:
        self.clips, self.batch_size, self.frames = clips, stage.batch, round(stage.segment_s / FRAME_S)
        self.ranges = {name: stage.options.get(name, 0.0) for name in ("formants", "pitch", "tempo")}
        self.of_speaker: dict[str, list[int]] = {}
        for index, clip in enumerate(clips):
            self.of_speaker.setdefault(clip.speaker, []).append(index)
        counts = np.array([len(self.of_speaker[clip.speaker]) for clip in clips])
        weights = np.array([clip.weight * min(clip.frames, 4 * self.frames) for clip in clips]) / np.sqrt(counts)
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
        formants, pitch, tempo = (float(rng.uniform(-span, span)) for span in self.ranges.values())
        tempo = math.exp(tempo)
        asked = math.ceil(self.frames * tempo)
        first = int(rng.integers(0, max(clip.frames - asked, 0) + 1))
        last = min(first + asked, clip.frames)
        moved = Mover(math.exp(formants), pitch)
        features = moved(clip.features)
        own = statistics(features)
        whole = slice(AT_ONCE * first, AT_ONCE * last)
        length = min(round((last - first) / tempo), self.frames)
        places = ((torch.arange(length) + 0.5) * tempo).long().clamp(max=last - first - 1) + first
        said = (clip.spoken.tokens[places], clip.spoken.phones[places])
        within = clip.spoken.places[places] - torch.tensor([0.0, math.log(tempo)])
        heard = [part[whole] for part in (features, prosody_of(features, own))]
        if tempo != 1.0:
            heard = [_retimed(part, AT_ONCE * length) for part in heard]
        return (
            *(filled(part, self.frames) for part in (*said, within)),
            self._reference(index, (first, last), moved, rng),
            *(filled(part, AT_ONCE * self.frames) for part in heard),
            F.pad(torch.ones(AT_ONCE * length), (0, AT_ONCE * (self.frames - length))),
        )

    def _reference(self, index: int, used: tuple[int, int], moved: Mover, rng: np.random.Generator) -> Tensor:
        """Statistics of other clips; of the rest of the clip where there are none; of all of it where that is short."""
        clip = self.clips[index]
        others = [one for one in self.of_speaker[clip.speaker] if one != index]
        if len(others) >= REFERENCE_CLIPS:
            picks = rng.choice(others, REFERENCE_CLIPS, replace=False)
            return statistics(moved(torch.cat([self.clips[pick].features for pick in picks])))
        before, after = AT_ONCE * max(used[0] - MARGIN_FRAMES, 0), AT_ONCE * (used[1] + MARGIN_FRAMES)
        rest = torch.cat([clip.features[:before], clip.features[after:]])
        return statistics(moved(rest if len(rest) >= SHORTEST_REFERENCE else clip.features))


class Mover:
    """Features (L, 20) as of a speaker with formants higher by the ratio `formants`, and a voice by `pitch` octaves."""

    def __init__(self, formants: float, pitch: float) -> None:
        self.formants, self.pitch = formants, pitch

    def __call__(self, features: Tensor) -> Tensor:
        if self.formants == 1.0 and not self.pitch:
            return features
        moved = features.clone()
        matrix, offset = _warp(self.formants)
        moved[:, :CEPSTRA] = (features[:, :CEPSTRA] - offset) @ matrix.T + offset
        moved[:, PITCH] += self.pitch
        return moved


def _warp(ratio: float) -> tuple[Tensor, Tensor]:
    """Matrix (18, 18) over cepstra: log energies of bands read at frequencies lower by the ratio, in lines between;
    and cepstra (18,) of what the analysis itself adds, which stays where it is."""
    centres = np.array(BAND_EDGES, dtype=float)
    band, order = np.arange(CEPSTRA)[:, None] + 0.5, np.arange(CEPSTRA)[None]
    basis = np.cos(np.pi * band * order / CEPSTRA) * math.sqrt(2 / CEPSTRA)  # (bands, cepstra), orthonormal
    basis[:, 0] *= math.sqrt(0.5)
    read = np.stack([np.interp(centres / ratio, centres, one) for one in np.eye(CEPSTRA)], 1)
    angle = np.pi * (centres + 0.5) / (BAND_EDGES[-1] + 0.5)
    emphasis = np.log10(1 - 2 * PREEMPHASIS * np.cos(angle) + PREEMPHASIS**2)
    offset = basis.T @ emphasis
    offset[0] -= LOUDEST
    return torch.from_numpy(basis.T @ read @ basis).float(), torch.from_numpy(offset).float()


def _retimed(rows: Tensor, length: int) -> Tensor:
    """Rows (L, C) at `length` places spread evenly over them, in lines between."""
    return F.interpolate(rows.T[None], size=length, mode="linear")[0].T


def train_acoustic(network: AcousticModel, clips: HeardClips, run: Run) -> None:
    """The stage `acoustic`."""
    stage, device = run.stage, run.device
    passages = Passages(clips.training, stage)
    network.set_typical(torch.stack([clip.own for clip in clips.training if not clip.synthetic]))
    as_they_are = stage.model_copy(update={"options": {}})
    kept = Passages(clips.held_out, as_they_are) if clips.held_out else None

    def forward(step: int, rng: np.random.Generator) -> Losses:
        passage = passages.batch(rng)
        own = torch.from_numpy(rng.random(stage.batch) < OWN_MELODY).float()
        return _summed(acoustic_losses(network, passage.to(device), own.to(device)))

    def evaluate(step: int) -> dict[str, float]:
        if kept is None:
            return {}
        passage = kept.of(range(len(kept.clips)), np.random.default_rng(run.seed))
        return {name: float(value) for name, value in _summed(acoustic_losses(network, passage.to(device))).items()}

    train(network, forward, run, evaluate=evaluate)


def _summed(losses: Losses) -> Losses:
    return {"loss": losses["features"] + losses["prosody"], **losses}
