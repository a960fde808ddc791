"""Channels: what is served of a voice, and the chain of moves that brought it there.

A channel's file holds a copy of its last event, so whoever moves the channel next completes what a killed publisher
left out. Each event holds the digest of the manifest it put on the channel and of the channel's event before it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.io.registry.backend import Change, Staged
from pipeline.io.registry.chain import (
    VOUCH,
    chain_findings,
    place_problem,
    pointer_problem,
    replay_problem,
)
from pipeline.io.registry.events import Events, Mover, next_event
from pipeline.io.registry.releases import EVERYTHING, Releases
from pipeline.io.registry.shelf import SWAP_ATTEMPTS, Shelf, channel_key, dumped, event_key, record_key
from pipeline.io.registry.trust import NotTrusted, Trust
from pipeline.records.release import CHANNELS, Action, Channel, ChannelPointer, Event, Release


class MovedMeanwhile(UsageError):
    """Somebody else moved the channel between our look at it and our move."""


@dataclass(frozen=True)
class NewRelease:
    """A release that is not in the registry yet: its manifest as it will lie there, and its files, staged."""

    release: Release
    staged: Staged


@dataclass(frozen=True)
class Channels:
    """The channels of all voices.

    Attributes:
        place: the registry's URL in full, the same from every folder.
    """

    shelf: Shelf
    trust: Trust
    place: str
    releases: Releases
    events: Events

    # Reading

    def pointer(self, voice: str, channel: Channel) -> ChannelPointer | None:
        """What a channel serves, or None when nothing was ever put on it."""
        return self.shelf.find(ChannelPointer, channel_key(voice, channel))

    def served(self, voice: str, channel: Channel) -> tuple[str, ChannelPointer]:
        """The version on a channel. Raises UsageError where there is none."""
        pointer = self.pointer(voice, channel)
        if pointer is None:
            raise UsageError(f"{voice}: nothing on channel {channel} of {self.shelf.url}", hint=f"voxline run {voice}")
        if pointer.version is None:
            hint = f"voxline registry rollback {voice} brings the last version back"
            raise UsageError(f"{voice}: retired on {pointer.event.at:%Y-%m-%d} by {pointer.event.actor}", hint=hint)
        return pointer.version, pointer

    def history(self, voice: str) -> list[Event]:
        """Every move of the voice's channels, oldest first, including one whose event file is not written yet."""
        events = {event.id: event for event in self.events.of(voice)}
        for channel in CHANNELS:
            pointer = self.pointer(voice, channel)
            if pointer is not None:
                events.setdefault(pointer.event.id, pointer.event)
        return [events[key] for key in sorted(events)]

    def moves(self, voice: str) -> list[Event]:
        """How production came to where it is, oldest first."""
        return [event for event in self.history(voice) if event.channel == "production" and event.action != "sign"]

    def verified(self, voice: str, channel: Channel, below: tuple[str, ...] = EVERYTHING) -> tuple[Release, Path]:
        """The release on a channel, and its folder, after a look at channel, manifest and files. Raises NotTrusted."""
        version, pointer = self.served(voice, channel)
        self.check_head(voice, channel, pointer)
        return self.releases.checked(voice, version, [pointer.event], below)

    def check_head(self, voice: str, channel: Channel, pointer: ChannelPointer) -> None:
        """Raises NotTrusted when a channel's file is not the newest that somebody we believe has written."""
        problem = pointer_problem(pointer, voice, channel, self.trust.keys)
        newest = None if problem else self.events.newest(voice, channel, pointer.event)
        if newest is not None and self.pointer(voice, channel) == pointer:  # nobody moved it just now
            problem = replay_problem(pointer.event, newest)
        problem = problem or self.events.differing_copy(pointer.event)
        if problem:
            hint = f"voxline registry verify {voice}; who has looked at it can vouch for it: {VOUCH} {voice}"
            raise NotTrusted(f"{voice}: {problem}", hint=hint)
        try:
            self.trust.check_not_older(self.place, pointer.event)
        except NotTrusted:
            if self.pointer(voice, channel) == pointer:  # else somebody beside us has seen a later move just now
                raise

    # Writing

    def move(
        self,
        voice: str,
        channel: Channel,
        version: str | None,
        *,
        action: Action,
        mover: Mover,
        expected: str | None = None,
        new: NewRelease | None = None,
    ) -> Event | None:
        """Point a channel to a version, or to none. Returns None when it points there already.

        Args:
            expected: the event that must be the channel's last one.
            new: the version itself, to be stored in the same commit unless somebody has stored it meanwhile.

        Raises:
            UsageError: the registry does not hold the version.
            MovedMeanwhile: the channel's last event is another than ``expected``.
            NotTrusted: the version, or the channel as it is, is not what was published, or nobody trusted signed it.
            TransientError: others moved the channel again and again meanwhile.
        """
        self.trust.check_can_write()
        key = channel_key(voice, channel)
        for _ in range(SWAP_ATTEMPTS):
            change = Change() if version is None else self._on_version(voice, version, new)  # again: `gc` may run
            release = None if version is None else self._movable(voice, version, new if change.adds else None)
            if new is not None and not change.adds:
                action = "republish"
            present, tag = self.shelf.look(ChannelPointer, key)
            last = self.last_event(voice, channel, present, action)
            if last is not None and expected not in (None, last.id):
                raise MovedMeanwhile(
                    f"{voice}: {last.actor} moved {channel} to {last.version} just now ({last.action})",
                    hint=f"voxline registry history {voice}, then decide again",
                )
            if present is not None and present.version == version:
                return None
            served = present.version if present else None
            event = self.trust.signed(next_event(voice, channel, last, served, release, action, mover))
            if self._swap(key, ChannelPointer(version=version, event=event), tag, change):
                return event
        raise self.shelf.contended(key, "moved")

    def _on_version(self, voice: str, version: str, new: NewRelease | None) -> Change:
        """What a move to a version says of that version: it is still what it was, or it is stored now."""
        key = record_key(voice, version)
        stored = self.shelf.backend.get(key)
        if stored is not None or new is None:
            return Change(expects={key: stored.tag if stored else None})
        return Change(expects={key: None}, puts={key: dumped(new.release)}, adds=new.staged)

    def _movable(self, voice: str, version: str, new: NewRelease | None) -> Release:
        """A release that a channel may be pointed to. Files that lie elsewhere were compared when they were stored."""
        if new is not None:
            return new.release
        if not self.releases.has(voice, version):
            raise UsageError(
                f"{voice}: no version {version} in {self.shelf.url}", hint=f"voxline registry show {voice}"
            )
        below = EVERYTHING if self.shelf.backend.is_local else ()
        return self.releases.checked(voice, version, self.history(voice), below)[0]

    def last_event(self, voice: str, channel: Channel, present: ChannelPointer | None, action: Action) -> Event | None:
        """The channel's last event, with its file, which a publisher may have been killed before writing.

        A voice can always be retired, and a named version put in place of one that nobody trusted put there.
        """
        if present is None:
            return self.events.newest(voice, channel, None)  # some, where a damaged channel file was removed
        self._check_place(voice, channel, present)
        is_rescue = action in ("retire", "rollback") or present.version is None
        if not is_rescue:
            self.check_head(voice, channel, present)
        self.events.write(present.event)
        return (is_rescue and self.events.newest(voice, channel, present.event)) or present.event

    def _check_place(self, voice: str, channel: Channel, pointer: ChannelPointer) -> None:
        if problem := place_problem(pointer, voice, channel):
            hint = f"remove that file, then put the voice back: voxline registry rollback {voice} --to VERSION"
            raise NotTrusted(f"{voice}: {problem}", hint=hint)

    def _swap(self, key: str, pointer: ChannelPointer, tag: str | None, also: Change) -> bool:
        """Move a channel and give the move a record of its own, in one commit with what else changes."""
        event = pointer.event
        return self.shelf.backend.commit(
            event.voice,
            replace(
                also,
                expects={**also.expects, key: tag},
                puts={**also.puts, key: dumped(pointer), event_key(event): dumped(event)},
            ),
        )

    def sign(self, voice: str, channel: Channel, keys: frozenset[str], mover: Mover) -> bool:
        """Add an event that stands for all before it, where the history does not stand by itself."""
        key = channel_key(voice, channel)
        for _ in range(SWAP_ATTEMPTS):
            pointer, tag = self.shelf.look(ChannelPointer, key)
            if pointer is None or pointer.version is None:
                return False
            self._check_place(voice, channel, pointer)
            events = [event for event in self.events.examine(voice)[0] if event.channel == channel]
            if not any(finding.is_damage for finding in chain_findings(events, pointer, channel, keys)):
                return False
            last = max([*events, pointer.event], key=lambda event: event.id)
            release = self.releases.get(voice, pointer.version)
            event = self.trust.signed(next_event(voice, channel, last, pointer.version, release, "sign", mover))
            if self._swap(key, ChannelPointer(version=pointer.version, event=event), tag, Change()):
                return True
        raise self.shelf.contended(key, "moved")
