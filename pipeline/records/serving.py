"""What a server and its worker tell each other about what is to be said, and how it went."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.records.base import Record
from pipeline.records.spoken import SpokenPart

FailureCode = Literal[
    "text_refused",
    "nothing_to_say",
    "language_not_spoken",
    "base_missing",
    "voice_damaged",
    "out_of_memory",
    "worker_failed",
    "cancelled",
]


class Failure(Record):
    """Why something asked of a worker did not come about."""

    code: FailureCode
    message: str


class ServedVoice(Record):
    """A release that was verified, and the local copy of what is read of it.

    Attributes:
        folder: holds ``adapter/`` and ``reference/``.
    """

    voice: str
    version: str
    language: str
    base: str
    base_digest: str
    folder: str


class Asked(Record):
    """One text to be said.

    Attributes:
        id: of the request, within one life of the worker.
        owner: whose request it is; turns are taken between owners.
        wants_words: tell when each word is said.
    """

    id: int
    owner: str = ""
    voice: ServedVoice
    text: str
    language: str | None = None
    seed: int = Field(0, ge=0)
    speed: float = 1.0
    wants_words: bool = False


class Word(Record):
    """A word of the text and when it is said, in seconds from the first sample."""

    word: str
    start: float
    end: float


class SaidSentence(Record):
    """A sentence that was sounded: its text, how it came out, and its words where they were asked for."""

    index: int
    text: str
    part: SpokenPart
    words: tuple[Word, ...] = ()


class WorkerSettings(Record):
    """How a worker computes. Paths are absolute.

    Attributes:
        rows: most sentences' candidates that are drawn at once.
        adapter_bytes: of voices kept in memory; the least recently used leave.
        warm: voices whose bases are loaded before the first request.
    """

    device: str
    switched_off: tuple[str, ...] = ()
    threads: int
    renderers: int
    cache: str
    bases: str
    replaced_bases: tuple[str, ...]
    rows: int
    adapter_bytes: int
    warm: tuple[ServedVoice, ...] = ()


class WorkerState(Record):
    """What a worker holds, for the metrics."""

    bases: tuple[str, ...] = ()
    resident_voices: int = 0
    resident_bytes: int = 0
    rows: int = 0
    waiting: int = 0
    loads: int = 0
    evictions: int = 0
