"""Reading what strangers send, writing so that what can be seen is complete, and telling what the system refuses."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pipeline.errors import NoAccessError, PipelineError, TransientError

DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
MAY_PASS = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN})  # a disk on the network
IS_REFUSED = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}
)

IS_NO_FILE = frozenset({errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP})  # what opening a socket or an absent device says
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: Path, limit_bytes: int | None = None, *, follow_links: bool = True) -> io.BufferedReader:
    """Open a file that somebody else put there, to read it: an ordinary file of at most ``limit_bytes``, never a pipe.

    Opening a named pipe waits until somebody writes to it, which may be never; so nothing is waited for, and what was
    opened is looked at through its descriptor, where nobody can swap it any more.

    Raises:
        NoAccessError: no ordinary file, larger than the limit, or a link that is not to be followed.
        OSError: the file is missing, or the system refuses it.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise NoAccessError(f"{path}: is a symbolic link", hint="put the file itself there") from None
        if error.errno in IS_NO_FILE:
            raise NoAccessError(f"{path}: is not a regular file", hint="put the file itself there") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no ordinary file")
            raise NoAccessError(f"{path}: is {kind}, not a file", hint="put the file itself there")
        if limit_bytes is not None and status.st_size > limit_bytes:
            raise _too_large(path, status.st_size, limit_bytes)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, limit_bytes: int, *, follow_links: bool = True) -> bytes:
    """The content of a file that somebody else put there. Raises as ``open_regular``."""
    with open_regular(path, limit_bytes, follow_links=follow_links) as stream:
        content = stream.read(limit_bytes + 1)  # it may have grown meanwhile, or tell no size, like those of /proc
    if len(content) > limit_bytes:
        raise _too_large(path, len(content), limit_bytes)
    return content


def check_no_link(root: Path, inside: str) -> None:
    """Raises NoAccessError where a folder on the way from ``root`` to a file is a link; ``root`` itself may be one."""
    path = os.fspath(root)  # plain strings: a plan asks this some ten thousand times
    for part in inside.split("/")[:-1]:
        path = f"{path}/{part}"
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISLNK(mode):
            raise NoAccessError(f"{path}: is a symbolic link", hint="put the folder itself there")


def _too_large(path: Path, size: int, limit_bytes: int) -> NoAccessError:
    return NoAccessError(
        f"{path}: {size} bytes or more; at most {limit_bytes} are read", hint="is this the right file?"
    )


def walk_files(
    folder: Path, is_wanted: Callable[[PurePosixPath], bool] = lambda path: True
) -> Iterator[tuple[PurePosixPath, os.DirEntry[str]]]:
    """Whatever is not a folder, at any depth, with its path inside ``folder``; links are not followed.

    However deep somebody nests folders, it is a loop and no recursion. What ``is_wanted`` denies of a folder goes for
    all that lies in it.
    """
    waiting = [(folder, PurePosixPath())]
    while waiting:
        place, inside = waiting.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                relative = inside / entry.name
                if not is_wanted(relative):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((Path(entry.path), relative))
                else:
                    yield relative, entry


def write_atomically(path: Path, data: bytes | Iterable[bytes], *, mode: int = 0o666) -> None:
    """Write beside the target, flush to disk, move over it. Readers see the old file or the new one, never a part.

    `data`: all of it, or one part after the other. `mode`: who may read and write it, less the umask.

    Raises:
        TransientError: the disk is full; the target is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_full_is_transient(path):
        try:
            with open(staging, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
                stream.writelines([data] if isinstance(data, bytes) else data)
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


def write_cache(path: Path, data: bytes) -> None:
    """Write what can be computed again: a folder that cannot be written is no reason to stop."""
    try:
        write_atomically(path, data)
    except (OSError, TransientError):
        pass


@contextmanager
def disk_full_is_transient(path: Path) -> Iterator[None]:
    """Turn 'no space left' and 'quota exceeded' into the error CI retries; every other OSError passes through."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_IS_FULL:
            raise _disk_full(error, path) from None
        raise


def explain(error: OSError) -> PipelineError | None:
    """What a person can do about a file that the system refuses; None for what may be a bug of ours."""
    path = None if error.filename is None else Path(os.fsdecode(error.filename))
    if path is not None and path.name.startswith("."):
        path = path.absolute().parent  # staging files and locks are ours; the folder is what a person can mend
    if error.errno in DISK_IS_FULL:
        return _disk_full(error, path or Path.cwd())
    reason = f"{path}: {os.strerror(error.errno).lower()}" if path and error.errno else ""
    if reason and error.errno in IS_REFUSED:
        return NoAccessError(reason, hint="check its rights and what lies there, or name another place")
    if reason and error.errno in MAY_PASS:
        return TransientError(reason, hint="run again when the disk answers")
    return None


def _disk_full(error: OSError, path: Path) -> TransientError:
    return TransientError(
        f"{path}: {os.strerror(error.errno or errno.ENOSPC).lower()}; nothing half-written was left",
        hint="free some space (voxline's work/ folder is safe to delete) and run again",
    )
