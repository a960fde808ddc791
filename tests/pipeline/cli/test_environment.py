"""Tests read and write nothing of whoever runs them: no configured registry, no home folder, no word of a CI engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.main import run_command

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def refused(tmp_path_factory, write_tiny_base, write_tiny_voice) -> Path:
    """A repository whose voice is too short: the line notes the refusal in the registry, for a whole session."""
    root = tmp_path_factory.mktemp("refused")
    write_tiny_base(root)
    write_tiny_voice(root, clips=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert run_command(["run", "ana"]) == 10
    return root


def test_what_a_fixture_of_the_session_runs_stays_in_its_own_folder(refused: Path) -> None:
    assert (refused / "registry" / ".refusals" / "ana.json").is_file()
    assert (refused / "work" / "ana" / "validate").is_dir()


def test_nothing_is_written_into_a_configured_registry_or_the_home_folder(repository: Path, tmp_path: Path) -> None:
    """The test above, run by somebody who has configured everything, in a job of a merge request."""
    users = {name: tmp_path / name for name in ("home", "registry", "work", "caches", "voxline")}
    for folder in users.values():
        folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | {
        "HOME": str(users["home"]),
        "XDG_CACHE_HOME": str(users["caches"]),
        "VOXLINE_REGISTRY": f"file:{users['registry']}",
        "VOXLINE_WORK": str(users["work"]),
        "VOXLINE_CACHE": str(users["voxline"]),
        "CI": "true",
        "GITLAB_CI": "true",
        "CI_MERGE_REQUEST_ID": "7",
    }
    test = f"{__file__}::{test_what_a_fixture_of_the_session_runs_stays_in_its_own_folder.__name__}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert sorted(tmp_path.rglob("*")) == sorted(users.values())
