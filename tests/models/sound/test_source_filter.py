"""Speech of a predicted latent gets phases that belong together, and keeps its pitch, its noise and its words' place."""

from pathlib import Path

import pytest
import torch

from models.configs.synthesizer import SpectrogramConfig
from models.encoders.ge2e import embed_speaker
from models.loading.bases import load_base
from models.loading.networks import load_content_encoder, load_synthesizer, load_text2semantic
from models.sound.harmonics import Harmonics
from models.sound.pitch import PitchTracker
from models.sound.source_filter import SourceFilter, sharpen
from models.sound.spectrogram import InverseSpectrogram, Spectrogram, expand
from models.text2semantic.transcribed import follow_text
from pipeline.io.audio import read_audio
from pipeline.signal.dnsmos import measure_dnsmos
from pipeline.signal.speaker import speaker_mel
from pipeline.text.frontend import phonemize
from pipeline.text.symbols import symbol_ids

pytestmark = pytest.mark.slow

FRAMES = SpectrogramConfig(sample_rate_hz=16000, n_fft=1024, win_samples=1024, hop_samples=320)


def drawn(z: torch.Tensor, envelope: torch.Tensor) -> torch.Tensor:
    magnitude, phase = SourceFilter(FRAMES)(Harmonics(FRAMES), z, envelope)
    torch.testing.assert_close(phase.abs(), torch.ones_like(magnitude), atol=1e-2, rtol=0)
    return InverseSpectrogram(FRAMES)(magnitude, phase, 0, 0.0)


def flat_latent(voicing: float, frames: int = 60) -> torch.Tensor:
    z = torch.zeros(1, 4, frames)
    z[:, 0] = torch.linspace(-0.8, 0.8, frames)  # a pitch that glides through a fifth and more
    z[:, 1] = voicing
    return z


def test_a_gliding_pitch_is_heard_as_it_was_asked_for():
    z = flat_latent(1.0)
    track = PitchTracker(FRAMES)(drawn(z, torch.ones(1, 513, 60)))
    wanted = Harmonics(FRAMES).split(z)[0].log()[0, 0]
    inner = slice(5, 55)
    assert (track.voicing[0, inner] > 0.5).all()
    assert (track.log_f0[0, inner] - wanted[inner]).abs().median() * 1731 < 20  # cents


def test_what_is_unvoiced_has_no_pitch():
    track = PitchTracker(FRAMES)(drawn(flat_latent(-1.0), torch.ones(1, 513, 60)))
    assert (track.voicing > 0.5).float().mean() < 0.1


def test_rows_of_a_batch_do_not_touch_each_other():
    z = torch.cat([flat_latent(1.0), flat_latent(-1.0)])
    envelope = torch.rand(2, 513, 60, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn(z, envelope)[:1], drawn(z[:1], envelope[:1]))


def test_sharpening_raises_formants_and_leaves_silence_and_flat_sound():
    flat = torch.ones(1, 513, 3)
    torch.testing.assert_close(sharpen(flat), flat)
    assert sharpen(flat * 0).abs().max() == 0
    hill = 1 + 4 * torch.exp(-(((torch.arange(513.0) - 200) / 10) ** 2))[None, :, None]
    sharpened = sharpen(hill)
    assert sharpened[0, 200, 0] > 1.1 * hill[0, 200, 0] and sharpened[0, 225, 0] < hill[0, 225, 0]


@pytest.fixture(scope="module")
def nano():
    base = load_base("nano")
    cache = Path("none")  # every weight lies in the repository
    return load_synthesizer(base, cache), load_content_encoder(base, cache), load_text2semantic(base, cache).guide


@torch.no_grad()
def test_speech_of_predicted_latents_scores_higher_than_with_griffin_lim_rounds(nano, shared):
    synthesizer, content, guide = nano
    voice, spectrogram = shared / "data" / "voices" / "en_vctk_p226", Spectrogram(FRAMES)
    rows = [line.split("|") for line in (voice / "metadata.csv").read_text(encoding="utf-8").splitlines()[2:5]]
    waves = [torch.from_numpy(read_audio(voice / row[0]).mono) for row in rows]
    vector = embed_speaker(torch.from_numpy(speaker_mel(waves[0].numpy())))
    ge = synthesizer.condition(spectrogram(waves[0][None]), speaker=vector[None])
    source, gains = synthesizer.dec.source, []
    for wave, (_, language, text) in zip(waves, rows, strict=True):
        phones = torch.tensor(symbol_ids(phonemize(text, language).symbols))
        heard = content(wave[None])[0]
        said = follow_text(heard[:, : heard.shape[1] // 2 * 2], phones, guide, 2)
        codes = synthesizer.extract_tokens(said[None])
        spoken = synthesizer.decode(codes, phones[None], ge)[0, 0].numpy()
        synthesizer.dec.source = None
        rough = synthesizer.decode(codes, phones[None], ge)[0, 0].numpy()
        synthesizer.dec.source = source
        gains.append(measure_dnsmos(spoken, hop_s=5).ovr - measure_dnsmos(rough, hop_s=5).ovr)
    assert source is not None and sum(gains) / len(gains) > 0.1, gains


@torch.no_grad()
def test_a_copy_keeps_the_better_of_two_starts(nano, shared):
    synthesizer = nano[0]
    decoder, source = synthesizer.dec, synthesizer.dec.source
    gains = []
    for path in sorted((shared / "data/voices/en_vctk_p226/wavs").iterdir())[:3]:
        wave = torch.from_numpy(read_audio(path).mono[:48000])
        spec = Spectrogram(FRAMES)(wave[None])
        ge = synthesizer.condition(spec, speaker=embed_speaker(torch.from_numpy(speaker_mel(wave.numpy())))[None])
        z = synthesizer.enc_q.stats(spec, torch.ones_like(spec[:, :1]), ge)[0]
        magnitude = expand(decoder.magnitude(z, ge), decoder.compression)
        copy = synthesizer.copy_synthesis(spec, ge)
        decoder.source = None
        alone = synthesizer.copy_synthesis(spec, ge)
        decoder.source = source
        gains.append(float(decoder.inverse.misfit(alone[0], magnitude) - decoder.inverse.misfit(copy[0], magnitude)))
    assert min(gains) >= 0 and max(gains) > 1e-4, gains
