"""Second part of the synthesizer: tokens, phones and a speaker to the latent."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.learners.prior_loss import WEIGHTS, prior_losses
from models.sound.harmonics import PITCH_CHANNELS, pitch_latent
from models.sound.masks import length_mask
from models.sound.pitch import PitchTracker
from models.sound.spectrogram import Spectrogram
from models.synthesizer.vits import Synthesizer
from pipeline.pretrain.content import speaker_weights
from pipeline.pretrain.loop import Losses, Run, train
from pipeline.pretrain.prepare import SAMPLE_RATE_HZ, Clip, Corpus
from pipeline.pretrain.recipe import Stage
from pipeline.text.symbols import symbol_ids

Floats = NDArray[np.float32]

REFERENCE_FRAMES = 100
NO_TEXT = (".",)
CONTRAST_BATCHES = 25


@dataclass(frozen=True)
class Batch:
    """Stretches of clips; rows are padded to the longest. T frames, S phones."""

    wave: Tensor  # (B, N)
    lengths: Tensor  # (B,) frames
    pitch: Tensor  # (B, 2, T)
    codes: Tensor  # (B, 1, T // 2)
    text: Tensor  # (B, S)
    text_lengths: Tensor  # (B,)
    reference: Tensor  # (B, N')
    speaker: Tensor  # (B, 256)


@torch.no_grad()
def pitch_tracks(corpus: Corpus, path: Path) -> list[NDArray[np.float32]]:
    """Pitch channels (2, T) of every clip, cached in `path`."""
    if not path.exists():
        tracker = PitchTracker()
        rows = [pitch_latent(tracker(torch.from_numpy(corpus.wave(clip))[None]))[0].numpy() for clip in corpus.clips]
        np.savez(path, pitch=np.concatenate(rows, axis=1), lengths=np.array([row.shape[1] for row in rows]))
    stored = np.load(path)
    return np.split(stored["pitch"], np.cumsum(stored["lengths"])[:-1], axis=1)


class TokenSegments:
    """Draws stretches of clips with their tokens and phones."""

    def __init__(
        self,
        corpus: Corpus,
        vectors: NDArray[np.float32],
        tokens: list[NDArray[np.int64]],
        pitch: list[NDArray[np.float32]],
        stage: Stage,
        hop: int,
    ) -> None:
        self.corpus, self.vectors, self.tokens, self.pitch = corpus, vectors, tokens, pitch
        self.hop, self.batch_size = hop, stage.batch
        self.frames = int(stage.segment_s * SAMPLE_RATE_HZ) // hop // 2 * 2
        self.picks = [
            i for i, clip in enumerate(corpus.clips) if "synthesizer" in clip.uses and clip.samples > 60 * hop
        ]
        self.weights = speaker_weights([corpus.clips[i] for i in self.picks])

    def batch(self, rng: np.random.Generator) -> Batch:
        picks = [self.picks[i] for i in rng.choice(len(self.picks), self.batch_size, p=self.weights)]
        rows = [self._row(pick, rng) for pick in picks]
        lengths = torch.tensor([row[1].shape[1] for row in rows])
        longest = int(lengths.max())
        texts = [torch.tensor(row[3]) for row in rows]

        def padded(row: NDArray[np.float32], size: int) -> Tensor:
            return F.pad(torch.from_numpy(np.ascontiguousarray(row)), (0, size - row.shape[-1]))

        return Batch(
            wave=torch.stack([padded(row[0], longest * self.hop) for row in rows]),
            lengths=lengths,
            pitch=torch.stack([padded(row[1], longest) for row in rows]),
            codes=torch.stack([padded(row[2], longest // 2) for row in rows])[:, None].long(),
            text=torch.nn.utils.rnn.pad_sequence(texts, batch_first=True),
            text_lengths=torch.tensor([len(text) for text in texts]),
            reference=torch.stack([padded(row[4], REFERENCE_FRAMES * self.hop) for row in rows]),
            speaker=torch.from_numpy(self.vectors[picks]),
        )

    def _row(self, pick: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats, list[int], Floats]:
        clip, hop = self.corpus.clips[pick], self.hop
        usable = min(clip.samples // hop, self.pitch[pick].shape[1], 2 * len(self.tokens[pick])) // 2 * 2
        frames = min(self.frames, usable)
        start = 2 * int(rng.integers(0, (usable - frames) // 2 + 1))
        wave = self.corpus.wave(clip) * 10 ** (rng.uniform(-5, 3) / 20)
        reference = int(rng.integers(0, max(usable - REFERENCE_FRAMES, 0) + 1))
        return (
            wave[start * hop : (start + frames) * hop],
            self.pitch[pick][:, start : start + frames],
            self.tokens[pick][start // 2 : (start + frames) // 2].astype(np.float32),
            symbol_ids(spoken_between(clip, start * hop / SAMPLE_RATE_HZ, (start + frames) * hop / SAMPLE_RATE_HZ)),
            np.resize(wave[reference * hop : (reference + REFERENCE_FRAMES) * hop], REFERENCE_FRAMES * hop),
        )


def spoken_between(clip: Clip, start_s: float, end_s: float) -> tuple[str, ...]:
    """Phones whose middle lies in a stretch; a full stop stands for speech without a transcript."""
    inside = [p.symbol for p in clip.phones if start_s < (p.start_s + p.end_s) / 2 < end_s]
    return tuple(inside) or NO_TEXT


def train_synthesizer(
    network: Synthesizer,
    segments: TokenSegments,
    held_out: TokenSegments,
    run: Run,
) -> None:
    """The stage `synthesizer`: prior, flow and speaker condition learn to predict the posterior's z."""
    losses = _Losses(network, WEIGHTS | run.stage.options, run.device)

    def forward(step: int, rng: np.random.Generator) -> Losses:
        return losses(segments.batch(rng))

    def evaluate(step: int) -> dict[str, float]:
        fixed = np.random.default_rng(0)
        return {name: float(value) for name, value in losses(held_out.batch(fixed)).items()}

    trained = [p for name, p in network.named_parameters() if not name.startswith(("dec.", "enc_q.", "ssl_proj."))]
    train(network, forward, run, parameters=trained, evaluate=evaluate, evaluate_every=250)


