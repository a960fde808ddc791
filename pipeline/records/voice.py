"""voice.yaml: who speaks, in which language, with whose consent."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from pipeline.plain import is_unfit
from pipeline.records.base import Record

NAME_PATTERN = r"[a-z0-9][a-z0-9-]{1,62}"
NAME_RULE = "2 to 63 characters: a-z, 0-9 and '-', not beginning with '-'"

VoiceName = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]
Language = Literal["zh", "en", "ja", "ko", "yue"]


def is_voice_name(name: str) -> bool:
    """Whether a folder may be called so. Names go into job names, paths and URLs, so the rule is strict."""
    return re.fullmatch(NAME_PATTERN, name) is not None


def _without_control_characters(text: str) -> str:
    """Names end up in terminals, logs and pages: no escape sequences, no line breaks, no direction overrides."""
    for letter in text:
        if is_unfit(letter):
            raise ValueError(f"control character U+{ord(letter):04X} is not allowed")
    return text


Line = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(_without_control_characters),
]
ShortText = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=500), AfterValidator(_without_control_characters)
]


def _written_day(value: Any) -> Any:
    """A day is written YYYY-MM-DD; a bare number would count as seconds since 1970."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value.strip()):
        return value.strip()
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise ValueError("write the day as YYYY-MM-DD")


Day = Annotated[date, BeforeValidator(_written_day)]


class Consent(Record):
    """The speaker's permission. It travels with every release."""

    speaker: Line = Field(description="Name of the person who speaks.")
    granted_on: Day = Field(description="Day on which the speaker agreed, YYYY-MM-DD.")
    scope: tuple[Line, ...] = Field(
        (), description="What the voice may be used for; shown on the card, enforced by the server."
    )
    statement: Line | None = Field(None, description="Recording of the spoken consent: a file in the voice's folder.")
    expires_on: Day | None = Field(None, description="First day on which the voice may no longer be used.")

    def has_expired(self, today: date) -> bool:
        return self.expires_on is not None and self.expires_on <= today


class VoiceManifest(Record):
    """The content of voice.yaml."""

    display_name: Line | None = Field(None, description="Name shown to people; default: the folder's name.")
    language: Language = Field(description="Language of clips that name none in metadata.csv.")
    base: Line | None = Field(None, description="Base model, see `voxline bases list`; pipeline.toml's where absent.")
    consent: Consent = Field(description="The speaker's permission; a voice without it is refused (exit 13).")
    license: Line = Field(description="Licence of the recordings, an SPDX identifier where there is one.")
    copyright_notice: ShortText = Field("", description="Printed on the card and carried by every release.")
    review: Literal["none", "required"] = Field("none", description="required: a person promotes each candidate.")
    gate: dict[str, Any] = Field(
        default_factory=dict, description="Overrides of [gate], never weaker than pipeline.toml's."
    )
    finetune: dict[str, Any] = Field(default_factory=dict, description="Overrides of [finetune] in pipeline.toml.")

    def settings_overrides(self) -> dict[str, Any]:
        """What this voice sets itself, as ``pipeline.config.resolve`` takes it."""
        return {"base": self.base, "gate": self.gate, "finetune": self.finetune}
