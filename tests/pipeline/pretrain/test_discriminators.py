"""What makes a predicted spectrum sharp: stored contrast, and discriminators that teach the decoder."""

import numpy as np
import pytest
import torch

from models.configs.synthesizer import (
    IstftDecoderConfig,
    MagnitudeConfig,
    MelConfig,
    SpectrogramConfig,
    SynthesizerConfig,
)
from models.sound.harmonics import PITCH_CHANNELS, pitch_latent
from models.sound.pitch import PitchTracker
from models.sound.spectrogram import Spectrogram, compress, expand
from models.synthesizer.tokens import TrainingBatch
from models.synthesizer.vits import NO_NOISE, Synthesizer
from pipeline.pretrain.discriminators import Contest, Pictures, train_discriminators
from pipeline.pretrain.loop import Run, load_network
from pipeline.pretrain.recipe import Stage
from pipeline.pretrain.synthesizer import Batch, set_contrast

FRAMES = SpectrogramConfig(sample_rate_hz=16000, n_fft=512, win_samples=512, hop_samples=160)
CONFIG = SynthesizerConfig(
    spectrogram=FRAMES, mel=MelConfig(**FRAMES.model_dump(), n_mels=20), segment_frames=8, ssl_dim=6, codebook_size=16,
    inter_channels=16, hidden_channels=16, filter_channels=16, n_layers=2, mrte_hidden=16, mrte_heads=2,
    style_bins=64, style_hidden=16, gin_channels=16, speaker_dim=8, posterior_layers=1, flow_steps=1, flow_layers=1,
    magnitude=MagnitudeConfig(kind="soft_log", floor=1.0), posterior_skip=True, pitch=True, prior_contrast=True,
    decoder=IstftDecoderConfig(
        channels=16, hidden_channels=16, n_blocks=1, griffin_lim_rounds_training=1, griffin_lim_rounds_synthesis=2
    ),
)  # fmt: skip


class Tones:
    """Batches of two buzzing tones under noise, in place of a corpus."""

    def batch(self, rng: np.random.Generator) -> Batch:
        time = torch.arange(40 * 160) / 16000
        pitch_hz = torch.tensor(rng.uniform(90, 220, 2)).float()[:, None]
        buzz = sum(torch.sin(2 * torch.pi * k * pitch_hz * time) / k for k in range(1, 12))
        wave = 0.1 * buzz + 0.01 * torch.from_numpy(rng.standard_normal((2, len(time)))).float()
        return Batch(
            wave=wave,
            lengths=torch.tensor([40, 40]),
            pitch=pitch_latent(PitchTracker(FRAMES)(wave)),
            codes=torch.from_numpy(rng.integers(0, 16, (2, 1, 20))),
            text=torch.from_numpy(rng.integers(1, 30, (2, 5))),
            text_lengths=torch.tensor([5, 5]),
            reference=wave,
            speaker=torch.from_numpy(rng.standard_normal((2, 8))).float(),
        )


@pytest.fixture
def network() -> Synthesizer:
    torch.manual_seed(0)
    made = Synthesizer(CONFIG)
    wave = Tones().batch(np.random.default_rng(1)).wave
    made.set_pca(Spectrogram(FRAMES)(wave).transpose(1, 2).flatten(0, 1))
    return made


def test_discriminators_teach_the_decoder_and_nothing_else(network, tmp_path):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    contest = Contest(network)
    judged = [p.clone() for p in contest.judges.parameters()]
    stage = Stage(steps=3, batch=2, lr=1e-3, warmup_steps=1)
    train_discriminators(contest, Tones(), Tones(), Run(stage, tmp_path, 0, torch.device("cpu")))
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("dec.to_magnitude") for name in moved)
    assert all(name.startswith("dec.") and not name.startswith("dec.skip") for name in moved)
    assert any(not torch.equal(old, new) for old, new in zip(judged, contest.judges.parameters(), strict=True))
    again = Synthesizer(CONFIG)
    assert load_network(again, tmp_path, "synthesizer.") == 3
    assert torch.equal(again.dec.to_magnitude.weight, network.dec.to_magnitude.weight)


def test_pictures_show_a_spectrum_at_two_scales(network):
    spec = Spectrogram(FRAMES)(Tones().batch(np.random.default_rng(2)).wave)
    bands, low = Pictures(network)(compress(spec, CONFIG.magnitude))
    assert bands.shape == (2, 1, 20, 40) and low.shape == (2, 1, 192, 40)
    assert bands.amax() <= low.amax()  # a mean over a band is no higher than its highest bin


@torch.no_grad()
def test_contrast_spreads_the_prior_to_the_variance_of_speech_within_its_limit(network):
    set_contrast(network, Tones(), channels=10, limit=1.5, seed=0)
    gain = network.prior_gain[:, 0]
    assert (gain[:PITCH_CHANNELS] == 1).all() and (gain[10:] == 1).all()
    assert (gain[PITCH_CHANNELS:10] <= 1.5).all() and (gain[PITCH_CHANNELS:10] != 1).any()


@torch.no_grad()
def test_contrast_is_heard_at_synthesis_and_not_seen_in_training(network):
    batch = Tones().batch(np.random.default_rng(3))
    network.eval()
    spec = Spectrogram(FRAMES)(batch.wave)
    ge = network.condition(spec, speaker=batch.speaker)
    noise, uniform = torch.zeros(2, 16, 40), torch.zeros(2)

    def trained():
        out = network(
            TrainingBatch(spec, batch.lengths, batch.text, batch.text_lengths, batch.codes),
            ge=ge,
            noise=noise,
            uniform=uniform,
        )
        return out.m_p

    def spoken():
        return network.decode(batch.codes, batch.text, ge, NO_NOISE)

    mean, plain = trained(), spoken()
    network.prior_gain[4:8] = 2.0
    assert torch.equal(trained(), mean)
    assert not torch.allclose(spoken(), plain, atol=1e-3)


def test_a_soft_logarithm_comes_back_and_ignores_what_is_far_below_its_floor():
    config = MagnitudeConfig(kind="soft_log", floor=1.0)
    magnitude = torch.tensor([0.0, 1e-3, 0.5, 3.0, 100.0])
    torch.testing.assert_close(expand(compress(magnitude, config), config), magnitude, atol=1e-5, rtol=1e-4)
    assert compress(magnitude, config)[1] < 2e-3
