"""First part of the synthesizer: posterior encoder and decoder, from spectrogram to latent and back to a wave."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.learners.losses import MelLoss, StftLoss
from models.sound.spectrogram import Spectrogram, compress
from models.synthesizer.vits import Synthesizer
from pipeline.pretrain.augment import change_rate
from pipeline.pretrain.content import speaker_weights
from pipeline.pretrain.features import speaker_vector
from pipeline.pretrain.loop import CHECKPOINT, Losses, Run, train
from pipeline.pretrain.prepare import Corpus
from pipeline.pretrain.recipe import Stage

MARGIN_FRAMES = 8  # seen by the posterior on each side of what is decoded
REFERENCE_FRAMES = 100
PCA_CLIPS, PCA_FRAMES = 300, 100


class WaveSegments:
    """Draws stretches of sound with another stretch of the same clip as the reference."""

    def __init__(self, corpus: Corpus, vectors: NDArray[np.float32], stage: Stage, hop: int, frames: int) -> None:
        self.corpus, self.stage, self.hop, self.frames = corpus, stage, hop, frames
        pairs = [
            (clip, vector)
            for clip, vector in zip(corpus.clips, vectors, strict=True)
            if "synthesizer" in clip.uses and clip.samples > 2 * REFERENCE_FRAMES * hop * 0.6
        ]
        self.clips = [clip for clip, _ in pairs]
        self.vectors = np.stack([vector for _, vector in pairs])
        self.weights = speaker_weights(self.clips)

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Waves (B, N), references (B, N'), speaker vectors (B, 256)."""
        picks = rng.choice(len(self.clips), self.stage.batch, p=self.weights)
        length, reference = self.frames * self.hop, REFERENCE_FRAMES * self.hop
        waves: list[NDArray[np.float32]] = []
        references: list[NDArray[np.float32]] = []
        for pick in picks:
            clip = self.corpus.wave(self.clips[pick]) * 10 ** (rng.uniform(-6, 4) / 20)
            factor = float(np.exp(rng.uniform(-0.12, 0.12))) if rng.random() < 0.5 else 1.0
            for rows, size in ((waves, length), (references, reference)):
                start = rng.integers(0, len(clip) - int(size * factor) - 2)
                piece = clip[start : start + int(size * factor) + 2]
                rows.append(np.resize(piece if factor == 1.0 else change_rate(piece, factor), size))
        return (
            torch.from_numpy(np.stack(waves)),
            torch.from_numpy(np.stack(references)),
            torch.from_numpy(self.vectors[picks]),
        )


def start_from_pca(network: Synthesizer, corpus: Corpus, seed: int) -> float:
    """Set the linear paths of posterior and decoder from two seconds of some clips; the variance kept."""
    rng = np.random.default_rng(seed)
    spectrogram = Spectrogram(network.config.spectrogram)
    clips = [clip for clip in corpus.used_for("synthesizer") if clip.samples > PCA_FRAMES * 320]
    frames = []
    for pick in rng.choice(len(clips), min(PCA_CLIPS, len(clips)), replace=False):
        start = int(rng.integers(0, clips[pick].samples - PCA_FRAMES * 320 + 1))
        wave = corpus.wave(clips[pick])[start : start + PCA_FRAMES * 320]
        frames.append(spectrogram(torch.from_numpy(wave)[None])[0].T)
    return network.set_pca(torch.cat(frames))


def train_posterior(
    network: Synthesizer,
    corpus: Corpus,
    vectors: NDArray[np.float32],
    held_out: Corpus,
    run: Run,
) -> None:
    """The stage `posterior`: copy-synthesis with a small weight on the width of the latent."""
    config, stage, device = network.config, run.stage, run.device
    if not (run.folder / CHECKPOINT).exists():
        start_from_pca(network, corpus, run.seed)
    hop, frames = config.spectrogram.hop_samples, config.segment_frames + 2 * MARGIN_FRAMES
    segments = WaveSegments(corpus, vectors, stage, hop, frames)
    spectrogram, mel, stft = (
        Spectrogram(config.spectrogram).to(device),
        MelLoss(config.mel).to(device),
        StftLoss().to(device),
    )
    inner = slice(MARGIN_FRAMES, MARGIN_FRAMES + config.segment_frames)
    weight = {"mel": 45.0, "stft": 5.0, "magnitude": 20.0, "kl": 0.001} | stage.options

    def forward(step: int, rng: np.random.Generator) -> Losses:
        waves, references, speakers = (tensor.to(device) for tensor in segments.batch(rng))
        spec = spectrogram(waves)
        ge = network.condition(spectrogram(references), speaker=speakers)
        m_q, logs_q = network.enc_q.stats(spec, torch.ones_like(spec[:, :1]), ge)
        z = (m_q + torch.randn_like(m_q) * logs_q.exp())[:, :, inner]
        wave, magnitude = network.dec.decode(z, ge)
        target = waves[:, inner.start * hop : inner.stop * hop]
        kl = 0.5 * (m_q.square() + (2 * logs_q).exp() - 1 - 2 * logs_q).sum(1).mean()
        parts = {"mel": mel(wave[:, 0], target), "stft": stft(wave[:, 0], target), "kl": kl}
        if magnitude is not None:
            parts["magnitude"] = F.l1_loss(magnitude, compress(spec[:, :, inner], config.magnitude))
        return {"loss": torch.stack([weight[name] * value for name, value in parts.items()]).sum(), **parts}

    train(
        network, forward, run,
        parameters=trained_parameters(network),
        evaluate=lambda step: copy_synthesis_error(network, held_out),
    )  # fmt: skip


def trained_parameters(network: Synthesizer) -> list[torch.nn.Parameter]:
    """Posterior, decoder and speaker condition, without the linear paths of the PCA: moving those only breaks them."""
    children = (network.dec, network.enc_q, network.ref_enc, network.sv_emb, network.prelu)
    return [
        parameter for child in children for name, parameter in child.named_parameters() if not name.startswith("skip.")
    ]


@torch.no_grad()
def copy_synthesis_error(network: Synthesizer, corpus: Corpus) -> dict[str, float]:
    """L1 of log mels over every fifth held-out clip, whole clips through posterior and decoder."""
    spectrogram, mel = Spectrogram(network.config.spectrogram), MelLoss(network.config.mel)
    errors = []
    for clip in corpus.clips[::5]:
        wave = torch.from_numpy(corpus.wave(clip))
        spec = spectrogram(wave[None])
        vector = torch.from_numpy(speaker_vector(corpus.wave(clip)))
        generated = network.copy_synthesis(spec, network.condition(spec, speaker=vector[None]), rounds=3)[:, 0]
        errors.append(float(mel(generated, wave[None, : generated.shape[1]])))
    return {"mel": sum(errors) / len(errors)}
