"""Deliberately bad voices at nano's gate: each is blocked, and for the reason that it should be."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import models.speaking.voice
from models.adapters.lora import is_adapted
from models.encoders.ge2e import embed_speaker
from models.loading.bases import find_base, load_base
from models.speaking.fargan import FarganResynthesizer
from models.speaking.voice import Reference
from models.text2semantic.decoding import Decoder
from pipeline.cli.line import open_workspace
from pipeline.io.audio import read_audio
from pipeline.line.walk import run_until
from pipeline.records.feature import FEATURES_FILE
from pipeline.records.job import Input, Job, Machine
from pipeline.records.quality import QualityReport
from pipeline.records.settings import EvaluateSettings, Settings
from pipeline.signal import quality
from pipeline.signal.speaker import speaker_mel
from pipeline.stages.evaluate import stage, studio
from pipeline.stages.evaluate.floors import gate_floors

pytestmark = pytest.mark.slow

SPEAKER, SOMEBODY_ELSE = "en_vctk_p226", "en_libri_2609/wavs/2609-156975-0003.flac"


class Silent:
    """A reporter that shows nothing."""

    def track(self, items, *, description, total=None):
        return items

    def log(self, message):
        pass


@pytest.fixture(scope="module")
def trained(shared, repository, tmp_path_factory) -> dict[str, Input]:
    """A speaker that nano never met, imported and fine-tuned as a user would."""
    from pipeline.cli.main import run_command

    root, before = tmp_path_factory.mktemp("bad"), Path.cwd()
    settings = (repository / "pipeline.toml").read_text(encoding="utf-8")
    (root / "pipeline.toml").write_text(settings + "\n[finetune]\nepochs = 3\nheldout_clips = 1\n", encoding="utf-8")
    os.chdir(root)
    try:
        consent = ["--license", "CC-BY-4.0", "--consent-speaker", "Somebody", "--consent-date", "2026-01-09"]
        source = str(shared / "data" / "voices" / SPEAKER)
        assert run_command(["import", source, "--name", "ben", "--language", "en", *consent]) == 0
        outcomes = run_until(open_workspace("ben", {}, Silent()), "finetune")
        return {name: outcome.as_input() for name, outcome in outcomes.items()}
    finally:
        os.chdir(before)


@pytest.fixture(scope="module", autouse=True)
def computed_once() -> Iterator[None]:
    """What several of these voices have in common is computed once: resyntheses and how near they come, tokens to say.

    Whether it is the same, every weight and every number that goes in says.
    """
    kept: dict[bytes, Any] = {}

    def once(function: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*arguments: Any) -> Any:
            question = hashlib.sha256(function.__name__.encode())
            for part in numbers_of(arguments):
                question.update(part)
            if question.digest() not in kept:
                kept[question.digest()] = function(*arguments)
            return kept[question.digest()]

        return asked

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FarganResynthesizer, "copy", once(FarganResynthesizer.copy))
        patch.setattr(FarganResynthesizer, "speak", once(FarganResynthesizer.speak))
        patch.setattr(models.speaking.voice, "generate_checked", once(models.speaking.voice.generate_checked))
        patch.setattr(quality, "mel_cepstral_distortion", once(quality.mel_cepstral_distortion))
        yield


def numbers_of(thing: Any) -> Iterator[bytes]:
    """Everything that a network, a decoder, a clip or a plain value is made of."""
    if isinstance(thing, torch.Tensor):
        yield f"{thing.dtype}{list(thing.shape)}".encode()
        yield thing.detach().numpy().tobytes()
    elif isinstance(thing, np.ndarray):
        yield from numbers_of(torch.from_numpy(thing))
    elif isinstance(thing, torch.nn.Module):
        yield str([module.disable_adapters for module in thing.modules() if is_adapted(module)]).encode()
        for name, value in sorted(thing.state_dict().items()):
            yield name.encode()
            yield value.double().sum().numpy().tobytes()
    elif isinstance(thing, FarganResynthesizer | Decoder):
        yield from numbers_of(thing.network)
    elif is_dataclass(thing):
        for field in fields(thing):
            yield from numbers_of((field.name, getattr(thing, field.name)))
    elif isinstance(thing, list | tuple):
        for one in thing:
            yield from numbers_of(one)
    else:
        yield repr(thing).encode()


@pytest.fixture
def judge(trained, tmp_path) -> Callable[..., QualityReport]:
    """The stage evaluate, over inputs that a test may have spoilt."""

    def judge(base: str = "nano", bases: Path | None = None, **inputs: Input) -> QualityReport:
        nano = load_base("nano")
        limits = {"floors": gate_floors(Settings(), nano), "waived": sorted(nano.gate.waived)}
        parameters = {"base": base, "language": "en", "version": "0" * 12, **limits}
        job = Job(
            voice="ben",
            key="0" * 32,
            voice_folder=tmp_path,
            settings=EvaluateSettings(sentences=3),
            inputs={**trained, **inputs},
            parameters=parameters,
            folder=tmp_path,
            checkpoint=tmp_path,
            reporter=Silent(),
            is_stopping=lambda: False,
            machine=Machine(device="cpu", threads=1, bases=bases or tmp_path),
        )
        return stage.work(job)

    return judge


def blocking(report: QualityReport) -> set[str]:
    return {check.id for check in report.checks if check.blocks}


def speaking(monkeypatch, change: Callable[[Any], None]) -> None:
    """Voices are changed in this way before they speak free sentences."""
    load = studio.load_voice

    def changed(*arguments: Any) -> Any:
        voice = load(*arguments)
        change(voice)
        return voice

    monkeypatch.setattr(studio, "load_voice", changed)


def test_a_good_voice_passes(judge) -> None:
    report = judge()
    assert report.passed, report.reasons


def test_a_voice_that_sounds_like_somebody_else_is_blocked(judge, monkeypatch, shared) -> None:
    audio = read_audio(shared / "data" / "voices" / SOMEBODY_ELSE)
    wave = torch.from_numpy(audio.mono)
    vector = embed_speaker(torch.from_numpy(speaker_mel(audio.mono)))
    other = Reference(wave, audio.sample_rate_hz, speaker=vector)

    def become(voice: Any) -> None:
        speak = voice.speak
        voice.speak = lambda sentences, reference, manner: speak(sentences, other, manner)

    speaking(monkeypatch, become)
    assert "free_speech.similarity" in blocking(judge())


def test_a_voice_that_says_its_tokens_in_random_order_is_blocked(judge, monkeypatch) -> None:
    def scramble(voice: Any) -> None:
        render = voice.renderer.render

        def scrambled(tokens: torch.Tensor, said: Any) -> torch.Tensor:
            return render(tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))], said)

        voice.renderer.render = scrambled

    speaking(monkeypatch, scramble)
    assert "free_speech.phone_errors" in blocking(judge())


def test_a_voice_that_learned_from_scrambled_tokens_is_blocked(judge, trained, tmp_path) -> None:
    spoilt = shutil.copytree(trained["extract"].folder, tmp_path / "spoilt")
    tensors = load_file(spoilt / FEATURES_FILE)
    for number, name in enumerate([name for name in tensors if name.endswith(".tokens")]):
        order = np.random.default_rng(number).permutation(len(tensors[name]))
        tensors[name] = tensors[name][torch.from_numpy(order)].contiguous()
    save_file(tensors, spoilt / FEATURES_FILE)
    assert "resynthesis.tokens_matter" in blocking(judge(extract=Input(trained["extract"].record, spoilt)))


def test_a_base_whose_synthesizer_is_random_numbers_is_blocked_by_every_ear(judge, tmp_path) -> None:
    folder = tmp_path / "bases" / "untrained"
    shutil.copytree(load_base("nano").folder, folder)
    card = (folder / "base.yaml").read_text().replace("name: nano\n", "name: untrained\n", 1)
    (folder / "base.yaml").write_text(card.replace("  synthesizer: {path: synthesizer.safetensors}\n", ""))
    assert find_base("untrained", folder.parent).random_roles == ("synthesizer",)
    found = blocking(judge("untrained", folder.parent))
    assert {"base.trained", "free_speech.similarity", "free_speech.dnsmos_ovr"} <= found