class _Losses:
    """Likelihood, and distance of the prior's mean from z."""

    def __init__(self, network: Synthesizer, weight: dict[str, float], device: torch.device) -> None:
        self.network, self.weight, self.device = network, weight, device
        self.spectrogram = Spectrogram(network.config.spectrogram).to(device)

    def __call__(self, batch: Batch) -> Losses:
        net, device = self.network, self.device
        spec = self.spectrogram(batch.wave.to(device))
        mask = length_mask(batch.lengths.to(device), spec.shape[2])
        ge = net.condition(self.spectrogram(batch.reference.to(device)), speaker=batch.speaker.to(device))
        with torch.no_grad():
            m_q, logs_q = net.enc_q.stats(spec, mask, ge, batch.pitch.to(device))
            z = (m_q + torch.randn_like(m_q) * logs_q.exp()) * mask
        m_p, logs_p = net.prior(
            net.token_frames(batch.codes.to(device)), mask, batch.text.to(device), batch.text_lengths.to(device), ge
        )
        parts = prior_losses(net, z, (m_q, logs_q), (m_p, logs_p), mask, ge)
        total = torch.stack([self.weight[name] * value for name, value in parts.items()]).sum()
        return {"loss": total, **parts}


@torch.no_grad()
def set_contrast(network: Synthesizer, segments: TokenSegments, channels: int, limit: float, seed: int) -> None:
    """Store how much less the prior's mean varies than speech, in the first channels after pitch and voicing.

    Speech predicted by its mean has flat formants; synthesis gives them back their height, as the variance
    compensation of statistical synthesis does. Training and fine-tuning go on with the mean as it is.
    """
    network.eval()
    rng, spectrogram = np.random.default_rng(seed), Spectrogram(network.config.spectrogram)
    means, wanted, predicted = list[Tensor](), list[Tensor](), list[Tensor]()
    for _ in range(CONTRAST_BATCHES):
        batch = segments.batch(rng)
        spec, mask = spectrogram(batch.wave), length_mask(batch.lengths, int(batch.lengths.max()))
        ge = network.condition(spectrogram(batch.reference), speaker=batch.speaker)
        mean, _ = network.prior(network.token_frames(batch.codes), mask, batch.text, batch.text_lengths, ge)
        latent, _ = network.enc_q.stats(spec, mask, ge, batch.pitch)
        real = mask[:, 0].bool()
        for rows, values in ((means, mean), (wanted, latent), (predicted, network.flow(mean, mask, ge, reverse=True))):
            rows.append(values.transpose(1, 2)[real])  # (B, Z, T) -> (frames, Z)
    ratio = torch.cat(wanted).std(0) / torch.cat(predicted).std(0)
    moved = slice(PITCH_CHANNELS, channels)
    network.prior_gain[moved, 0] = ratio[moved].clamp(max=limit)
    network.prior_centre[moved, 0] = torch.cat(means).mean(0)[moved]
