"""Train the content encoder: which phone is spoken in every frame (forced alignment) and which in order (CTC)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.encoders.content import HOP_SAMPLES, PhoneEncoder
from pipeline.pretrain.align import Phone
from pipeline.pretrain.augment import augment_wave, change_rate, spoil_mel
from pipeline.pretrain.loop import Losses, Run, train
from pipeline.pretrain.prepare import SAMPLE_RATE_HZ, Clip, Corpus
from pipeline.pretrain.recipe import Stage
from pipeline.text.edits import edit_distance

RATE_SPREAD = 0.16  # of the natural log of the playing speed
GUESS_TRUST = 0.25  # weight of a clip whose text is a recogniser's


class PhoneSegments:
    """Draws augmented stretches of aligned clips with the labels of their frames."""

    def __init__(self, corpus: Corpus, clips: list[Clip], classes: tuple[str, ...], stage: Stage) -> None:
        self.corpus, self.stage = corpus, stage
        self.clips = [clip for clip in clips if clip.phones]
        self.index = {phone: i for i, phone in enumerate(classes)}
        trust = np.array([GUESS_TRUST if clip.guessed else 1.0 for clip in self.clips])
        weights = speaker_weights(self.clips) * trust
        self.weights = weights / weights.sum()

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, list[list[int]]]:
        """Waves (B, N), frame labels (B, T) with -100 outside the clip, phone sequences for CTC."""
        length = int(self.stage.segment_s * SAMPLE_RATE_HZ) // HOP_SAMPLES * HOP_SAMPLES
        picks = rng.choice(len(self.clips), self.stage.batch, p=self.weights)
        rows = [self._segment(self.clips[pick], length, rng) for pick in picks]
        waves = torch.from_numpy(np.stack([row[0] for row in rows]))
        return waves, torch.from_numpy(np.stack([row[1] for row in rows])), [row[2] for row in rows]

    def _segment(
        self, clip: Clip, length: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], list[int]]:
        factor = float(np.exp(rng.uniform(-RATE_SPREAD, RATE_SPREAD)))
        taken = min(int(length * factor), clip.samples)
        start = int(rng.integers(0, clip.samples - taken + 1))
        wave = change_rate(self.corpus.wave(clip)[start : start + taken], factor)[:length]
        wave = augment_wave(wave, rng)
        labels, order = frame_labels(clip.phones, self.index, length // HOP_SAMPLES, factor, start / SAMPLE_RATE_HZ)
        labels[len(wave) // HOP_SAMPLES :] = -100
        return np.pad(wave, (0, length - len(wave))), labels, order


def frame_labels(
    phones: list[Phone], index: dict[str, int], frames: int, factor: float = 1.0, start_s: float = 0.0
) -> tuple[NDArray[np.int64], list[int]]:
    """Class of every 20 ms frame from `start_s` on, played `factor` times faster, and the phones wholly inside."""
    labels = np.full(frames, index["SIL"], dtype=np.int64)
    order = []
    for sound, begin_s, end_s in (spoken for phone in phones for spoken in phone.sounds()):
        begin, end = (begin_s - start_s) / factor * 50, (end_s - start_s) / factor * 50
        label = index[sound]
        first, last = round(begin), round(end)
        if last <= 0 or first >= frames:
            continue
        labels[max(first, 0) : last] = label
        if label and (begin + end) / 2 > 0 and (begin + end) / 2 < frames:
            order.append(label)
    return labels, order


def speaker_weights(clips: list[Clip]) -> NDArray[np.float64]:
    """Chance of each clip: its length, divided by the root of its speaker's total."""
    totals: dict[str, int] = {}
    for clip in clips:
        totals[clip.speaker] = totals.get(clip.speaker, 0) + clip.samples
    weights = np.array([clip.samples / totals[clip.speaker] ** 0.5 for clip in clips], dtype=np.float64)
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def content_losses(network: PhoneEncoder, labels: Tensor, orders: list[list[int]], mel: Tensor) -> Losses:
    """Cross entropy of the frames and CTC of the order, over augmented log mels (B, M, 2 T)."""
    scores = network.scores_from_mel(mel)
    frames = min(scores.frames.shape[1], labels.shape[1])
    cross = F.nll_loss(scores.frames[:, :frames].flatten(0, 1), labels[:, :frames].flatten(), ignore_index=-100)
    used = (labels != -100).sum(1)
    targets = torch.tensor([label for order in orders for label in order])
    ctc = F.ctc_loss(
        scores.ctc.transpose(0, 1), targets, used, torch.tensor([len(o) for o in orders]), zero_infinity=True
    )  # each row already divided by its number of phones
    return {"loss": cross + 0.3 * ctc, "frames": cross, "ctc": ctc}


def train_content(
    network: PhoneEncoder,
    corpus: Corpus,
    held_out: Corpus | None,
    run: Run,
) -> None:
    """The stage `content`; `held_out` are clips of speakers that are never trained on."""
    segments = PhoneSegments(corpus, corpus.used_for("content"), network.config.phones, run.stage)

    def forward(step: int, rng: np.random.Generator) -> Losses:
        waves, labels, orders = segments.batch(rng)
        with torch.no_grad():
            mel = network.front.mel(waves.to(run.device))
        return content_losses(network, labels.to(run.device), orders, spoil_mel(mel, rng))

    def evaluate(step: int) -> dict[str, float]:
        return phone_error(network, held_out) if held_out else {}

    train(network, forward, run, evaluate=evaluate)


@torch.no_grad()
def phone_error(network: PhoneEncoder, corpus: Corpus) -> dict[str, float]:
    """Share of right frames, and phone error rate of the CTC head."""
    index = {phone: i for i, phone in enumerate(network.config.phones)}
    right = total = errors = phones = 0
    for clip in corpus.clips:
        if not clip.phones:
            continue
        wave = torch.from_numpy(corpus.wave(clip))
        scores = network.scores(wave[None])
        labels, order = frame_labels(clip.phones, index, scores.frames.shape[1])
        right += int((scores.frames[0].argmax(-1).numpy() == labels).sum())
        total += len(labels)
        best = torch.unique_consecutive(scores.ctc[0].argmax(-1)).tolist()
        errors += edit_distance([label for label in best if label], order)
        phones += len(order)
    return {"frame_accuracy": right / max(total, 1), "phone_error_rate": errors / max(phones, 1)}
