"""A Python that has imported the command line and nothing that computes: its children begin where a command begins.

To start an interpreter and import typer, rich and pydantic takes half a second; to fork one that has takes milliseconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

# What the light core works without; a process that has only imported the command line holds none of them.
EXTRAS = ("numpy", "scipy", "torch", "soundfile", "soxr", "jinja2", "transformers", "peft", "safetensors",
          "onnxruntime", "matplotlib", "huggingface_hub")  # fmt: skip

SERVER = f"""
import json, os, sys, traceback
import pipeline.cli.main

held = [name for name in {EXTRAS!r} if name in sys.modules]
assert not held, f"the command line imports {{held}} before it knows what is asked"

def work(order):
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(os.open(order[name], os.O_RDWR), number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")
    sys.argv = ["-c", *order["arguments"]]
    try:
        exec(compile(order["code"], "<string>", "exec"), {{"__name__": "__main__"}})
        return 0
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        print(left.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1

for line in sys.stdin:
    child = os.fork()
    if not child:
        code = 99
        try:
            code = work(json.loads(line))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code & 255)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class WarmPython:
    """``run`` is ``subprocess.run([python, "-c", code, *arguments])``, from a process that is already there."""

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        command = [*prefix, sys.executable, "-c", SERVER]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(
        self,
        code: str,
        arguments: Sequence[str] = (),
        *,
        folder: Path,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with tempfile.TemporaryDirectory() as place:
            streams = {name: str(Path(place, name)) for name in ("stdin", "stdout", "stderr")}
            for name, path in streams.items():
                Path(path).write_text(stdin if name == "stdin" else "", encoding="utf-8")
            variables = dict(os.environ if environment is None else environment)
            order = {"code": code, "arguments": [*arguments], "folder": str(folder), "environment": variables}
            self._process.stdin.write(json.dumps(order | streams) + "\n")
            self._process.stdin.flush()
            answered = self._process.stdout.readline()
            assert answered, "the warm process is gone"
            out, err = (Path(streams[name]).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess([code, *arguments], int(answered), out, err)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
