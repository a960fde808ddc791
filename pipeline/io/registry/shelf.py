"""What a registry's objects are called, and its records read and written above a backend.

```
<voice>/releases/<version>/release.json  card.md  adapter/...  reference/  report/
<voice>/channels/<channel>.json          <voice>/events/<time-sortable id>.json
.refusals/<voice>.json                   what was tried last and not published, so that it is not tried again
```
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from pipeline.config import describe
from pipeline.errors import SettingsError, TransientError, UsageError
from pipeline.io.registry.backend import Backend, Change, Stored
from pipeline.io.voices import check_name
from pipeline.records.base import Record
from pipeline.records.release import Channel, Event

Kind = TypeVar("Kind", bound=Record)

RECORD_FILE = "release.json"
REFUSALS = ".refusals"  # names that no voice can have, and that are not listed among them
INDEX_KEY = ".index/voices.json"
SWAP_ATTEMPTS = 20
DAMAGED = "voxline registry verify; a newer voxline may have written it"


def releases_prefix(voice: str) -> str:
    return f"{check_name(voice)}/releases"


def release_prefix(voice: str, version: str) -> str:
    if not (version.isalnum() and version.isascii()):
        raise UsageError(f"{version!r} is not a version", hint="a version is 12 hex digits, see voxline registry show")
    return f"{releases_prefix(voice)}/{version}"


def record_key(voice: str, version: str) -> str:
    return f"{release_prefix(voice, version)}/{RECORD_FILE}"


def channel_key(voice: str, channel: Channel) -> str:
    return f"{check_name(voice)}/channels/{channel}.json"


def events_prefix(voice: str) -> str:
    return f"{check_name(voice)}/events"


def refusal_key(voice: str) -> str:
    return f"{REFUSALS}/{check_name(voice)}.json"


def event_key(event: Event) -> str:
    return f"{events_prefix(event.voice)}/{event.id}.json"


def voice_of(key: str) -> str:
    """What a commit is about: the voice, or the notes of all refusals."""
    return key.split("/", 1)[0]


@dataclass(frozen=True)
class Shelf:
    """A backend whose small objects are records.

    Attributes:
        url: as people wrote it; errors name objects below it.
    """

    backend: Backend
    url: str = ""

    def find(self, kind: type[Kind], key: str) -> Kind | None:
        """A record, or None. Raises SettingsError where what lies there is none."""
        return self.look(kind, key)[0]

    def look(self, kind: type[Kind], key: str) -> tuple[Kind | None, str | None]:
        """A record and the tag of its present content, for ``swap``."""
        stored = self.backend.get(key)
        return (None, None) if stored is None else (_parse(kind, stored, f"{self.url}/{key}"), stored.tag)

    def all(self, kind: type[Kind], prefix: str) -> Iterator[Kind]:
        """Every record directly below a prefix, in order of their names."""
        for name in self.backend.children(prefix):
            record = self.find(kind, f"{prefix}/{name}")
            if record is not None:
                yield record

    def swap(self, key: str, record: Record, tag: str | None) -> bool:
        """Put a record in the place of the one with this tag; False when that has changed meanwhile."""
        return self.backend.commit(voice_of(key), Change(expects={key: tag}, puts={key: dumped(record)}))

    def contended(self, key: str, done: str) -> TransientError:
        """What to raise when each of ``SWAP_ATTEMPTS`` swaps came too late."""
        return TransientError(f"{self.url}/{key}: {done} by others {SWAP_ATTEMPTS} times meanwhile", hint="run again")


def dumped(record: Record) -> bytes:
    """A record as it lies in the registry."""
    return (record.model_dump_json(indent=1) + "\n").encode()


def _parse(kind: type[Kind], stored: Stored, source: str) -> Kind:
    try:
        record = kind.model_validate_json(stored.data)
        json.loads(stored.data, object_pairs_hook=_without_repetition)
    except ValidationError as error:
        raise SettingsError(f"damaged: {describe(error, source)}", hint=DAMAGED) from None
    except KeyError as error:
        raise SettingsError(f"damaged: {source}: key {error} is there twice", hint=DAMAGED) from None
    return record


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two keys of one name readers take the one or the other. Raises KeyError."""
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise KeyError(name[:80])
        table[name] = value
    return table
