"""What networks that judge said of recordings, by what each heard: the same recording is not listened to twice.

Kept in the user's own cache folder (`pipeline/io/memory.py`), which no repository and no pipeline's cache can name; a
merge request's run neither reads nor writes it. Another network, or one that is asked in another way, has other keys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.io.memory import Memory

Samples = npt.NDArray[np.float32]
Plain = str | float
Answer = TypeVar("Answer")

MOST_ANSWERS = 5_000  # a vector takes a kilobyte, and a table of more than 8 MiB counts as empty


@dataclass(frozen=True)
class Answers:
    """``memory``: None remembers nothing beyond this object."""

    memory: Memory | None = None
    _known: dict[str, object] = field(default_factory=dict)
    _fresh: dict[str, Plain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.memory is not None:
            self._known.update(self.memory.load())

    def text(self, judge: str, samples: Samples, ask: Callable[[], str]) -> str:
        """Words. ``judge``: the network by its digest, and the way it is asked."""
        return self.once(judge, samples, ask, lambda known: known if isinstance(known, str) else None, str)

    def number(self, judge: str, samples: Samples, ask: Callable[[], float]) -> float:
        """A score."""
        return self.once(judge, samples, ask, lambda known: known if isinstance(known, float) else None, float)

    def vector(self, judge: str, samples: Samples, ask: Callable[[], Samples]) -> Samples:
        """A direction (D,)."""
        return self.once(judge, samples, ask, _unpacked, _packed)

    def several(
        self, judge: str, samples: Samples, count: int, ask: Callable[[], Sequence[float | str | None]]
    ) -> list[Any]:
        """``count`` things that are said at once: another voxline may have kept more or fewer under this name."""
        return self.once(judge, samples, lambda: list(ask()), lambda known: _listed(known, count), json.dumps)

    def save(self) -> None:
        """Keep what was asked; others may have kept theirs meanwhile."""
        if self.memory is not None and self._fresh:
            kept = {**self.memory.load(), **self._fresh}
            self.memory.save(dict(list(kept.items())[-MOST_ANSWERS:]))
            self._fresh.clear()

    def once(
        self,
        judge: str,
        samples: Samples,
        ask: Callable[[], Answer],
        read: Callable[[object], Answer | None],
        plain: Callable[[Answer], Plain],
    ) -> Answer:
        """An answer of any type. ``read``: what ``plain`` made of it; None for what is no answer, which is asked."""
        key = _key(judge, samples)
        known = read(self._known.get(key))
        if known is not None:
            return known
        answer = ask()
        self._known[key] = self._fresh[key] = plain(answer)
        return answer


def remembered(path: Path | None) -> Answers:
    """Those of earlier runs in a file of the user's; without one, none but this run's."""
    return Answers(None if path is None else Memory(path))


def _key(judge: str, samples: Samples) -> str:
    digest = hashlib.sha256(f"{judge}\n{len(samples)}\n".encode())
    digest.update(np.ascontiguousarray(samples, dtype=np.float32).tobytes())
    return digest.hexdigest()[:32]


def _packed(vector: Samples) -> str:
    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode()


def _listed(known: object, count: int) -> list[Any] | None:
    try:
        listed = json.loads(known) if isinstance(known, str) else None
    except (ValueError, RecursionError):
        return None
    return listed if isinstance(listed, list) and len(listed) == count else None


def _unpacked(known: object) -> Samples | None:
    """What ``_packed`` made; None for anything else."""
    try:
        vector = np.frombuffer(base64.b64decode(known, validate=True), "<f4") if isinstance(known, str) else None
    except (binascii.Error, ValueError):
        return None
    return vector.copy() if vector is not None and len(vector) and np.isfinite(vector).all() else None
