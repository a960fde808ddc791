"""Whom a machine believes about a registry, and what it remembers of it.

Two things are remembered, each in a file that only its owner may write, in places that no repository can name: digests
of files that were read before, so that checking a voice again takes no time (a cache), and the newest event that was
seen of each channel, so that nobody can put an older state of the whole registry back (kept).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import NoAccessError, SettingsError
from pipeline.io.files import check_no_link, open_regular
from pipeline.io.memory import Memory, cached, kept
from pipeline.io.signing import Signer, key_id
from pipeline.records.release import Event, ReleaseFile, Signed, event_digest

SETTLED_NS = 2 * 10**9  # a file that changed just now may change again within one tick of its clock


class NotTrusted(SettingsError):
    """What the registry holds is not what was published, or nobody trusted stands for it."""

    title = "not trusted"


@dataclass(frozen=True)
class Trust:
    """Whose signatures count here.

    Attributes:
        keys: public keys; empty when nobody said: then what is signed must fit, and what is not signed is taken.
        signer: who signs what is written from here, or None.
        digests: remembers the digests of files.
        seen: remembers the newest event of each channel; used with ``keys`` only, without which nothing is proven.
    """

    keys: frozenset[str] = frozenset()
    signer: Signer | None = None
    digests: Memory | None = None
    seen: Memory | None = None

    def check_can_write(self) -> None:
        """Raises SettingsError when what is written from here would be refused by everybody who trusts as we do."""
        if not self.keys:
            return
        if self.signer is None:
            raise SettingsError(
                "registry.trusted_keys is set, and there is no key to sign with",
                hint="set VOXLINE_SIGNING_KEY, or make a key: voxline keys new",
            )
        if self.signer.public_key not in self.keys:
            raise SettingsError(
                f"{self.signer.source}: registry.trusted_keys does not name key {key_id(self.signer.public_key)}",
                hint=f"voxline keys trust {self.signer.public_key}",
            )

    def signed(self, record: Signed) -> Signed:
        """The record with our signature, where we have a key."""
        return self.signer.sign(record) if self.signer else record

    def check_not_older(self, registry: str, event: Event) -> None:
        """Raises NotTrusted when this machine has seen a later event of the channel."""
        if self.seen is None or not self.keys or event.sequence is None:
            return
        known = self.seen.load()
        place = f"{registry} {event.voice} {event.channel}"
        before, present = known.get(place), [event.sequence, event_digest(event)]
        if before == present:
            return
        if isinstance(before, list) and isinstance(before[0], int) and before[0] >= event.sequence:
            raise NotTrusted(
                f"{event.voice}: channel {event.channel} is at event {event.sequence} ({event.id}), and this machine"
                f" has seen {'another one' if before[0] == event.sequence else f'event {before[0]}'}:"
                " an older or another state was put in its place",
                hint=f"find out who did; if you set the registry up anew, remove {self.seen.path}",
            )
        self.seen.save({**{key: value for key, value in known.items() if key != place}, place: present})


def trust_of(keys: Iterable[str], signer: Signer | None, environment: Mapping[str, str]) -> Trust:
    """What a command believes, with its memories in the user's own folders."""
    return Trust(frozenset(keys), signer, cached("digests", environment), kept("seen", environment))


@dataclass
class Digester:
    """sha256 of files, remembered by place, inode, size and the times of its content and of its inode."""

    memory: Memory | None = None
    _known: dict[str, Any] = field(default_factory=dict)
    _is_changed: bool = False

    def __enter__(self) -> Digester:
        self._known = self.memory.load() if self.memory else {}
        return self

    def __exit__(self, *_: object) -> None:
        if self.memory and self._is_changed:
            self.memory.save(self._known)

    def of(self, path: Path) -> ReleaseFile:
        """Raises NoAccessError for what is not a regular file of its own."""
        with open_regular(path, follow_links=False) as stream:
            status = os.fstat(stream.fileno())
            key = f"{path.absolute()} {status.st_dev} {status.st_ino} {status.st_size}"
            key += f" {status.st_mtime_ns} {status.st_ctime_ns}"
            digest = self._known.get(key)
            if not isinstance(digest, str) or len(digest) != 64:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS:
                    self._known[key], self._is_changed = digest, True
        return ReleaseFile(sha256=digest, size_bytes=status.st_size)


def file_problems(
    folder: Path, files: Mapping[str, ReleaseFile], record: str, digester: Digester, *, below: tuple[str, ...] = ("",)
) -> Iterator[str]:
    """What is wrong with a release's files, and what lies among them without being named: a line for each.

    Args:
        files: those that the manifest names.
        record: the manifest itself.
        below: only these top folders or files; everything where one is empty.
    """
    for name, told in files.items():
        if not is_below(name, below):
            continue
        try:
            check_no_link(folder, name)
            found = digester.of(folder / name)
        except (FileNotFoundError, NotADirectoryError):
            yield f"{name} is missing"
        except NoAccessError as error:
            yield f"{name}: {error.message}"
        except OSError as error:
            yield f"{name}: {os.strerror(error.errno or 0).lower()}"
        else:
            if found != told:
                yield f"{name} is not what was published"
    for name in _unnamed(folder, files):
        if name != record and is_below(name, below):
            yield f"{name} was added after publishing"


def is_below(name: str, below: tuple[str, ...]) -> bool:
    """Whether a path of a release lies in one of these folders, or is one of these files."""
    return any(not top or name == top or name.startswith(f"{top}/") for top in below)


def _unnamed(folder: Path, files: Mapping[str, ReleaseFile]) -> list[str]:
    """What lies in a release and is neither a file of its manifest nor a folder of one; links are not followed."""
    folders = {"", *(parent.as_posix() for name in files for parent in PurePosixPath(name).parents)} - {"."}
    found = []
    for inside in sorted(folders):
        if not (folder / inside).is_dir() or _is_behind_link(folder, inside):
            continue
        with os.scandir(folder / inside) as entries:
            names = sorted(f"{inside}/{entry.name}" if inside else entry.name for entry in entries)
        found += [name for name in names if name not in files and name not in folders]
    return found


def _is_behind_link(folder: Path, inside: str) -> bool:
    return any((folder / inside).parents[level].is_symlink() for level in range(inside.count("/"))) or (
        bool(inside) and (folder / inside).is_symlink()
    )
