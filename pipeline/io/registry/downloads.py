"""Files of releases that were read from another machine: kept by digest, resumed, compared, shared by all processes.

```
files/<two digits>/<sha256>      what was downloaded, once for all releases that hold it
releases/<sha256>/...            a release, or the part of it that was asked for: hard links to these
```
A release's folder has a file ``.used`` beside it, touched once a day, so that what was not used for longest goes first.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import TransientError
from pipeline.io.files import disk_full_is_transient
from pipeline.io.registry.trust import NotTrusted
from pipeline.records.release import ReleaseFile

AT_ONCE = 4
TOUCHED_EVERY_S = 24 * 3600.0
IN_USE_S = 3600.0  # what was asked for this short a time ago is read now, maybe
TRIES, PAUSE_S = 4, 0.05

Read = Callable[[str, int], Iterator[bytes]]


@dataclass(frozen=True)
class Downloads:
    """A folder of this user's, for all registries."""

    root: Path

    def folder(
        self, where: str, files: Mapping[str, ReleaseFile], prepare: Callable[[], None], read: Read, *, anew: bool
    ) -> Path:
        """A folder with these files.

        Args:
            where: the release, for messages.
            prepare: called once before the first byte is read.
            read: yields a file's bytes from an offset on.
            anew: read every file again and compare it, whatever is here.

        Raises:
            NotTrusted: the other side gave other bytes.
            TransientError: it broke off again and again, or the disk is full.
        """
        missing = {told.sha256: (name, told) for name, told in files.items() if anew or not self._has(told)}
        with disk_full_is_transient(self.root):
            if missing:
                prepare()
                with ThreadPoolExecutor(AT_ONCE) as pool:
                    fetched = [pool.submit(self._fetch, where, name, told, read, anew) for name, told in missing.values()]
                    for one in fetched:
                        one.result()
            return self._linked(files)

    def _has(self, told: ReleaseFile) -> bool:
        try:
            return self._path(told).lstat().st_size == told.size_bytes  # whoever uses it compares the digest
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _path(self, told: ReleaseFile) -> Path:
        return self.root / "files" / told.sha256[:2] / told.sha256

    def _fetch(self, where: str, name: str, told: ReleaseFile, read: Read, anew: bool) -> None:
        target = self._path(told)
        part = target.with_suffix(".part")
        with _locked(target.with_suffix(".lock")):
            if not anew and self._has(told):
                return  # another process was faster
            if anew:
                part.unlink(missing_ok=True)
            for attempt in range(1, TRIES + 1):
                try:
                    _continue(part, told, lambda offset: read(name, offset))
                except TransientError:
                    if attempt == TRIES:
                        raise
                    time.sleep(PAUSE_S * 4**attempt)
                    continue
                if _digest(part) == told:
                    part.replace(target)
                    return
                part.unlink()
        raise NotTrusted(
            f"{where}: {name} is not what was published; the registry gave other bytes {TRIES} times",
            hint="voxline registry verify; roll back to a sound version, or publish it again",
        )

    def _linked(self, files: Mapping[str, ReleaseFile]) -> Path:
        """These files under their names. The folder is called by all of them, so it never holds anything else."""
        told = json.dumps({name: files[name].sha256 for name in sorted(files)}).encode()
        folder = self.root / "releases" / hashlib.sha256(told).hexdigest()
        folder.mkdir(parents=True, exist_ok=True)
        for name, file in files.items():
            source, target = self._path(file), folder / name
            if not _is_same(source, target):
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(source, target)
        _touch(folder.with_suffix(".used"))
        return folder

    def collect(self, limit_bytes: int) -> tuple[int, int]:
        """Remove what was not used for longest until the rest fits; (bytes that were removed, bytes that stay)."""
        stamps = sorted((self.root / "releases").glob("*.used"), key=lambda path: path.stat().st_mtime)
        removed, size = self._sweep(), self._size()
        for stamp in stamps:
            if size <= limit_bytes or time.time() - stamp.stat().st_mtime < IN_USE_S:
                break
            shutil.rmtree(stamp.with_suffix(""), ignore_errors=True)
            stamp.unlink(missing_ok=True)
            removed += self._sweep()
            size = self._size()
        return removed, size

    def _size(self) -> int:
        return sum(path.lstat().st_size for path in (self.root / "files").glob("*/*"))

    def _sweep(self) -> int:
        """Remove files that no release's folder links to; bytes."""
        removed = 0
        for lock in (self.root / "files").glob("*/*.lock"):
            with _locked(lock):
                for path in (lock.with_suffix(""), lock.with_suffix(".part")):
                    if path.exists() and path.stat().st_nlink == 1 and time.time() - path.stat().st_mtime > IN_USE_S:
                        removed += path.stat().st_size
                        path.unlink()
        return removed


def _continue(part: Path, told: ReleaseFile, read: Callable[[int], Iterator[bytes]]) -> None:
    """Add to what is here of a file until it has its size; more than that is never written."""
    with part.open("ab") as writer:
        have = writer.tell()
        if have > told.size_bytes:
            have = writer.truncate(0)
        if have == told.size_bytes:
            return
        for chunk in read(have):
            have += len(chunk)
            if have > told.size_bytes:
                break  # another file; the digest says so
            writer.write(chunk)
    if have < told.size_bytes:
        raise TransientError(f"{part}: {have} of {told.size_bytes} bytes came", hint="run again: it continues there")


def _digest(path: Path) -> ReleaseFile:
    with path.open("rb") as stream:
        return ReleaseFile(sha256=hashlib.file_digest(stream, "sha256").hexdigest(), size_bytes=path.stat().st_size)


def _is_same(source: Path, target: Path) -> bool:
    try:
        one, other = source.lstat(), target.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _link(source: Path, target: Path) -> None:
    staging = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        os.link(source, staging)
    except OSError:  # a disk without hard links, or too many of them
        shutil.copyfile(source, staging)
    staging.replace(target)
    staging.unlink(missing_ok=True)  # of two links to the same file neither is moved


def _touch(stamp: Path) -> None:
    try:
        is_old = time.time() - stamp.stat().st_mtime > TOUCHED_EVERY_S
    except FileNotFoundError:
        is_old = True
    if is_old:
        stamp.touch()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
