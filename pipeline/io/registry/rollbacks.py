"""Rolling production back: to which version, and doing it once."""

from __future__ import annotations

from pipeline.errors import UsageError
from pipeline.io.registry.channels import Channels, MovedMeanwhile
from pipeline.io.registry.events import Mover
from pipeline.records.release import Event


def roll_back(channels: Channels, voice: str, mover: Mover) -> Event | None:
    """Put production back to the newest version before that was not rolled back itself.

    Returns:
        None when production was rolled back and not moved since.

    Raises:
        UsageError: there is no version before.
        MovedMeanwhile: somebody put another version on production just now.
    """
    present = channels.pointer(voice, "production")
    if present is None:
        raise UsageError(f"{voice}: was never on production", hint="voxline registry list")
    channels.check_head(voice, "production", present)
    channels.events.write(present.event)
    moves = channels.moves(voice)
    if moves and moves[-1].action == "rollback":
        return None
    chosen = version_before(channels, voice, present.version)
    try:
        return channels.move(voice, "production", chosen, action="rollback", mover=mover, expected=present.event.id)
    except MovedMeanwhile:
        now = channels.moves(voice)[-1]
        if now.action == "rollback" and now.previous == present.version:
            return None  # somebody else was a moment faster with the same
        raise


def version_before(channels: Channels, voice: str, present: str | None) -> str:
    """What a rollback goes to from a version: the newest on production before it that was not rolled back.

    Raises:
        UsageError: there is none.
    """
    moves = channels.moves(voice)
    left: set[str | None] = set()
    for event in moves:
        if event.action == "rollback":
            left.add(event.previous)
        left.discard(event.version)
    for event in reversed(moves):
        version = event.previous
        if version not in (None, present) and version not in left and channels.releases.has(voice, version):
            return version
    raise UsageError(
        f"{voice}: production never served another version that was not rolled back",
        hint=f"voxline registry history {voice}",
    )


def rolled_back(channels: Channels, voice: str) -> frozenset[str]:
    """The versions that people took off production since it was last put on one of theirs."""
    left = set()
    for event in reversed(channels.moves(voice)):
        if event.action != "rollback":
            break
        if event.previous is not None:
            left.add(event.previous)
    return frozenset(left)
