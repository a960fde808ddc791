"""The content-addressed store of stage results: ``work/<voice>/<stage>/<key>/``.

A job writes into ``<key>.partial/`` under a lock and the folder is moved to ``<key>/`` when ``result.json`` is in it.
So two runs at once do the work once, ``kill -9`` leaves only a partial folder, and its ``checkpoint/`` lets the next
run continue. ``result.json`` lists what the stage wrote, and whoever reads a file of it compares: a cache may come back
cut short, or with files of another voice.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from pipeline.errors import NoAccessError, SettingsError
from pipeline.io.files import (
    disk_full_is_transient,
    open_regular,
    read_regular,
    sync_folder,
    walk_files,
    write_atomically,
)
from pipeline.records.job import FileMark, StageResult

RESULT_FILE = "result.json"
CHECKPOINT = "checkpoint"
MAX_RESULT_BYTES = 256 << 20  # the report on ten hours of recordings is in it
KEY_LENGTH = 32


def stage_key(stage: str, version: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Same stage, version, settings and input digests: same key, nothing to do."""
    content = json.dumps([stage, version, settings, inputs], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:KEY_LENGTH]


class DamagedResult(SettingsError):
    """A finished stage does not hold the files that it left. The line discards it and makes it again."""

    def __init__(self, folder: Path, name: str, why: str) -> None:
        super().__init__(f"{folder / name}: {why}", hint=f"delete {folder} and run again")
        self.folder = folder


def list_marks(folder: Path, below: Collection[str] | None = None) -> dict[str, FileMark]:
    """Every file of a stage's folder, or those ``below`` some of its entries."""

    def is_wanted(path: PurePosixPath) -> bool:
        return path.parts[0] in below if below is not None else path.parts[0] not in (CHECKPOINT, RESULT_FILE)

    found = {str(path): _mark_of(Path(entry.path)) for path, entry in walk_files(folder, is_wanted)}
    return dict(sorted(found.items()))


def _mark_of(path: Path) -> FileMark:
    with open_regular(path, follow_links=False) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return FileMark(size_bytes=stream.tell(), sha256=digest)


def check_marks(folder: Path, marks: Mapping[str, FileMark], below: Collection[str]) -> None:
    """Compare what a stage hands on with what lies there.

    Raises:
        DamagedResult: naming the first file that is missing, another one, or was never written by the stage.
    """
    try:
        found = list_marks(folder, below)
    except NoAccessError as error:
        raise DamagedResult(folder, "", f"cannot be read: {error.message}") from None
    for name in sorted({*marks, *found}):
        if name not in found:
            raise DamagedResult(folder, name, "is missing")
        if name not in marks:
            raise DamagedResult(folder, name, "was not written by the stage")
        if found[name] != marks[name]:
            raise DamagedResult(folder, name, "is not what the stage wrote")


def copy_checked(folder: Path, name: str, marks: Mapping[str, FileMark], target: Path) -> None:
    """Copy one file that a stage handed on; what the copy holds is what the stage wrote. Raises DamagedResult."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open_regular(folder / name, follow_links=False) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    except (FileNotFoundError, NotADirectoryError, NoAccessError):
        raise DamagedResult(folder, name, "is missing") from None
    if _mark_of(target) != marks.get(name):
        raise DamagedResult(folder, name, "is not what the stage wrote")


def digest_of_marks(marks: Mapping[str, FileMark]) -> str:
    """One digest for a listing: names, sizes and contents."""
    told = [[name, mark.size_bytes, mark.sha256] for name, mark in sorted(marks.items())]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


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
            return StageResult.model_validate_json(read_regular(path, MAX_RESULT_BYTES))
        except (FileNotFoundError, NotADirectoryError, NoAccessError, ValidationError):
            return None

    def discard(self, damaged: DamagedResult) -> None:
        """Take away a result that is not what its stage left."""
        voice, stage, key = damaged.folder.relative_to(self.root).parts
        with self.lock(voice, stage, key):
            shutil.rmtree(damaged.folder, ignore_errors=True)

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
        (partial / CHECKPOINT).mkdir(parents=True, exist_ok=True)
        self.clear(partial)
        return partial

    def clear(self, partial: Path) -> None:
        """Remove what a stopped job has written so far, all but its ``checkpoint/``."""
        for entry in partial.iterdir():
            if entry.name != CHECKPOINT:
                _remove(entry)

    def commit(self, partial: Path, result: StageResult) -> Path:
        """Write ``result.json`` last and move the folder to its final name."""
        final = partial.with_name(result.key)
        write_atomically(partial / RESULT_FILE, result.model_dump_json(indent=1).encode())
        shutil.rmtree(partial / CHECKPOINT, ignore_errors=True)  # not before: a disk may be full by now
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
