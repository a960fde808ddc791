"""Writing files so that what can be seen is complete."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import TransientError


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the target, flush to disk, move over it. Readers see the old file or the new one, never a part.

    Raises:
        TransientError: the disk is full; the target is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_full_is_transient(path):
        try:
            with staging.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            staging.replace(path)
        finally:
            staging.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_full_is_transient(path: Path) -> Iterator[None]:
    """Turn 'no space left' and 'quota exceeded' into the error CI retries; every other OSError passes through."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise TransientError(
                f"{path}: {os.strerror(error.errno).lower()}; nothing half-written was left",
                hint="free some space (voxline's work/ folder is safe to delete) and run again",
            ) from None
        raise
