"""Answers that were given before: the same voice, version, text and settings give the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass

from pipeline.records.serving import SaidSentence


@dataclass(frozen=True)
class Kept:
    """A whole answer: the file, and what is told of it."""

    content: bytes
    rate_hz: int
    samples: int
    sentences: tuple[SaidSentence, ...]


class Answers:
    """The most recently used answers, of so many bytes together; none for 0."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.size_bytes = most_bytes, 0
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    @staticmethod
    def name_of(*told: object) -> str:
        """What an answer is found by; no text is kept."""
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def find(self, name: str) -> Kept | None:
        found = self._kept.get(name)
        if found is not None:
            self._kept.move_to_end(name)
        return found

    def keep(self, name: str, answer: Kept) -> None:
        if not answer.content or len(answer.content) > self.most_bytes or name in self._kept:
            return
        self._kept[name] = answer
        self.size_bytes += len(answer.content)
        while self.size_bytes > self.most_bytes:
            self.size_bytes -= len(self._kept.popitem(last=False)[1].content)


class Whole:
    """The pieces of an answer together, unless that is more than is ever kept."""

    def __init__(self, answers: Answers) -> None:
        self._most = answers.most_bytes
        self._content: bytearray | None = bytearray()

    def add(self, piece: bytes) -> None:
        if self._content is not None:
            self._content += piece
            if len(self._content) > self._most:
                self._content = None

    @property
    def content(self) -> bytes:
        return bytes(self._content or b"")
