"""The shell completes commands and the names of voices."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


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
