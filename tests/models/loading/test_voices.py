from pathlib import Path

import pytest
import torch

from models.adapters.lora import inject, save_adapter
from models.configs.text2semantic import SamplingConfig, Text2SemanticConfig
from models.errors import WeightsError
from models.families.vits import load_synthesizer
from models.loading.bases import Base, License, load_base
from models.loading.networks import load_text2semantic
from models.loading.voices import AdapterFolders, load_voice
from models.machine.processor import ProcessorError, works
from models.speaking.options import PRECISIONS, Precision, VoiceOptions, choose_options
from models.speaking.voice import Manner, Reference, Sentence

pytestmark = [pytest.mark.processor, pytest.mark.slow]

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base() -> Base:
    """A base without files: every network starts from its own fixed random numbers."""
    return Base.model_validate(
        {
            "name": "tiny",
            "family": "v2",
            "sample_rate_hz": 16000,
            "hop_samples": 320,
            "license": License(name="none"),
            "folder": Path(),
            "synthesizer": {
                "spectrogram": {"sample_rate_hz": 16000, "n_fft": 640, "win_samples": 640, "hop_samples": 320},
                "ssl_dim": 43, "codebook_size": 16, "n_symbols": 40, "mrte_hidden": 16, "mrte_heads": 2,
                "style_bins": 321, "style_hidden": 8, "gin_channels": 16, "inter_channels": 8, "hidden_channels": 8,
                "filter_channels": 16, "n_layers": 2,
                "decoder": {"kind": "hifigan", "upsample_rates": [10, 8, 4], "upsample_kernel_sizes": [20, 16, 8],
                            "upsample_initial_channel": 32},
            },
            "text2semantic": Text2SemanticConfig(
                phoneme_vocab_size=40, vocab_size=17, hidden_dim=32, heads=2, layers=2, feedforward_dim=64, bert_dim=0
            ),
            "content": {"kind": "phones", "channels": 32, "feedforward": 32, "layers": 1, "front_blocks": 1},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def folders(base: Base, tmp_path_factory: pytest.TempPathFactory) -> AdapterFolders:
    root = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    for name, network in (
        ("text2semantic", load_text2semantic(base, root)),
        ("synthesizer", load_synthesizer(base, root)),
    ):
        inject(network, network.adaptable_modules(), rank=2)
        with torch.no_grad():
            for key, parameter in network.named_parameters():
                if "lora_B" in key:
                    parameter.normal_(std=0.3)
        save_adapter(network, root / name, base.name)
    return AdapterFolders.inside(root)


def said(
    base: Base, adapters: AdapterFolders, options: VoiceOptions | None = None
) -> tuple[tuple[int, ...], torch.Tensor]:
    torch.manual_seed(5)
    reference = Reference(torch.randn(16000) * 0.1, 16000, torch.arange(10))
    voice = load_voice(base, Path(), CPU, adapters, options)
    sampling = SamplingConfig(top_k=10, max_tokens=30, min_tokens=30)
    speech = voice.speak([Sentence(torch.arange(5, 25))], reference, Manner(seed=3, sampling=sampling, attempts=1))
    return speech.sentences[0].attempts[-1].tokens, speech.wave


def assert_refused(base: Base, precision: Precision) -> None:
    with pytest.raises(ProcessorError, match=precision):
        choose_options(precision, CPU)
    with pytest.raises(ProcessorError, match=precision):
        load_voice(base, Path(), CPU, options=PRECISIONS[precision])


def test_each_adapter_changes_what_it_should(base, folders):
    tokens, wave = said(base, AdapterFolders())
    assert tokens == said(base, AdapterFolders())[0]
    other_tokens, _ = said(base, AdapterFolders(text2semantic=folders.text2semantic))
    assert other_tokens != tokens
    same_tokens, other_wave = said(base, AdapterFolders(synthesizer=folders.synthesizer))
    assert same_tokens == tokens
    assert not torch.allclose(other_wave, wave, atol=1e-3)


def test_lighter_weights_are_only_taken_when_asked_for(base, folders):
    exact, _ = said(base, folders)
    assert exact == said(base, folders, VoiceOptions())[0]
    _, light = said(base, folders, choose_options("int8", CPU)[0])
    assert light.isfinite().all()
    assert not torch.equal(light, said(base, folders)[1])


def test_an_adapter_of_another_network_is_named(base, folders):
    with pytest.raises(WeightsError, match="adapter"):
        load_voice(base, Path(), CPU, AdapterFolders(text2semantic=folders.synthesizer))


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_the_base_in_the_repository_takes_lighter_weights_and_keeps_its_decoder(precision, tmp_path):
    if not works(precision):
        return assert_refused(load_base("nano"), precision)
    voice = load_voice(load_base("nano"), tmp_path, CPU, options=choose_options(precision, CPU)[0])
    assert voice.decoder.weights == precision
    sampling = SamplingConfig(top_k=10, max_tokens=30, min_tokens=30)
    reference = Reference(torch.randn(16000) * 0.1, 16000, torch.arange(10), speaker=torch.ones(256) / 16)
    wave = voice.speak(
        [Sentence(torch.arange(100, 112))], reference, Manner(seed=3, sampling=sampling, attempts=1)
    ).wave
    assert wave.isfinite().all() and len(wave) > 3200


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_lighter_precisions_are_used_when_they_are_asked_for_and_sound_alike(base, precision):
    if not works(precision):
        return assert_refused(base, precision)
    options, _ = choose_options(precision, CPU)
    voice = load_voice(base, Path(), CPU, options=options)
    assert voice.decoder.weights == precision
    exact, lighter = (
        load_voice(base, Path(), CPU, options=VoiceOptions(wave_precision=wave))
        for wave in ("f32", options.wave_precision)
    )
    torch.manual_seed(5)
    reference = Reference(torch.randn(16000) * 0.1, 16000, torch.arange(10))
    sampling = SamplingConfig(top_k=10, max_tokens=30, min_tokens=30)
    waves = [
        made.speak([Sentence(torch.arange(5, 25))], reference, Manner(seed=3, sampling=sampling, attempts=1)).wave
        for made in (exact, lighter)
    ]
    error = (waves[0] - waves[1]).square().mean() / waves[0].square().mean()
    assert 0 < error < 0.01 if options.wave_precision == "bf16" else error == 0
