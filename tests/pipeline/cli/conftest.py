"""A voice walked up to its gate once, and copies of it that tests may spoil."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from pipeline.cli.main import run_command
from pipeline.signal import gate


class Walk:
    """What lies in the work folder of voice ``ana``."""

    stages = ("validate", "extract", "finetune", "evaluate")

    def finished(self, root: Path, stage: str) -> list[str]:
        """What can be seen of a stage: its complete folders, and nothing half-written beside them."""
        folder = root / "work" / "ana" / stage
        entries = [path for path in folder.glob("*") if path.suffix not in (".lock", ".partial")]
        assert all((path / "result.json").is_file() for path in entries)
        return sorted(path.name for path in entries)

    def results(self, root: Path) -> dict[str, list[str]]:
        return {stage: self.finished(root, stage) for stage in self.stages}

    def forget(self, root: Path, *stages: str) -> None:
        for stage in stages:
            subprocess.run(["rm", "-rf", str(root / "work" / "ana" / stage)], check=True)

    def forget_from(self, root: Path, stage: str) -> None:
        self.forget(root, *self.stages[self.stages.index(stage) :])

    def bring_back_after(self, stage: str, source: Path, root: Path) -> dict[Path, bytes]:
        """Put the later stages of ``source`` into ``root``; their results, by path.

        A later stage is only found there, and its result left as it is, where it read the very bytes that lie there.
        """
        results: dict[Path, bytes] = {}
        for later in self.stages[self.stages.index(stage) + 1 :]:
            folder = shutil.copytree(source / "work" / "ana" / later, root / "work" / "ana" / later, dirs_exist_ok=True)
            results |= {path: path.read_bytes() for path in folder.glob("*/result.json")}
        return results


@pytest.fixture(scope="session")
def walk() -> Walk:
    return Walk()


@pytest.fixture
def walked(repository_with_voice: Path, monkeypatch) -> Path:
    """The repository itself, for tests that leave it as it is."""
    monkeypatch.chdir(repository_with_voice)
    return repository_with_voice


@pytest.fixture
def copy(repository_with_voice: Path, tmp_path: Path, monkeypatch) -> Path:
    """A copy to be spoiled: the same repository, with what it has done so far."""
    subprocess.run(["cp", "-a", f"{repository_with_voice}/.", str(tmp_path / "copy")], check=True)
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def open_gate(monkeypatch) -> None:
    """A gate that lets everything pass: what publishing does cannot be seen on random numbers otherwise."""
    monkeypatch.setattr(gate, "verdict", lambda checks: (True, ()))


@pytest.fixture
def passed(published_once: Path, tmp_path: Path, monkeypatch) -> Path:
    """A copy of a repository whose voice has passed its gate and waits to be published."""
    root = shutil.copytree(published_once, tmp_path / "copy")
    for left in ("work/ana/publish", "registry"):
        shutil.rmtree(root / left, ignore_errors=True)
    monkeypatch.chdir(root)
    return root


@pytest.fixture(scope="session")
def waiting_once(once: Callable[..., Path], walked_once: Path) -> Path:
    """Where ``repository`` has a voice that a person reviews, run once, and ``told.json`` what the run said."""

    def walk(folder: Path) -> None:
        root = shutil.copytree(walked_once, folder / "repository")
        manifest = root / "voices" / "ana" / "voice.yaml"
        manifest.write_text(manifest.read_text() + "review: required\n")
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as told:
            patch.chdir(root)
            patch.setattr(gate, "verdict", lambda checks: (True, ()))
            assert run_command(["run", "ana", "--json"]) == 12
        (folder / "told.json").write_text(told.getvalue())

    return once("waiting", walk)


@pytest.fixture
def waiting(waiting_once: Path, tmp_path: Path, monkeypatch) -> Path:
    """A copy of that repository."""
    monkeypatch.chdir(root := shutil.copytree(waiting_once / "repository", tmp_path / "copy"))
    return root
