"""Train speech tokens: what a large recogniser's encoder hears, and which phone is spoken, has to be read from them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.encoders.content import HOP_SAMPLES
from models.encoders.speech_tokens import SpeechTokens
from pipeline.pretrain.augment import augment_wave, spoil_mel
from pipeline.pretrain.content import frame_labels, speaker_weights
from pipeline.pretrain.loop import Losses, Run, train
from pipeline.pretrain.prepare import SAMPLE_RATE_HZ, Clip, Corpus
from pipeline.pretrain.recipe import Stage
from pipeline.text.edits import edit_distance

SPOILED = 0.7  # share of the segments that are heard worse than the teacher heard them
Rows = NDArray[np.float16]


@dataclass(frozen=True)
class Teacher:
    """Vectors of every clip of a corpus at 50 Hz, standardised."""

    rows: Rows  # (frames of all clips, D), a memory map
    starts: dict[int, int]  # first sample of a clip -> its first row
    mean: NDArray[np.float32]
    spread: NDArray[np.float32]

    def vectors(self, clip: Clip, first: int, frames: int) -> NDArray[np.float32]:
        """(frames, D) from frame `first` of the clip on."""
        at = self.starts[clip.start] + first
        return (self.rows[at : at + frames].astype(np.float32) - self.mean) / self.spread


def open_teacher(path: Path, corpus: Corpus, dim: int, like: Teacher | None = None) -> Teacher:
    """Rows of float16 in the order of the corpus; standardised as `like`, or by their own mean and spread."""
    rows: Rows = np.memmap(path, np.float16, "r").reshape(-1, dim)
    counts = [clip.samples // HOP_SAMPLES for clip in corpus.clips]
    starts = {clip.start: first for clip, first in zip(corpus.clips, np.cumsum([0, *counts]).tolist(), strict=False)}
    if like:
        return Teacher(rows, starts, like.mean, like.spread)
    some = rows[:: max(1, len(rows) // 50_000)].astype(np.float32)
    return Teacher(rows, starts, some.mean(0), some.std(0) + 1e-3)


@dataclass(frozen=True)
class Batch:
    """Segments: waves (B, N), the teacher's vectors (B, T, D), frame labels (B, T), -100 outside a clip or unknown."""

    waves: Tensor
    vectors: Tensor
    inside: Tensor  # (B, T), 1 where the clip is
    labels: Tensor
    orders: list[list[int]]  # of phones, for CTC; empty where they are not known


class TaughtSegments:
    """Draws segments of clips with what the teacher heard there."""

    def __init__(
        self, corpus: Corpus, teacher: Teacher, clips: list[Clip], classes: tuple[str, ...], stage: Stage
    ) -> None:
        self.corpus, self.teacher, self.clips = corpus, teacher, clips
        self.batch_size, self.frames = stage.batch, int(stage.segment_s * SAMPLE_RATE_HZ) // HOP_SAMPLES
        self.index = {phone: i for i, phone in enumerate(classes)}
        self.weights = speaker_weights(clips)

    def batch(self, rng: np.random.Generator) -> Batch:
        picks = rng.choice(len(self.clips), self.batch_size, p=self.weights)
        rows = [self._segment(self.clips[pick], rng) for pick in picks]
        waves, vectors, inside, labels, orders = zip(*rows, strict=True)
        stacked = [torch.from_numpy(np.stack(column)) for column in (waves, vectors, inside, labels)]
        return Batch(stacked[0], stacked[1], stacked[2], stacked[3], list(orders))

    def _segment(
        self, clip: Clip, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], list[int]]:
        total = clip.samples // HOP_SAMPLES
        frames = min(self.frames, total)
        first = int(rng.integers(0, total - frames + 1))
        wave = self.corpus.wave(clip)[first * HOP_SAMPLES : (first + frames) * HOP_SAMPLES]
        wave = augment_wave(wave, rng) if rng.random() < SPOILED else wave
        labels, order = np.full(self.frames, -100, dtype=np.int64), list[int]()
        if clip.phones:
            start_s = first * HOP_SAMPLES / SAMPLE_RATE_HZ
            labels[:frames], order = frame_labels(clip.phones, self.index, frames, start_s=start_s)
        missing = self.frames - frames
        return (
            np.pad(wave, (0, missing * HOP_SAMPLES)),
            np.pad(self.teacher.vectors(clip, first, frames), ((0, missing), (0, 0))),
            np.pad(np.ones(frames, np.float32), (0, missing)),
            labels,
            order,
        )


