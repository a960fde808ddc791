"""Who may use a server: API keys, of which only a digest is kept."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from pipeline.records.base import Record
from pipeline.records.release import Digest
from pipeline.records.voice import Line, VoiceName

KeyId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{8}$")]
ANY_USE = "any"


class ApiKey(Record):
    """One key.

    Attributes:
        sha256: of the whole token, which is random enough not to be guessed from it.
        voices: those it may speak with; none named: all.
        uses: what its holder uses voices for, in the words of the consents' scopes; ``any``: whatever they allow.
        per_minute: most requests; None: not limited.
        characters_per_day: most characters in a day of UTC; None: not limited.
    """

    id: KeyId
    sha256: Digest
    note: Line | None = None
    voices: tuple[VoiceName, ...] = ()
    uses: tuple[Line, ...] = ()
    per_minute: int | None = Field(None, ge=1)
    characters_per_day: int | None = Field(None, ge=1)
    created_at: datetime


class ApiKeys(Record):
    """The file of keys."""

    keys: tuple[ApiKey, ...] = ()
