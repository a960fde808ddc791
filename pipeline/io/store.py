"""The content-addressed store of stage results: ``work/<voice>/<stage>/<key>/``.

A job writes into ``<key>.partial/`` under a lock and the folder is moved to ``<key>/`` when ``result.json`` is in it.
So two runs at once do the work once, ``kill -9`` leaves only a partial folder, and its ``checkpoint/`` lets the next
run continue.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.io.files import disk_full_is_transient, sync_folder, write_atomically
from pipeline.records.job import StageResult

RESULT_FILE = "result.json"
KEY_LENGTH = 32


def stage_key(stage: str, version: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Same stage, version, settings and input digests: same key, nothing to do."""
    content = json.dumps([stage, version, settings, inputs], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:KEY_LENGTH]


@dataclass(frozen=True)
class Store:
    """Results below one work folder."""

    root: Path

    def folder(self, voice: str, stage: str, key: str) -> Path:
        return self.root / voice / stage / key

    def find(self, voice: str, stage: str, key: str) -> StageResult | None:
        """The finished result, or None. A damaged result.json counts as none: the job runs again."""
        path = self.folder(voice, stage, key) / RESULT_FILE
        try:
            return StageResult.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValidationError):
            return None

    @contextmanager
    def lock(self, voice: str, stage: str, key: str) -> Iterator[None]:
        """Hold this key; a second run of the same job waits here and then finds the result."""
        path = self.root / voice / stage / f".{key}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def begin(self, voice: str, stage: str, key: str) -> Path:
        """An empty staging folder, except for the ``checkpoint/`` that a killed run may have left."""
        partial = self.root / voice / stage / f"{key}.partial"
        (partial / "checkpoint").mkdir(parents=True, exist_ok=True)
        self.clear(partial)
        return partial

    def clear(self, partial: Path) -> None:
        """Remove what a stopped job has written so far, all but its ``checkpoint/``."""
        for entry in partial.iterdir():
            if entry.name != "checkpoint":
                _remove(entry)

    def commit(self, partial: Path, result: StageResult) -> Path:
        """Write ``result.json`` last and move the folder to its final name."""
        final = partial.with_name(result.key)
        write_atomically(partial / RESULT_FILE, result.model_dump_json(indent=1).encode())
        shutil.rmtree(partial / "checkpoint", ignore_errors=True)  # not before: a disk may be full by now
        with disk_full_is_transient(final):
            if final.exists():  # damaged earlier result: replace it
                _remove(final)
            partial.replace(final)
            sync_folder(final.parent)
        return final


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
