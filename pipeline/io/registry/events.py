"""Events: every move of a channel in a file of its own, which is never changed and never removed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.errors import PipelineError
from pipeline.io.registry.chain import Finding, copies_differ
from pipeline.io.registry.shelf import Shelf, event_key, events_prefix
from pipeline.records.release import Action, Channel, Event, Release, event_digest, manifest_digest


@dataclass(frozen=True)
class Mover:
    """Who moves a channel, and from where; goes into the event."""

    actor: str
    git_revision: str = ""
    pipeline: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Events:
    """The events of all voices that have a file of their own."""

    shelf: Shelf

    def of(self, voice: str) -> list[Event]:
        """Everything that lies among a voice's events, in order of the files' names."""
        return list(self.shelf.all(Event, events_prefix(voice)))

    def newest(self, voice: str, channel: Channel, after: Event | None) -> Event | None:
        """The channel's last event that is later than one, or None."""
        prefix, since = events_prefix(voice), after.id if after else ""
        for name in reversed(self.shelf.backend.children(prefix)):
            if name <= f"{since}.json":
                break
            event = self.shelf.find(Event, f"{prefix}/{name}")
            if event is not None and (event.voice, event.channel) == (voice, channel) and event.id > since:
                return event
        return None

    def differing_copy(self, event: Event) -> str:
        """What to say when an event's own file, if it was written already, is not the event."""
        stored = self.shelf.find(Event, event_key(event))
        return "" if stored in (None, event) else copies_differ(event)

    def examine(self, voice: str) -> tuple[list[Event], list[Finding]]:
        """The voice's own events in order, and what is wrong with the other files beside them."""
        prefix = events_prefix(voice)
        events, findings = [], []
        for name in self.shelf.backend.children(prefix):
            try:
                event = self.shelf.find(Event, f"{prefix}/{name}")
            except PipelineError as error:
                findings.append(Finding(error.message))
                continue
            if event is not None and (event.voice, f"{event.id}.json") != (voice, name):
                findings.append(Finding(f"{voice}/events/{name} holds event {event.id} of {event.voice}"))
            elif event is not None:
                events.append(event)
        return sorted(events, key=lambda event: event.id), findings

    def write(self, event: Event) -> None:
        """Give a move its file, unless it has one already."""
        if self.shelf.backend.get(event_key(event)) is None:
            self.shelf.swap(event_key(event), event, None)


def next_event(
    voice: str,
    channel: Channel,
    last: Event | None,
    served: str | None,
    release: Release | None,
    action: Action,
    mover: Mover,
) -> Event:
    """A move from what was served to a release, or to none, after the channel's last event."""
    now = datetime.now(UTC)
    return Event(
        id=event_id(now, last.id if last else ""),
        voice=voice,
        channel=channel,
        action=action,
        previous=served,
        version=release.version if release else None,
        actor=mover.actor,
        at=now,
        git_revision=mover.git_revision,
        pipeline=mover.pipeline,
        reason=mover.reason,
        sequence=((last.sequence if last else None) or 0) + 1,
        event_before=event_digest(last) if last else None,
        release_digest=manifest_digest(release) if release else None,
    )


def event_id(now: datetime, previous: str) -> str:
    """Milliseconds as 12 hex digits, then 8 random ones; after the channel's last event even if the clock went back."""
    milliseconds = max(0, int(now.timestamp() * 1000))  # a machine without a battery may start before 1970
    if previous:
        milliseconds = max(milliseconds, int(previous[:12], 16) + 1)
    return f"{milliseconds:012x}-{secrets.token_hex(4)}"
