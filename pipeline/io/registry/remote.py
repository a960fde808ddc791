"""A registry on another machine: all records of a voice are one small object there, its head, which is swapped as one.

The head holds what a folder keeps in many files (manifests, channels, events) and where the files of each release lie.
So every change of a voice is one compare-and-swap of one object, and one request reads all there is to know of it.
Files of releases are brought there before the swap, to a place that no head names yet, and read through ``downloads``.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import Field, StringConstraints, ValidationError

from pipeline.config import describe
from pipeline.errors import SettingsError, TransientError, UsageError
from pipeline.io.registry.backend import Change, Staged, Stored
from pipeline.io.registry.downloads import Downloads
from pipeline.records.base import Record
from pipeline.records.release import ReleaseFile, Version

FORMAT = 1
MAX_HEAD_BYTES = 64 * 2**20  # some 50,000 moves
PAUSES_S = (0.2, 1.0, 4.0)
LONGEST_PAUSE_S = 60.0  # a server that asks for more is asked again by the next run

Answer = TypeVar("Answer")
PlaceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]{1,64}$")]  # becomes a word of addresses and commands


class Busy(TransientError):
    """The other side asks for patience, or did not answer whole.

    Attributes:
        pause_s: how long it asks to wait, where it says so.
    """

    def __init__(self, message: str, *, hint: str = "run again", pause_s: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.pause_s = pause_s


class Head(Record):
    """Everything small that a voice has, at one moment.

    Attributes:
        records: path inside the voice's folder -> content.
        places: version -> where its files lie, in the words of the place.
    """

    format: int = FORMAT
    voice: str
    records: dict[str, str] = Field(default_factory=dict)
    places: dict[Version, PlaceName] = Field(default_factory=dict)


class Place(Protocol):
    """What a machine elsewhere must do. ``root`` is a voice, or a name that no voice can have.

    Every method raises Busy for what may pass, NoAccessError for missing rights, SettingsError for the rest.

    Attributes:
        url: as people write it. ``identity``: with the server, so that no other place has it.
    """

    url: str
    identity: str

    def load(self, root: str) -> tuple[bytes, str] | None:
        """A head and its tag, or None."""
        ...

    def save(self, root: str, head: bytes, tag: str | None, staged: Staged | None, removed: str | None) -> str | None:
        """Put a head in the place of the one with this tag (None: there is none); its new tag, or None: too late.

        Args:
            staged: the release that the new head adds.
            removed: the version that it no longer has.
        """
        ...

    def check(self) -> None:
        """Raises what stands in the way of using it."""
        ...

    def tags(self) -> dict[str, str]:
        """The tag of every head there is, in a number of requests that does not grow with the releases."""
        ...

    def prepare(self, roots: list[str]) -> None:
        """Told that these heads are loaded next."""
        ...

    def upload(self, root: str, version: str, files: Mapping[str, tuple[Path, str]]) -> str:
        """Bring files there, to a place that was never used before; returns what ``Head.places`` is to say."""
        ...

    def prepare_download(self, root: str, version: str, place: str) -> None:
        """Told that files of this release are downloaded next."""
        ...

    def download(self, root: str, version: str, place: str, name: str, offset: int) -> Iterator[bytes]:
        """A file of a release, from a byte on."""
        ...

    def remove(self, root: str, version: str, place: str) -> None:
        """Remove the files of a release that no head names any more."""
        ...

    def sweep(self, root: str, known: set[str]) -> None:
        """Remove what publishers that died left there. ``known``: the places that the head names."""
        ...


@dataclass(frozen=True)
class Seen:
    """A head as it was when it was read. ``tag``: None where there was none."""

    head: Head
    tag: str | None


@dataclass
class Look(threading.local):
    """What a thread has read since it began to look."""

    depth: int = 0
    seen: dict[str, Seen] = field(default_factory=dict)
    tags: dict[str, str] | None = None


class RemoteBackend:
    """A ``Backend`` above a place."""

    is_local = False

    def __init__(self, place: Place, downloads: Downloads) -> None:
        self.place = place
        self.downloads = downloads
        self._look = Look()

    @contextmanager
    def look(self) -> Iterator[None]:
        look = self._look
        if not look.depth:
            look.seen, look.tags = {}, None
        look.depth += 1
        try:
            yield
        finally:
            look.depth -= 1

    # Reading

    def get(self, key: str) -> Stored | None:
        root, _, inside = key.partition("/")
        text = self._head(root).head.records.get(inside)
        return None if text is None else _stored(text)

    def children(self, prefix: str) -> list[str]:
        root, _, inside = prefix.partition("/")
        if not root:
            return sorted(self.tags())
        start = f"{inside}/" if inside else ""
        records = self._head(root).head.records
        return sorted({name.removeprefix(start).split("/", 1)[0] for name in records if name.startswith(start)})

    def tags(self) -> dict[str, str]:
        """The tag of every voice's head."""
        if self._look.tags is None or not self._look.depth:
            told = patiently(self.place.tags)
            self._look.tags = {root: tag for root, tag in told.items() if not root.startswith(".")}
        return self._look.tags

    def tag(self, voice: str) -> str | None:
        return self._head(voice).tag

    def prepare(self, voices: list[str]) -> None:
        patiently(lambda: self.place.prepare(voices))

    def _head(self, root: str) -> Seen:
        known = self._look.seen.get(root) if self._look.depth else None
        if known is None:
            loaded = patiently(lambda: self.place.load(root))
            where = f"{self.place.url}/{root}"
            known = Seen(Head(voice=root), None) if loaded is None else Seen(_parse(loaded[0], root, where), loaded[1])
            self._look.seen[root] = known
        return known

    def _forget(self, root: str) -> None:
        self._look.seen.pop(root, None)

    # Writing

    def stage(self, prefix: str, files: Mapping[str, tuple[Path, str]]) -> Staged:
        root, version = _parts(prefix)
        return Staged(prefix, files, self.place.upload(root, version, files))

    def commit(self, voice: str, change: Change) -> bool:
        seen = self._head(voice)
        if any(_tag(seen.head.records.get(_inside(key))) != tag for key, tag in change.expects.items()):
            self._forget(voice)
            return False
        head, removed = _after(seen.head, change), _removed(change)
        data = _dumped(head)
        for pause_s in (*PAUSES_S, None):
            try:
                tag = self.place.save(voice, data, seen.tag, change.adds, removed)
            except Busy as error:
                self._forget(voice)
                if self._holds(voice, change):  # it arrived, and the answer did not
                    tag = self._head(voice).tag
                elif pause_s is None or self._head(voice).tag != seen.tag:
                    raise
                else:
                    _wait(error, pause_s)
                    continue
            break
        if tag is None:
            self._forget(voice)
            if not self._holds(voice, change):
                time.sleep(random.uniform(0.0, 0.1))  # whoever was faster may be one of many
                return False
        else:
            self._look.seen[voice] = Seen(head, tag)
        if removed is not None and removed in seen.head.places:
            self.place.remove(voice, removed, seen.head.places[removed])
        return True

    def sweep(self, voice: str) -> None:
        self.place.sweep(voice, set(self._head(voice).head.places.values()))

    def _holds(self, voice: str, change: Change) -> bool:
        """Whether a change is there already. Events have names that nobody else gives, so it was ours."""
        records = self._head(voice).head.records
        puts = all(records.get(_inside(key)) == data.decode() for key, data in change.puts.items())
        return puts and not (change.removes and any(f"{voice}/{name}".startswith(change.removes) for name in records))

    def check(self) -> None:
        patiently(self.place.check)

    # Files

    def release_folder(self, prefix: str, files: Mapping[str, ReleaseFile], *, anew: bool = False) -> Path:
        root, version = _parts(prefix)
        place = self._head(root).head.places.get(version)
        if place is None:
            raise UsageError(f"{root}: no files of {version} in {self.place.url}", hint=f"voxline registry show {root}")

        def read(name: str, offset: int) -> Iterator[bytes]:
            return self.place.download(root, version, place, name, offset)

        def prepare() -> None:
            patiently(lambda: self.place.prepare_download(root, version, place))

        return self.downloads.folder(f"{self.place.url}/{prefix}", files, prepare, read, anew=anew)


