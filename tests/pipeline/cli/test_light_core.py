"""What works, and what is said, where only the light core is installed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from warm_python import EXTRAS


@pytest.fixture
def light(warm_python) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command line in a Python that cannot import anything of the extras."""

    def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        code = (
            "import sys\n"
            f"sys.modules.update(dict.fromkeys({EXTRAS!r}))\n"
            "from pipeline.cli.main import run_command\n"
            f"sys.exit(run_command({list(arguments)!r}))\n"
        )
        return warm_python.run(code, folder=folder)

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plan", "--json"],
        ["plan", "--format", "gitlab"],
        ["registry", "list"],
        ["settings", "--explain"],
        ["schema", "voice"],
        ["bases", "list"],
        ["new", "ben"],
    ],
)
def test_the_core_works_alone(line, light, arguments):
    line.write_voice("ana")
    line.commit()
    done = light(line.root, *arguments)
    assert done.returncode == 0, done.stderr
    assert not done.stderr or arguments[0] == "plan", "plan --json tells people its table there"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["validate", "ana"], ["run", "ana"], ["say", "ben", "Hello."], ["export", "ben"], ["bases", "pull", "x"]],
)
def test_what_needs_more_says_so_in_one_sentence(line, light, arguments):
    line.write_voice("ana")
    line.write_voice("ben", sound=b"another take")
    line.commit()
    line.publish("ben")
    done = light(line.root, *arguments)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "which is not installed" in done.stderr and "pip install" in done.stderr


def test_the_doctor_lists_every_extra_and_what_to_type(line, voxline):
    findings = json.loads(voxline("doctor", "--json").out)["findings"]
    packages = {one["name"]: one for one in findings if one["topic"] == "packages"}
    assert {"core", "audio", "train"} <= packages.keys()
    assert all(one["state"] == "ok" for name, one in packages.items() if name in ("core", "audio", "train"))


def test_the_doctor_names_a_package_that_is_missing(line, voxline, monkeypatch):
    from pipeline.cli import doctor

    there = doctor._installed_version
    monkeypatch.setattr(doctor, "_installed_version", lambda name: None if name == "pesq" else there(name))
    answer = voxline("doctor")
    assert answer.code == 3
    assert "pesq: extra audio" in answer.out and "apt-get install gcc python3-dev" in answer.out
    assert "missing: pesq" in answer.err


def test_every_command_that_computes_says_what_to_do_without_before_torch_asks_the_processor(line, warm_python):
    """torch reads the processor and its variables once; told later, it would go on with what is switched off."""
    line.write_voice("ana")
    commands = [[stage, "ana"] for stage in ("validate", "extract", "finetune", "evaluate", "publish", "run")]
    commands += [["say", "ana", "Hello."], ["doctor"], ["pretrain", "recipe.yaml", "--data", "."]]
    code = (
        "import os, sys\nfrom models.machine import switches\nfrom pipeline.cli.main import run_command\n"
        "class Told(BaseException): pass\n"
        "def tell(names, environment):\n    assert 'torch' not in sys.modules\n    raise Told(*names)\n"
        "switches.switch_off = tell\n"
        "os.environ['VOXLINE_PROCESSOR'] = 'no avx512'\n"
        f"for command in {commands!r}:\n"
        "    try:\n        run_command(command)\n        sys.exit(f'{command} told nothing')\n"
        "    except Told as told:\n        assert told.args == ('avx512',), told\n"
    )
    done = warm_python.run(code, folder=line.root)
    assert (done.returncode, done.stderr) == (0, "")
