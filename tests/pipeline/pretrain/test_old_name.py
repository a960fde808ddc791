"""The name that the trainer had before it got a room of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_old_name_does_the_same_and_warns():
    told = [
        subprocess.run([sys.executable, "-m", name, "--help"], capture_output=True, text=True, check=True)
        for name in ("pipeline.pretrain", "pipeline.stages.pretrain")
    ]
    assert told[0].stdout == told[1].stdout != ""
    assert (told[0].stderr, told[1].stderr.startswith("voxline: warning: pipeline.stages.pretrain is called")) == (
        "",
        True,
    )
