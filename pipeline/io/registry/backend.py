"""Where a registry keeps its bytes: what folders, Git, object stores and the Hugging Face Hub can all do.

One property carries everything above: what changes of a voice changes in one commit, which fails when somebody else
has changed what it was decided on. A folder holds a lock for that moment, Git pushes with a lease, an object store
swaps one object, the Hub is told the parent of a commit; none of them needs to look at two objects at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline.records.release import ReleaseFile


@dataclass(frozen=True)
class Stored:
    """A record and the tag of this content, for ``Change.expects``."""

    data: bytes
    tag: str


@dataclass(frozen=True)
class Staged:
    """The files of a new release, brought to where a commit can make them visible.

    Attributes:
        prefix: the release's place, ``<voice>/releases/<version>``.
        files: path inside the release -> local file, sha256.
        place: what the backend itself wants to know of it.
    """

    prefix: str
    files: Mapping[str, tuple[Path, str]]
    place: Any = None


@dataclass(frozen=True)
class Change:
    """What one commit changes of one voice: all of it, or nothing.

    Attributes:
        expects: record -> the tag it must have at that moment; None: it must not be there.
        puts: records, in the order in which a folder writes them: a publisher that is killed leaves the first ones.
        adds: files of a release whose manifest is among ``puts``.
        removes: the place of a release that goes, with its manifest.
    """

    expects: Mapping[str, str | None] = field(default_factory=dict)
    puts: Mapping[str, bytes] = field(default_factory=dict)
    adds: Staged | None = None
    removes: str | None = None


class Backend(Protocol):
    """Keys of records are relative POSIX paths made of names that were checked before; the first one is the voice."""

    @property
    def is_local(self) -> bool:
        """Whether the files lie on this machine already, so that reading them costs no request."""
        ...

    def look(self) -> AbstractContextManager[None]:
        """While it lasts, this thread reads a voice once and then sees it as it was; nothing seen is older than it."""
        ...

    def get(self, key: str) -> Stored | None:
        """A record, or None."""
        ...

    def children(self, prefix: str) -> list[str]:
        """Names directly inside ``prefix``, sorted; of the files of a release only those that a folder shows."""
        ...

    def tags(self) -> Mapping[str, str] | None:
        """Of every voice, a tag of all its records, in few requests; None where reading them is as quick."""
        ...

    def tag(self, voice: str) -> str | None:
        """The one of a voice, as ``tags`` tells it; None where that tells none."""
        ...

    def prepare(self, voices: list[str]) -> None:
        """Told that the records of these voices are read next."""
        ...

    def stage(self, prefix: str, files: Mapping[str, tuple[Path, str]]) -> Staged:
        """Bring a release's files to the registry, unseen. Raises TransientError when one is not what was announced."""
        ...

    def commit(self, voice: str, change: Change) -> bool:
        """Make a change of a voice; False, and nothing changed, when what it expects is not so any more."""
        ...

    def sweep(self, voice: str) -> None:
        """Remove what publishers of a voice that died left behind."""
        ...

    def check(self) -> None:
        """Raises what stands in the way of publishing, as far as that can be seen without publishing."""
        ...

    def release_folder(self, prefix: str, files: Mapping[str, ReleaseFile], *, anew: bool = False) -> Path:
        """A folder on this machine with these files of a release.

        Args:
            anew: ask the registry for every byte, whatever is here already.
        """
        ...
