"""What has to be done for each voice, and why."""

from __future__ import annotations

from typing import Literal

from pipeline.records.base import Record
from pipeline.records.release import Version
from pipeline.records.voice import VoiceName

PlanAction = Literal["train", "republish", "retire", "skip"]
Change = Literal["added", "changed", "renamed", "deleted", "unchanged", "unknown"]

FOLDER_DELETED = "folder deleted"


class PlanEntry(Record):
    """One voice.

    Attributes:
        change: its folder between the two revisions; ``unknown`` when there is no base to compare with.
        version: version of the folder's content with its base and recipe; None when voice.yaml cannot be read.
        published: what production serves now.
        copied_from: the voice under whose name the registry already holds this version (a renamed folder).
        is_refused: skipped because this very content was refused before, or cannot be read: a person has to mend it.
        is_elsewhere: no folder here, and another repository published it: it is served on, and left alone.
    """

    voice: VoiceName
    action: PlanAction
    reason: str
    change: Change
    version: Version | None = None
    published: Version | None = None
    copied_from: VoiceName | None = None
    is_refused: bool = False
    is_elsewhere: bool = False


class Plan(Record):
    """All voices at a revision, in order of name.

    Attributes:
        base: commit that changes are counted from, or None; ``note`` says why.
        head: commit whose folders are planned; None for the files on disk.
    """

    base: str | None
    head: str | None
    registry: str
    note: str = ""
    entries: tuple[PlanEntry, ...]

    def to_do(self) -> tuple[PlanEntry, ...]:
        """Everything but ``skip``."""
        return tuple(entry for entry in self.entries if entry.action != "skip")
