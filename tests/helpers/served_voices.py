"""Voices for a server without an hour of training: random adapters on a small random base, really published."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from models.adapters.lora import CONFIG_FILE, FILE_PREFIX, WEIGHTS_FILE
from models.loading.bases import Base, find_base
from models.loading.family import family_of
from models.loading.networks import load_text2semantic
from pipeline.io.registry.registry import Registry
from pipeline.records.reference import REFERENCE_AUDIO, REFERENCE_RECORD, ReferenceClip
from pipeline.records.release import Release, release_version
from pipeline.records.voice import Consent
from pipeline.text.frontend import phonemize

RANK = 2
DIGEST = "0123456789abcdef" * 4


def adapter_files(network: torch.nn.Module, folder: Path, seed: int, strength: float) -> dict[str, Path]:
    """A random adapter for a network, in peft's files."""
    chance, state, modules = torch.Generator().manual_seed(seed), {}, dict(network.named_modules())
    targets = network.adaptable_modules()
    for name in targets:
        n_out, n_in, *kernel = modules[name].weight.shape
        a, b = (RANK, n_in, *kernel), (n_out, RANK, *(1 for _ in kernel))
        state[f"{FILE_PREFIX}{name}.lora_A.weight"] = torch.randn(a, generator=chance) * strength
        state[f"{FILE_PREFIX}{name}.lora_B.weight"] = torch.randn(b, generator=chance) * strength
    folder.mkdir(parents=True)
    save_file(state, folder / WEIGHTS_FILE)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": targets}
    (folder / CONFIG_FILE).write_text(json.dumps({**config, "base_model_name_or_path": "tiny"}))
    return {name: folder / name for name in (WEIGHTS_FILE, CONFIG_FILE)}


def publish_voice(
    registry: Registry, root: Path, repository: Path, voice: str, seed: int, channel: str = "production", **changes: Any
) -> Release:
    """A voice on base `tiny` of the repository at `root`, different for every seed, with a clip of the sample voice."""
    base = find_base("tiny", root / "bases", ())
    folder = root / "staged" / f"{voice}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    files = {}
    synthesizer = family_of(base).network(base, root)
    for role, network in (("text2semantic", load_text2semantic(base, root)), ("synthesizer", synthesizer)):
        made = adapter_files(network, folder / role, seed, 0.2)
        files |= {f"adapter/{role}/{name}": path for name, path in made.items()}
    files |= {f"reference/{path.name}": path for path in reference_files(base, repository, folder, seed)}
    content = f"{seed:064x}"
    told = {
        "voice": voice,
        "version": release_version(content, base.digest, DIGEST),
        "created_at": datetime(2026, 1, 10, tzinfo=UTC),
        "base": "tiny",
        "content_digest": content,
        "base_digest": base.digest,
        "recipe_digest": DIGEST,
        "language": "en",
        "license": "CC0-1.0",
        "copyright_notice": f"Generated speech, {voice}",
        "consent": Consent(speaker="synthetic", granted_on="2026-01-09", scope=("tests",)),
        **changes,
    }
    return registry.publish(voice, Release.model_validate(told), files, channel=channel, actor="Ana Perez")


def reference_files(base: Base, repository: Path, folder: Path, seed: int) -> list[Path]:
    """The sample voice's first clip as a release holds it."""
    sample = repository / "voices" / "sample"
    name, _, text = (sample / "metadata.csv").read_text().splitlines()[1].partition(",")
    shutil.copy(sample / name, folder / REFERENCE_AUDIO)
    width = base.synthesizer.speaker_dim if base.synthesizer else None
    speaker = torch.randn(width or 1, generator=torch.Generator().manual_seed(seed)).tolist()
    record = ReferenceClip(
        clip=name,
        text=text.strip('"'),
        language="en",
        symbols=phonemize(text.strip('"'), "en").symbols,
        sample_rate_hz=16000,
        duration_s=3.0,
        speaker=tuple(speaker) if width else None,
    )
    (folder / REFERENCE_RECORD).write_text(record.model_dump_json())
    return [folder / REFERENCE_AUDIO, folder / REFERENCE_RECORD]
