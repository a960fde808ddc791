"""What the terminal is told: completion for the shell, progress for whoever watches, plain lines for a log."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipeline.cli.common import ConsoleReporter


@pytest.mark.parametrize(("typed", "offered"), [("voxline val", ["validate"]), ("voxline run a", ["ana", "anna"])])
def test_the_shell_completes(line, typed, offered):
    for name in ("ana", "anna", "ben"):
        line.write_voice(name)
    words = {"_VOXLINE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'voxline'; from pipeline.cli.main import main; main()"]
    done = subprocess.run(
        command, cwd=line.root, env={**os.environ, **words}, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == offered, done.stderr


@pytest.mark.parametrize(("is_terminal", "ci", "moves"), [(True, "", True), (True, "true", False), (False, "", False)])
def test_progress_bars_are_for_people_not_for_logs(monkeypatch, capsys, is_terminal, ci, moves):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    assert list(ConsoleReporter().track([1, 2], description="counting")) == [1, 2]
    assert ("counting" in capsys.readouterr().err) == moves