def patiently(ask: Callable[[], Answer]) -> Answer:
    """Ask again, a few times and later and later, where the other side was only busy."""
    for pause_s in PAUSES_S:
        try:
            return ask()
        except Busy as error:
            _wait(error, pause_s)
    return ask()


def _wait(error: Busy, pause_s: float) -> None:
    asked_s = error.pause_s or 0.0
    if asked_s > LONGEST_PAUSE_S:
        raise error
    time.sleep(max(asked_s, pause_s * random.uniform(0.5, 1.0)))


def _parts(prefix: str) -> tuple[str, str]:
    root, _, version = prefix.split("/")
    return root, version


def _inside(key: str) -> str:
    return key.partition("/")[2]


def _stored(text: str) -> Stored:
    data = text.encode()
    return Stored(data, hashlib.sha256(data).hexdigest())


def _tag(text: str | None) -> str | None:
    return None if text is None else _stored(text).tag


def _removed(change: Change) -> str | None:
    return _parts(change.removes)[1] if change.removes else None


def _after(head: Head, change: Change) -> Head:
    """The head as it is to be."""
    records, places = dict(head.records), dict(head.places)
    if change.removes is not None:
        start = f"{_inside(change.removes)}/"
        records = {name: text for name, text in records.items() if not name.startswith(start)}
        places.pop(_parts(change.removes)[1], None)
    records |= {_inside(key): data.decode() for key, data in change.puts.items()}
    if change.adds is not None:
        places[_parts(change.adds.prefix)[1]] = change.adds.place
    return Head(voice=head.voice, records=records, places=places)


def _dumped(head: Head) -> bytes:
    data = (head.model_dump_json(indent=1) + "\n").encode()
    if len(data) > MAX_HEAD_BYTES:
        raise SettingsError(f"{head.voice}: its records take {len(data)} bytes; at most {MAX_HEAD_BYTES} are kept")
    return data


def _parse(data: bytes, root: str, where: str) -> Head:
    """Raises SettingsError for what is no head of this voice, or one of a later format."""
    try:
        told: Any = json.loads(data)
    except (ValueError, RecursionError):
        raise SettingsError(f"damaged: {where}: its head is not JSON", hint="voxline registry verify") from None
    if isinstance(told, dict) and isinstance(told.get("format"), int) and told["format"] > FORMAT:
        raise SettingsError(
            f"{where}: written by a newer voxline (format {told['format']}, this one reads {FORMAT})",
            hint="update voxline; nothing was changed",
        )
    try:
        head = Head.model_validate_json(data)
    except ValidationError as error:
        raise SettingsError(f"damaged: {describe(error, where)}", hint="voxline registry verify") from None
    if head.voice != root:
        raise SettingsError(f"damaged: {where}: its head is of {head.voice[:80]!r}", hint="voxline registry verify")
    return head
