"""No program is started with more of our environment than it needs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pipeline.io.processes import child_environment

PIPELINE = Path(__file__).resolve().parents[3] / "pipeline"
STARTERS = {"run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}


def started() -> list[tuple[str, ast.Call]]:
    found = []
    for path in sorted([*PIPELINE.rglob("*.py"), *(PIPELINE.parent / "models").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                if (owner == "subprocess" and node.func.attr in STARTERS) or (
                    owner == "os" and node.func.attr.startswith(("system", "popen", "spawn", "exec", "posix_spawn"))
                ):
                    found.append((f"{path.relative_to(PIPELINE.parent)}:{node.lineno}", node))
    return found


def test_every_program_is_started_with_an_environment_of_our_choice():
    calls = started()
    assert len(calls) >= 4  # git twice, ffmpeg, the notify command
    careless = [place for place, call in calls if "env" not in {keyword.arg for keyword in call.keywords}]
    assert not careless, careless


@pytest.mark.parametrize("name", ["VOXLINE_NOTIFY_SECRET", "CI_JOB_TOKEN", "AWS_SECRET_ACCESS_KEY", "GIT_SSH_COMMAND"])
def test_what_is_not_listed_does_not_pass(name: str):
    environment = {name: "x", "PATH": "/bin", "LC_ALL": "C", "HOME": "/home/ana"}
    assert child_environment(environment) == {"PATH": "/bin", "LC_ALL": "C", "HOME": "/home/ana"}
    assert child_environment(environment, also=[name]) == environment
