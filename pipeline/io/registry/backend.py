"""Where a registry keeps its bytes: what object stores, Git and folders can all do.

Two properties carry everything above: a folder of files becomes visible at once with its record, and a small object
can be swapped only by one who has seen its present content. ``needs`` and ``unless`` look at a second object in the same
moment, which folders can and object stores cannot; docs/decisions.md says what it takes to do without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Stored:
    """A small object and the tag of this content, for ``compare_and_swap``."""

    data: bytes
    tag: str


class Backend(Protocol):
    """Keys are relative POSIX paths made of names that were checked before."""

    def get(self, key: str) -> Stored | None:
        """The object, or None."""
        ...

    def children(self, prefix: str) -> list[str]:
        """Names directly inside ``prefix``, sorted."""
        ...

    def compare_and_swap(self, key: str, data: bytes, tag: str | None, *, needs: str | None = None) -> bool:
        """Replace the object whose tag is ``tag`` (None: there is none); False when it has changed meanwhile.

        ``needs``: another object that must be there at that moment; False when it is not.
        """
        ...

    def put_folder(self, prefix: str, files: Mapping[str, tuple[Path, str]], record_name: str, record: bytes) -> bool:
        """Make files (path -> local file, sha256) visible under ``prefix``, the record last; False if one is there."""
        ...

    def local_folder(self, prefix: str) -> Path:
        """A folder on this machine with everything under ``prefix``."""
        ...

    def remove_folder(self, prefix: str, *, unless: Callable[[], bool]) -> bool:
        """Remove everything under ``prefix``, its record first; False if ``unless``, asked while nobody can swap."""
        ...