def token_losses(network: SpeechTokens, batch: Batch, mel: Tensor, weights: dict[str, float]) -> Losses:
    """Distance to the teacher, cross entropy of frames and CTC of the order, over augmented log mels (B, M, 2 T)."""
    codes = network.codes(mel)[:, : batch.labels.shape[1]]
    readings = network.read(codes)
    inside = batch.inside[:, :, None]
    distance = ((readings.teacher - batch.vectors).square() * inside).sum() / (inside.sum() * batch.vectors.shape[2])
    cross = F.nll_loss(readings.frames.flatten(0, 1), batch.labels.flatten(), ignore_index=-100)
    known = [row for row, order in enumerate(batch.orders) if order]
    ctc = torch.zeros(())
    if known:
        targets = torch.tensor([label for row in known for label in batch.orders[row]])
        lengths = torch.tensor([len(batch.orders[row]) for row in known])
        used = batch.inside[known].sum(1).long()
        ctc = F.ctc_loss(readings.ctc[known].transpose(0, 1), targets, used, lengths, zero_infinity=True)
    loss = distance + weights.get("frames", 0.3) * cross + weights.get("ctc", 0.1) * ctc
    return {"loss": loss, "teacher": distance, "frames": cross, "ctc": ctc}


def train_speech_tokens(
    network: SpeechTokens,
    corpus: Corpus,
    teacher: Teacher,
    held_out: tuple[Corpus, Teacher] | None,
    run: Run,
) -> None:
    """The stage `speech_tokens`; `held_out` are clips of speakers that are never trained on."""
    clips = [clip for clip in corpus.used_for("content") if clip.samples >= HOP_SAMPLES * 20]
    segments = TaughtSegments(corpus, teacher, clips, network.config.classes, run.stage)

    def forward(step: int, rng: np.random.Generator) -> Losses:
        batch = segments.batch(rng)
        with torch.no_grad():
            mel = network.front.mel(batch.waves.to(run.device))
        spoiled = spoil_mel(mel.clone(), rng)
        worse = torch.from_numpy(rng.random(len(mel)) < SPOILED)[:, None, None]
        return token_losses(network, batch, torch.where(worse, spoiled, mel), run.stage.options)

    def evaluate(step: int) -> dict[str, float]:
        return judge_tokens(network, *held_out) if held_out else {}

    train(network, forward, run, evaluate=evaluate)


@torch.no_grad()
def judge_tokens(network: SpeechTokens, corpus: Corpus, teacher: Teacher) -> dict[str, float]:
    """Share of the teacher's variance that tokens do not explain, phone errors, and how many tokens are in use."""
    index = {phone: i for i, phone in enumerate(network.config.classes)}
    unexplained = variance = errors = phones = right = total = 0.0
    used = np.zeros(network.quantizer.size)
    for clip in corpus.clips:
        frames = clip.samples // HOP_SAMPLES
        codes = network.codes(network.front.mel(torch.from_numpy(corpus.wave(clip))[None]))[:, :frames]
        readings, vectors = network.read(codes), torch.from_numpy(teacher.vectors(clip, 0, frames))
        unexplained += float((readings.teacher[0] - vectors).square().sum())
        variance += float((vectors - vectors.mean(0)).square().sum())
        used += np.bincount(network.quantizer.tokens(codes)[0].numpy(), minlength=len(used))
        if clip.phones:
            labels, order = frame_labels(clip.phones, index, frames)
            right += int((readings.frames[0].argmax(-1).numpy() == labels).sum())
            total += frames
            best = torch.unique_consecutive(readings.ctc[0].argmax(-1)).tolist()
            errors += edit_distance([label for label in best if label], order)
            phones += len(order)
    shares = used[used > 0] / used.sum()
    return {
        "unexplained": unexplained / variance,
        "frame_accuracy": right / max(total, 1),
        "phone_error_rate": errors / max(phones, 1),
        "perplexity": float(np.exp(-(shares * np.log(shares)).sum())),
    }
