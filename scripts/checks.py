"""What `make test` and `make quick` run; whatever fails, all of it is run and told, and one failure fails.

Lint, types and the second look at the processor's kernels run beside the tests, so that no core waits for them. What
they say follows the tests, and the closing line of the tests is the last.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

BIN = Path(sys.executable).parent
TESTS_OF = Path(__file__).resolve().parent.parent / "tests"
PYTEST = (sys.executable, "-m", "pytest")
# One file's tests stay in one process, for what they make once; in the order of collection, which has slow files first.
SHARED_OUT = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")


class Command(NamedTuple):
    words: tuple[str, ...]
    environment: Mapping[str, str] = MappingProxyType({})


class Told(NamedTuple):
    code: int
    text: str


def places_marked(marker: str) -> tuple[str, ...]:
    """Files that mark a test so, and folders whose conftest.py does: to import all the others takes seconds."""
    marked = [path for path in sorted(TESTS_OF.rglob("*.py")) if f"mark.{marker}" in path.read_text(encoding="utf-8")]
    return tuple(str(path.parent if path.name == "conftest.py" else path) for path in marked)


LINT = (Command((str(BIN / "ruff"), "check", ".")), Command((str(BIN / "ruff"), "format", "--check", ".")))
TYPES = Command((str(BIN / "mypy"),))
# Without bf16 and AVX-512, by which torch and oneDNN are held to AVX2: what is tested is not up to the machine.
ON_PLAIN_AVX2 = Command(
    (*PYTEST, "-q", "-m", "processor", *places_marked("processor")), {"VOXLINE_PROCESSOR": "no bf16, no avx512"}
)
TESTS = Command((*PYTEST, *SHARED_OUT))
QUICK = "not slow and not parity and not longer"
NETWORKS = ("models", "parity", "pipeline/pretrain")  # whoever works on a network runs its own tests
WITHOUT_NETWORKS = tuple(f"--ignore=tests/{folder}" for folder in NETWORKS)
QUICK_TESTS = Command((*PYTEST, *SHARED_OUT, "-x", "--failed-first", "-m", QUICK, *WITHOUT_NETWORKS))
LONGER = TESTS_OF / "longer.txt"
LONGER_S = 0.12  # in all cases of one test
DURATION = re.compile(r"^([\d.]+)s call +([^\[\n]+)", re.M)
RUNS = {
    "all": ((*LINT, TYPES, ON_PLAIN_AVX2), TESTS),
    "quick": ((*LINT, TYPES), QUICK_TESTS),
}


def main(name: str) -> int:
    if name == "longer":
        return list_longer()
    beside, tests = RUNS[name]
    with ThreadPoolExecutor(1) as pool:
        others = pool.submit(lambda: [run_quietly(command) for command in beside])
        code, closing = run_aloud(tests)
        told = others.result()
    for one in told:
        print(one.text, end="")
    print(closing, end="", flush=True)
    return max(code, *(one.code for one in told))


def list_longer() -> int:
    """Measure the tests that are not marked otherwise, and write down those that a quick look has no time for."""
    told = run_quietly(Command((*PYTEST, *SHARED_OUT, "-m", "not slow", *WITHOUT_NETWORKS, "--durations=0", "-vv")))
    taken: Counter[str] = Counter()
    for duration_s, name in DURATION.findall(told.text):
        taken[name.strip()] += float(duration_s)
    head = LONGER.read_text(encoding="utf-8").split("\n", 1)[0]
    if told.code == 0:
        names = sorted(name for name, total_s in taken.items() if total_s >= LONGER_S)
        LONGER.write_text("\n".join([head, *names, ""]), encoding="utf-8")
    print(told.text.splitlines()[-1])
    return told.code


def environment_of(command: Command) -> dict[str, str]:
    """Compiled files are kept: every process of the tests would compile and rewrite all of them again otherwise."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **command.environment}


def run_quietly(command: Command) -> Told:
    """Everything that a command says, under its own line."""
    clock = time.monotonic()
    done = subprocess.run(
        command.words,
        env=environment_of(command),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    settings = "".join(f"{name}={value!r} " for name, value in command.environment.items())
    line = " ".join([Path(command.words[0]).name, *map(shortened, command.words[1:])])
    return Told(abs(done.returncode), f"$ {settings}{line}  ({time.monotonic() - clock:.0f} s)\n{done.stdout}")


def shortened(word: str) -> str:
    return word.removeprefix(f"{TESTS_OF.parent}{os.sep}")


def run_aloud(command: Command) -> Told:
    """Show what the tests say as they say it, but their last line."""
    colours = ("--color=yes",) if sys.stdout.isatty() else ()
    process = subprocess.Popen(
        (*command.words, *colours), env=environment_of(command), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    held = ""
    for line in process.stdout:
        print(held, end="", flush=True)
        held = line
    return Told(abs(process.wait()), held)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
