"""Folders that the system does not let us read or write: one clear message each, and nothing half-written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from warm_python import WarmPython

pytestmark = pytest.mark.slow

# Root may write everywhere; without its capabilities it is held to the rights like everybody else.
ORDINARY = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


@pytest.fixture(scope="module")
def ordinary_user() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Run a command line with no more rights than everybody has."""
    python = WarmPython(ORDINARY)
    code = "import sys; from pipeline.cli.main import run_command; sys.exit(run_command())"
    yield lambda folder, *arguments: python.run(code, arguments, folder=folder)
    python.close()


@pytest.fixture
def locked(copy: Path) -> Iterator[Path]:
    """A repository in which nothing can be written, though everything can be read."""
    folders = [copy, *(path for path in copy.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield copy
    for folder in folders:
        folder.chmod(0o755)


def assert_told(answer: subprocess.CompletedProcess[str], *words: str) -> None:
    assert answer.returncode == 3, answer.stderr
    assert "Traceback" not in answer.stderr
    assert "next:" in answer.stderr
    for word in words:
        assert word in answer.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["new", "ben"],
        ["import", "voices/ana", "--name", "ben", "--language", "en"],
        ["plan", "--worktree", "--json", "--output", "plan.json"],
        ["validate", "ana", "--report", "told"],
        ["run", "ana", "--base", "tiny", "--until", "validate", "--work", "elsewhere"],
        ["schema", "--write", "schemas"],
    ],
)
def test_a_folder_that_cannot_be_written_is_named(locked: Path, arguments: list[str], ordinary_user) -> None:
    before = sorted(locked.rglob("*"))
    assert_told(ordinary_user(locked, *arguments), "permission denied")
    assert sorted(locked.rglob("*")) == before


def test_a_repository_that_can_only_be_read_is_planned(locked: Path, ordinary_user) -> None:
    answer = ordinary_user(locked, "plan", "--worktree")
    assert answer.returncode == 0, answer.stderr
    assert "ana" in answer.stdout


@pytest.mark.parametrize("name", ["voices/ana/voice.yaml", "pipeline.toml", "voices/ana/metadata.csv"])
def test_a_file_that_cannot_be_read_is_named(copy: Path, name: str, ordinary_user) -> None:
    (copy / "work").rename(copy / "elsewhere")
    (copy / "pipeline.toml").touch()
    (copy / name).chmod(0)
    assert_told(ordinary_user(copy, "validate", "ana"), Path(name).name, "permission denied")


def test_a_registry_that_cannot_be_read_is_named(copy: Path, ordinary_user) -> None:
    (copy / "registry" / ".refusals").chmod(0)
    assert_told(ordinary_user(copy, "plan", "--worktree"), "registry", "permission denied")
