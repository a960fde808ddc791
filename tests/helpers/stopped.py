"""A voice that walked up to the gate on a small base of random numbers, which must stop it there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from models.clip_tensors import ClipTensors, unpack_clips
from models.loading.bases import Base, load_base
from models.loading.family import family_of
from models.loading.voices import AdapterFolders
from pipeline.cli.main import run_command
from pipeline.io.audio import read_at_rates


@dataclass(frozen=True)
class Stopped:
    """What the walk left."""

    base: Base
    work: Path
    exit_code: int

    def folder(self, stage: str) -> Path:
        (found,) = (path.parent for path in (self.work / "ana" / stage).glob("*/result.json"))
        return found

    def record(self, stage: str) -> dict[str, Any]:
        return json.loads((self.folder(stage) / "result.json").read_text())["output"]

    def clip(self, index: int) -> ClipTensors:
        clip = self.record("extract")["clips"][index]
        at = read_at_rates(self.folder("validate") / clip["file"])
        extracted, _ = unpack_clips(self.folder("extract") / "features.safetensors")
        recordings = family_of(self.base).recordings(self.base, torch.device("cpu"))
        return recordings.complete(extracted[index], at, clip["frames"])

    @property
    def adapters(self) -> AdapterFolders:
        folder = self.folder("finetune") / "adapter"
        return AdapterFolders.inside(folder)


def describe_base(folder: Path, changes: Mapping[str, Any], without: tuple[str, ...] = ("synthesizer",)) -> None:
    """Make the tiny base in a folder one of another family."""
    described = yaml.safe_load((folder / "base.yaml").read_text())
    kept = {key: value for key, value in described.items() if key not in without}
    (folder / "base.yaml").write_text(yaml.safe_dump(kept | changes))


def walk(root: Path, judged: Path) -> Stopped:
    """`voxline run` on the voice ``ana`` in a repository; `judged`: one where its recordings were validated already."""
    shutil.copytree(judged / "work" / "ana" / "validate", root / "work" / "ana" / "validate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        code = run_command(["run", "ana"])
    return Stopped(load_base("tiny", root / "bases"), root / "work", code)
