"""Who may ask for what, and how often."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.io.api_keys import read_keys, token_digest
from pipeline.records.api_key import ANY_USE, ApiKey
from pipeline.records.release import Release
from pipeline.serve.answers import Refused

MINUTE_S = 60.0
REREAD_S = 1.0  # how soon an added or removed key counts


@dataclass
class _Use:
    """What a key did lately."""

    requests: deque[float] = field(default_factory=deque)
    day: date | None = None
    characters: int = 0


class Doors:
    """Keys and their limits. What a key used is forgotten when the server ends."""

    def __init__(
        self,
        path: Path,
        *,
        may_be_open: bool,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], date] | None = None,
    ) -> None:
        """may_be_open: nobody is asked for a key as long as there is none; of a server that only this machine sees."""
        self.path, self.may_be_open, self.clock = path, may_be_open, clock
        self.today = today or (lambda: datetime.now(UTC).date())
        self._keys: dict[str, ApiKey] = {}  # by digest
        self._uses: dict[str, _Use] = {}  # by id
        self._mark: tuple[int, ...] | None = None
        self._read_at = -REREAD_S

    @property
    def are_open(self) -> bool:
        return self.may_be_open and self._mark is None

    def enter(self, headers: Mapping[str, str]) -> ApiKey | None:
        """The key of a request; None where the server asks for none. Raises Refused."""
        self._reread()
        if self.are_open:
            return None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = self._keys.get(token_digest(token.strip())) if scheme.lower() == "bearer" else None
        if key is None:
            told = {"WWW-Authenticate": "Bearer"}
            raise Refused(401, "invalid_api_key", "this server needs a valid API key", headers=told)
        return key

    def check(self, key: ApiKey | None, release: Release) -> None:
        """Whether the key may speak with a voice, for what it is used for. Raises Refused."""
        if key is None:
            return
        if key.voices and release.voice not in key.voices:
            raise Refused(403, "voice_not_allowed", f"this key may not speak with {release.voice}", "voice")
        scope = release.consent.scope
        if scope and ANY_USE not in key.uses and not set(scope) & set(key.uses):
            told = f"consent for {release.voice} covers: {', '.join(scope)}; this key is for nothing of that"
            raise Refused(403, "scope_not_allowed", told, "voice")

    def spend(self, key: ApiKey | None, characters: int) -> None:
        """Note a request of so many characters. Raises Refused where the key has used up what it may."""
        if key is None:
            return
        use, now = self._uses.setdefault(key.id, _Use()), self.clock()
        while use.requests and now - use.requests[0] >= MINUTE_S:
            use.requests.popleft()
        if key.per_minute is not None and len(use.requests) >= key.per_minute:
            wait_s = MINUTE_S - (now - use.requests[0])
            told = f"{key.per_minute} requests a minute"
            raise Refused(429, "rate_limit_exceeded", told, retry_after_s=wait_s)
        if use.day != self.today():
            use.day, use.characters = self.today(), 0
        if key.characters_per_day is not None and use.characters + characters > key.characters_per_day:
            left = key.characters_per_day - use.characters
            told = f"{key.characters_per_day} characters a day, {left} left"
            raise Refused(429, "insufficient_quota", told, retry_after_s=3600)
        use.requests.append(now)
        use.characters += characters

    def _reread(self) -> None:
        if self.clock() - self._read_at < REREAD_S:
            return
        self._read_at = self.clock()
        try:
            status = self.path.stat()
            mark = (status.st_ino, status.st_mtime_ns, status.st_size)
            if mark != self._mark:
                self._mark = mark  # from now on a key is asked for, whatever becomes of the file
                self._keys = {key.sha256: key for key in read_keys(self.path).keys}
        except (PipelineError, OSError):
            self._keys = {}  # a file that cannot be read lets nobody in


def audit_line(key: ApiKey | None, voice: str, version: str, text: str, seconds: float, status: str) -> str:
    """Who had what said, without what it was."""
    told = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "key": key.id if key else None,
        "voice": voice,
        "version": version,
        "characters": len(text),
        "seconds": round(seconds, 3),
        "text_sha256": hashlib.sha256(text.encode("utf-8", "replace")).hexdigest(),
        "status": status,
    }
    return json.dumps(told)
