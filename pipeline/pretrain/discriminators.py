"""Last part of the synthesizer: the decoder learns to draw a sharp spectrum from a predicted latent.

A prior that is trained by distance predicts the mean of what could be said, and means of spectra are blurred. Two small
discriminators look at pictures of spectra, and the decoder learns to make predicted ones look like recorded ones. They
never see a wave: on a CPU that would cost ten times as much. All other parts of the synthesizer stay as they are.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from models.learners.discriminator import SpectrumDiscriminator
from models.learners.losses import MelLoss, StftLoss, discriminator_loss, feature_loss, generator_loss
from models.learners.prior_loss import AUDIBLE
from models.sound.harmonics import PITCH_CHANNELS
from models.sound.masks import length_mask
from models.sound.spectrogram import Spectrogram, compress, expand, float32_region, mel_filters
from models.synthesizer.vits import Synthesizer
from models.synthesizer.wave_heads import IstftDecoder
from pipeline.pretrain.loop import Losses, Run, train
from pipeline.pretrain.synthesizer import Batch, TokenSegments

COPIED_ROWS = 3  # of a batch are also decoded from the posterior, to a wave
LOW_BINS = 192  # up to 3 kHz, where single harmonics are seen
WEIGHTS = {
    "bands": 15.0,
    "adversarial": 1.0,
    "features": 1.0,
    "discriminator": 1.0,
    "copy": 20.0,
    "mel": 0.03,
    "stft": 0.004,
}


class Pictures(nn.Module):
    """Compressed magnitudes (B, F, T) -> what each discriminator sees, (B, 1, bands, T)."""

    bands: Tensor

    def __init__(self, network: Synthesizer) -> None:
        super().__init__()
        config = network.config
        frames = config.mel.model_copy(update=config.spectrogram.model_dump())
        filters = mel_filters(frames)
        self.register_buffer("bands", filters / filters.sum(1, keepdim=True), persistent=False)
        self.compression = config.magnitude

    def forward(self, compressed: Tensor) -> list[Tensor]:
        with float32_region(compressed):
            loud = torch.log(expand(compressed.float(), self.compression) + AUDIBLE)
            return [(self.bands @ loud)[:, None], loud[:, None, :LOW_BINS]]


class Judges(nn.Module):
    """One discriminator for every kind of picture."""

    def __init__(self) -> None:
        super().__init__()
        coarse, fine = ((2, 1), (2, 2), (2, 1), (1, 1)), ((3, 1), (2, 2), (2, 1), (1, 1))
        self.discriminators = nn.ModuleList([SpectrumDiscriminator(coarse), SpectrumDiscriminator(fine)])

    def forward(self, pictures: list[Tensor]) -> tuple[list[Tensor], list[list[Tensor]]]:
        judged = [judge(picture) for judge, picture in zip(self.discriminators, pictures, strict=True)]
        return [logits for logits, _ in judged], [maps for _, maps in judged]


class Contest(nn.Module):
    """Both sides in one module, so that one checkpoint holds them."""

    def __init__(self, synthesizer: Synthesizer) -> None:
        super().__init__()
        self.synthesizer, self.judges = synthesizer, Judges()


def train_discriminators(
    contest: Contest,
    segments: TokenSegments,
    held_out: TokenSegments,
    run: Run,
) -> None:
    """The stage `discriminators`: decoder and discriminators in turn, in one step each."""
    losses = _Losses(contest, WEIGHTS | run.stage.options, run.device)

    def forward(step: int, rng: np.random.Generator) -> Losses:
        return losses(segments.batch(rng), rng)

    def evaluate(step: int) -> dict[str, float]:
        fixed = np.random.default_rng(0)
        return {name: float(value) for name, value in losses(held_out.batch(fixed), fixed).items()}

    decoder = contest.synthesizer.dec
    trained = [p for name, p in decoder.named_parameters() if not name.startswith("skip.")]
    train(
        contest, forward, run,
        parameters=[*trained, *contest.judges.parameters()], evaluate=evaluate, evaluate_every=250,
    )  # fmt: skip


class _Losses:
    """What the decoder and its discriminators are told about one batch."""

    def __init__(self, contest: Contest, weight: dict[str, float], device: torch.device) -> None:
        self.contest, self.weight, self.device = contest, weight, device
        config = contest.synthesizer.config
        self.spectrogram = Spectrogram(config.spectrogram).to(device)
        self.pictures = Pictures(contest.synthesizer).to(device)
        self.mel, self.stft = MelLoss(config.mel).to(device), StftLoss().to(device)

    def __call__(self, batch: Batch, rng: np.random.Generator) -> Losses:
        network, judges = self.contest.synthesizer, self.contest.judges
        spec = self.spectrogram(batch.wave.to(self.device))
        predicted, known, ge = self._latents(batch, spec)
        decoder = network.dec
        assert isinstance(decoder, IstftDecoder)
        drawn = decoder.magnitude(predicted, ge)
        real = compress(spec, network.config.magnitude)
        shown = self.pictures(drawn)
        with torch.no_grad():
            wanted = self.pictures(real)
        real_logits, real_maps = judges(wanted)
        refused, _ = judges([picture.detach() for picture in shown])
        frozen = {name: value.detach() for name, value in judges.named_parameters()}
        logits, maps = functional_call(judges, frozen, (shown,))  # gradients for the decoder alone
        parts = {
            "bands": F.l1_loss(shown[0], wanted[0]),
            "adversarial": generator_loss(logits),
            "features": feature_loss(real_maps, maps),
            "discriminator": discriminator_loss(real_logits, refused),
            **self._copies(batch, known, real, ge, rng),
        }
        total = torch.stack([self.weight[name] * value for name, value in parts.items()]).sum()
        return {"loss": total, **parts}

    @torch.no_grad()
    def _latents(self, batch: Batch, spec: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents from tokens and text, but with the measured pitch; those of the recording; the condition."""
        network, device = self.contest.synthesizer, self.device
        modules = (network.enc_p, network.flow, network.ref_enc)
        for module in modules:
            module.eval()
        mask = length_mask(batch.lengths.to(device), spec.shape[2])
        ge = network.condition(self.spectrogram(batch.reference.to(device)), speaker=batch.speaker.to(device))
        known, _ = network.enc_q.stats(spec, mask, ge, batch.pitch.to(device))
        frames = network.token_frames(batch.codes.to(device))
        mean, _ = network.prior(frames, mask, batch.text.to(device), batch.text_lengths.to(device), ge)
        predicted = network.flow(mean * mask, mask, ge, reverse=True).float()
        predicted = torch.cat([known[:, :PITCH_CHANNELS], predicted[:, PITCH_CHANNELS:]], dim=1)
        return predicted * mask, known * mask, ge

    def _copies(self, batch: Batch, known: Tensor, real: Tensor, ge: Tensor, rng: np.random.Generator) -> Losses:
        """Recordings must still come back as they were: slices of the first rows, as far as the wave."""
        config = self.contest.synthesizer.config
        rows, size, hop = min(COPIED_ROWS, len(known)), config.segment_frames, config.spectrogram.hop_samples
        starts = [int(rng.integers(0, max(int(batch.lengths[row]) - size, 0) + 1)) for row in range(rows)]

        def cut(x: Tensor, unit: int = 1) -> Tensor:
            return torch.stack([x[row, ..., at * unit : (at + size) * unit] for row, at in enumerate(starts)])

        wave, magnitude = self.contest.synthesizer.dec.decode(cut(known), ge[:rows])
        assert magnitude is not None
        target = cut(batch.wave, hop).to(self.device)
        return {
            "copy": F.l1_loss(magnitude, cut(real)),
            "mel": self.mel(wave[:, 0], target),
            "stft": self.stft(wave[:, 0], target),
        }
