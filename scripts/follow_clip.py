"""Follows the clips of a voice from voices/ to `say`: which functions they are handed to, and in which types.

    .venv/bin/python scripts/follow_clip.py sample      # walks the line in a folder of its own, some minutes

A stop is a function that is handed a clip or hands one back, counted once, in the order of the first calls; a turn back
is a stop in a file that was left before. What a clip's types are is read from the table in docs/architecture.md.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from pipeline.cli.main import run_command

REPOSITORY = Path(__file__).resolve().parent.parent
ROW = re.compile(r"^\| `(\w+)` \| `((?:pipeline|models)/[\w/]+)\.py` \|", re.M)
DEPTH = 2  # a clip in a list of pairs is still one
LOOKED_AT = 2  # of a list: the first ones say what it is a list of


def clip_types() -> set[tuple[str, str]]:
    """Module and name of every type in the table of docs/architecture.md."""
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    return {(module.replace("/", "."), name) for name, module in ROW.findall(page)}


class Watch:
    """Notes every function below `folder` when a clip first passes through it."""

    def __init__(self, folder: Path, types: set[tuple[str, str]]) -> None:
        self.folder, self.types = str(folder) + "/", types
        self.stops: dict[tuple[str, str], None] = {}
        self.worn: dict[str, None] = {}
        self._lock = threading.Lock()

    def __call__(self, frame: FrameType, event: str, value: Any) -> None:
        code = frame.f_code
        if event not in ("call", "return") or not self._is_ours(code):
            return
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        handed = [frame.f_locals.get(name) for name in arguments] if event == "call" else [value]
        worn = [name for one in handed for name in self._worn_by(one)]
        if worn:
            with self._lock:  # recordings are judged side by side
                self.stops.setdefault((code.co_filename.removeprefix(self.folder), code.co_qualname))
                self.worn.update(dict.fromkeys(worn))

    def _is_ours(self, code: CodeType) -> bool:
        is_inner = code.co_name.startswith(("<", "__"))
        return not is_inner and code.co_filename.startswith((f"{self.folder}pipeline/", f"{self.folder}models/"))

    def _worn_by(self, value: Any, depth: int = 0) -> Iterable[str]:
        kind = type(value)
        if (kind.__module__, kind.__name__) in self.types:
            yield kind.__name__
        elif depth < DEPTH and isinstance(value, list | tuple | Mapping):
            inside = value.values() if isinstance(value, Mapping) else value
            for one in list(inside)[:LOOKED_AT]:
                yield from self._worn_by(one, depth + 1)


def turns_back(files: Iterable[str]) -> int:
    """How often a file is come to again after it was left."""
    seen, last, count = set[str](), "", 0
    for file in files:
        count += file != last and file in seen
        seen.add(file)
        last = file
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voice", help="a folder in voices/ of this repository")
    voice = parser.parse_args().voice
    watch = Watch(REPOSITORY, clip_types())
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"VOXLINE_WORK": f"{folder}/work", "VOXLINE_REGISTRY": f"file:{folder}/registry"}
        threading.setprofile(watch)
        sys.setprofile(watch)
        run_command(["run", voice, "--until", "evaluate"])
        run_command(["say", voice, "Good morning.", "--candidate", "-o", f"{folder}/said.wav"])
        sys.setprofile(None)
        threading.setprofile(None)
    files = [file for file, _ in watch.stops]
    for number, (file, function) in enumerate(watch.stops, 1):
        print(f"{number:4d}  {file}  {function}")
    print(f"{len(files)} stops, {len(set(files))} files, {turns_back(files)} turns back, {len(watch.worn)} types:")
    print("  " + ", ".join(watch.worn))
    return 0


if __name__ == "__main__":
    sys.exit(main())
