"""``file:``: a registry in a folder, on one machine or on a disk that several share."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from pipeline.errors import SettingsError, TransientError
from pipeline.io.files import (
    check_no_link,
    disk_full_is_transient,
    open_regular,
    read_regular,
    sync_folder,
    write_atomically,
)
from pipeline.io.registry.backend import Change, Staged, Stored
from pipeline.records.release import ReleaseFile

LOCK_WAIT_S = 60.0
MAX_OBJECT_BYTES = 16 * 2**20  # a record of thousands of files has a tenth of that


@dataclass(frozen=True)
class FolderBackend:
    """A folder. Locks are ``flock``: the kernel releases them when a publisher is killed."""

    root: Path

    is_local = True

    def look(self) -> AbstractContextManager[None]:
        return nullcontext()  # reading a small file again costs nothing

    def get(self, key: str) -> Stored | None:
        check_no_link(self.root, key)
        try:
            data = read_regular(self.root / key, MAX_OBJECT_BYTES, follow_links=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Stored(data, hashlib.sha256(data).hexdigest())

    def children(self, prefix: str) -> list[str]:
        if prefix:
            check_no_link(self.root, f"{prefix}/x")
        try:
            with os.scandir(self.root / prefix) as entries:
                return sorted(entry.name for entry in entries if not entry.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def tags(self) -> Mapping[str, str] | None:
        return None

    def tag(self, voice: str) -> str | None:
        return None

    def prepare(self, voices: list[str]) -> None:
        """Nothing: they lie here."""

    def stage(self, prefix: str, files: Mapping[str, tuple[Path, str]]) -> Staged:
        return Staged(prefix, files)  # copied under the lock, when nobody can remove what is half there

    def commit(self, voice: str, change: Change) -> bool:
        with disk_full_is_transient(self.root / voice), self._lock(voice):
            if any(self._tag(key) != tag for key, tag in change.expects.items()):
                return False
            puts = dict(change.puts)
            if change.adds is not None:
                inside = f"{change.adds.prefix}/"
                own = {key.removeprefix(inside): puts.pop(key) for key in list(puts) if key.startswith(inside)}
                self._add(change.adds, own)
            for key, data in puts.items():
                self._sweep_beside(self.root / key)
                write_atomically(self.root / key, data)
                sync_folder((self.root / key).parent)
            if change.removes is not None:
                self._remove(change.removes)
            return True

    def sweep(self, voice: str) -> None:
        """Nothing: the next publisher does."""

    def check(self) -> None:
        if self.root.exists() and not os.access(self.root, os.W_OK):
            raise SettingsError(f"{self.root}: cannot be written", hint="check its rights")

    def _tag(self, key: str) -> str | None:
        stored = self.get(key)
        return stored.tag if stored else None

    def _add(self, staged: Staged, records: Mapping[str, bytes]) -> None:
        """Make a release visible with its records at once."""
        final = self.root / staged.prefix
        self._sweep()
        with self._staging() as staging:
            for name, (source, digest) in sorted(staged.files.items()):
                _copy(source, staging / name, digest)
            for name, record in records.items():
                write_atomically(staging / name, record)
            for folder in [staging, *(path for path in staging.rglob("*") if path.is_dir())]:
                sync_folder(folder)
            final.parent.mkdir(parents=True, exist_ok=True)
            if final.exists():  # without a record: somebody damaged it by hand
                shutil.rmtree(final)
            staging.rename(final)
            sync_folder(final.parent)

    def _remove(self, prefix: str) -> None:
        with self._staging() as staging:
            if (self.root / prefix).exists():
                staging.rmdir()
                (self.root / prefix).rename(staging)  # leaves the registry in one step; removed after that

    def release_folder(self, prefix: str, files: Mapping[str, ReleaseFile], *, anew: bool = False) -> Path:
        check_no_link(self.root, f"{prefix}/x")
        return self.root / prefix

    @contextmanager
    def _lock(self, voice: str) -> Iterator[None]:
        """One writer per voice at a time."""
        path = self.root / ".locks" / f"{voice}.lock"
        with _readable_errors(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _open_lock(path) as stream:
                _wait_for(stream.fileno(), path)
                yield

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """A folder on the same file system that disappears again unless it was moved into place.

        Its lock file tells a later publisher whether the owner still lives.
        """
        folder = self.root / ".staging" / uuid.uuid4().hex
        folder.parent.mkdir(exist_ok=True)
        lock = folder.with_suffix(".lock")
        try:
            with _open_lock(lock) as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)  # before the folder exists, so that nobody sweeps it
                folder.mkdir()
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove staging folders of publishers that were killed."""
        for lock in (self.root / ".staging").glob("*.lock"):
            with _open_lock(lock) as stream:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)

    def _sweep_beside(self, path: Path) -> None:
        """Remove what killed writers left beside a file. Whoever writes there holds the lock that we hold now."""
        if path.parent.is_dir():
            with os.scandir(path.parent) as entries:
                left = [entry.path for entry in entries if entry.name.startswith(".") and entry.name.endswith(".tmp")]
            for name in left:
                Path(name).unlink(missing_ok=True)


def _open_lock(path: Path) -> TextIO:
    """A lock's file, made where there is none; a link or a pipe in its place is not followed and not waited for."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "w")


def _copy(source: Path, target: Path, digest: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    hasher = hashlib.sha256()
    with open_regular(source, follow_links=False) as reader, target.open("xb") as writer:
        while chunk := reader.read(1 << 20):
            hasher.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    if hasher.hexdigest() != digest:
        raise TransientError(f"{source}: changed while it was published", hint="run publish again")


def _wait_for(descriptor: int, path: Path) -> None:
    until = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise TransientError(
                    f"{path}: held by another publisher for {LOCK_WAIT_S:.0f} s", hint="run again"
                ) from None
            time.sleep(0.02)


@contextmanager
def _readable_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (
            errno.EACCES,
            errno.EPERM,
            errno.EROFS,
            errno.EEXIST,
            errno.ENOTDIR,
            errno.ENOLCK,
            errno.ELOOP,
            errno.ENXIO,
        ):
            raise
        reason = os.strerror(error.errno).lower()
        raise SettingsError(
            f"{error.filename or root}: {reason}; the registry cannot be written",
            hint="check --registry and its rights",
        ) from None
