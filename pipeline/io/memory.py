"""What this user's commands remember of what they computed themselves, in places that no repository can name.

`work/` travels through caches and artifacts of CI, and a tree may bring files that lie there; what is believed without
being computed again may not come from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import NoAccessError, TransientError
from pipeline.io.files import read_regular, write_atomically

MAX_MEMORY_BYTES = 8 * 2**20
MAX_REMEMBERED = 10_000


@dataclass(frozen=True)
class Memory:
    """A small JSON table in a file of the user's; what others could have written counts as empty."""

    path: Path

    def load(self) -> dict[str, Any]:
        try:
            status = self.path.lstat()
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                return {}
            content = json.loads(read_regular(self.path, MAX_MEMORY_BYTES, follow_links=False))
        except (OSError, ValueError, RecursionError, NoAccessError):
            return {}
        return content if isinstance(content, dict) else {}

    def save(self, content: Mapping[str, Any]) -> None:
        newest = dict(list(content.items())[-MAX_REMEMBERED:])
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(self.path, json.dumps(newest).encode(), mode=0o600)
        except (OSError, TransientError):
            return  # a machine without a home folder checks everything again each time


def cached(name: str, environment: Mapping[str, str]) -> Memory:
    """What saves time and can be computed again."""
    return Memory(Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "voxline" / f"{name}.json")


def kept(name: str, environment: Mapping[str, str]) -> Memory:
    """What is known nowhere else."""
    return Memory(Path(environment.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "voxline" / f"{name}.json")
