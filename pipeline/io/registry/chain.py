"""What the records of a voice say about each other: the chain of a channel's events, and the manifest of a release.

Everything here is a comparison of records that were read before; nothing opens a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.io.signing import is_genuine, key_id
from pipeline.records.release import (
    Channel,
    ChannelPointer,
    Event,
    Refusal,
    Release,
    event_digest,
    manifest_digest,
    release_version,
)

VOUCH = "voxline registry sign"


@dataclass(frozen=True)
class Finding:
    """Something about a registry that a person should know.

    Attributes:
        is_damage: what was published is no longer what is there, or nobody trusted stands for it; else a remark.
    """

    message: str
    is_damage: bool = True


def signature_problem(record: Release | Event | Refusal, trusted_keys: frozenset[str]) -> str:
    """Why a record is not to be believed by its signature, or an empty string.

    Args:
        trusted_keys: empty when nobody said whom to trust: then a signature must only fit.
    """
    if record.signature is None:
        return "is not signed" if trusted_keys else ""
    if trusted_keys and record.signature.key not in trusted_keys:
        return f"is signed by key {key_id(record.signature.key)}, which registry.trusted_keys does not name"
    return "" if is_genuine(record) else "is not what was signed: it was changed, or its signature was"


def release_problem(release: Release, voice: str, version: str, trusted_keys: frozenset[str]) -> str:
    """Why a manifest that was found at a place is not to be believed there, or an empty string."""
    if release.voice != voice:
        return f"release.json is of the voice {release.voice}: the folder was copied here"
    if release.version != version:
        return f"release.json is of version {release.version}: the folder was renamed"
    if release_version(release.content_digest, release.base_digest, release.recipe_digest) != version:
        return "release.json was changed: its digests of content, base and recipe do not give this version"
    problem = signature_problem(release, trusted_keys)
    return problem and f"release.json {problem}"


def refusal_problem(refusal: Refusal, name: str, trusted_keys: frozenset[str]) -> str:
    """Why a note of a refusal is not to be believed in the file where it was found, or an empty string."""
    if name != f"{refusal.voice}.json":
        return f"is of the voice {refusal.voice}: it was copied here"
    return signature_problem(refusal, trusted_keys)


def pointer_problem(
    pointer: ChannelPointer, voice: str, channel: Channel, trusted_keys: frozenset[str] = frozenset()
) -> str:
    """Why a channel's file is not to be believed, or an empty string."""
    event = pointer.event
    if problem := place_problem(pointer, voice, channel):
        return problem
    if event.version != pointer.version:
        return f"channels/{channel}.json was changed: it names {pointer.version}, its event {event.version}"
    problem = signature_problem(event, trusted_keys)
    return problem and f"channels/{channel}.json: {named(event)} {problem}"


def place_problem(pointer: ChannelPointer, voice: str, channel: Channel) -> str:
    """What to say when a channel's file belongs elsewhere, or an empty string."""
    event = pointer.event
    if (event.voice, event.channel) == (voice, channel):
        return ""
    return f"channels/{channel}.json is of {event.voice}, channel {event.channel}: it was copied here"


def replay_problem(head: Event, newest: Event) -> str:
    """What to say when the history goes on after the event that a channel's file holds."""
    return (
        f"channels/{head.channel}.json is an old one that was put back: it ends with {named(head)},"
        f" the history with {named(newest)}"
    )


def copies_differ(head: Event) -> str:
    """What to say when the newest event is not the same in both of its places."""
    return f"{named(head)} was changed: its file and channels/{head.channel}.json differ"


def named(event: Event) -> str:
    number = "" if event.sequence is None else f" {event.sequence}"
    return f"event{number} ({event.id})"


def chain_findings(
    events: Sequence[Event], pointer: ChannelPointer | None, channel: Channel, trusted_keys: frozenset[str]
) -> list[Finding]:
    """Everything that is wrong with one channel's history.

    Who signs a ``sign`` event says that what lies before it was looked at; damage there becomes a remark.

    Args:
        events: those that have a file of their own, of this channel, in order of their ids.
    """
    known = list(events)
    found = []
    if pointer is None:
        if known:
            found.append((0, f"channels/{channel}.json is missing; its history has {len(known)} events"))
    else:
        found += _head_problems(known, pointer.event)
        if not known or pointer.event.id > known[-1].id:
            known.append(pointer.event)  # its own file comes after the channel's; the next mover completes it
    found += _link_problems(known)
    found += _signature_problems(known, trusted_keys)
    vouched = _vouched_until(known, trusted_keys)
    findings = [
        Finding(f"{message}{'; looked at and signed since' if at < vouched else ''}", is_damage=at >= vouched)
        for at, message in sorted(found)
    ]
    return [*findings, *_remarks(known, channel, trusted_keys), *_unfinished(events, known)]


def _unfinished(events: Sequence[Event], known: Sequence[Event]) -> Iterator[Finding]:
    """The move that the channel's file holds alone. Somebody who removed the move's own file leaves the same."""
    if len(known) > len(events):
        head = known[-1]
        yield Finding(
            f"{named(head)} has no file of its own, as a publisher that was killed leaves it:"
            f" channels/{head.channel}.json holds the event, and the next move of {head.channel} completes it",
            is_damage=False,
        )


def _head_problems(known: Sequence[Event], head: Event) -> Iterator[tuple[int, str]]:
    """Problems, each with the place in the chain that it has."""
    if not known or head.id > known[-1].id:
        return
    if head.id != known[-1].id:
        yield len(known), replay_problem(head, known[-1])
    own = {event.id: event for event in known}.get(head.id)
    if own is None:
        yield len(known), f"{named(head)} is in channels/{head.channel}.json only: its own file was removed"
    elif own != head:
        yield len(known), copies_differ(head)


def _link_problems(known: Sequence[Event]) -> Iterator[tuple[int, str]]:
    if known and (known[0].sequence or 1) > 1:
        yield 0, f"{_events(known[0].sequence or 1, 1)} before {named(known[0])} removed"
    if known and known[0].sequence == 1 and known[0].event_before is not None:
        yield 0, f"the event before {named(known[0])} was removed"
    for place, (before, after) in enumerate(pairwise(known), 1):
        expected = (before.sequence or 0) + 1
        if after.sequence is None:
            if before.sequence is not None:
                yield place, f"{named(after)} is not chained, though {named(before)} before it is"
        elif after.sequence > expected:
            yield place, f"{_events(after.sequence, expected)} between {named(before)} and {named(after)} removed"
        elif after.sequence < expected:
            yield place, f"{named(after)} cannot follow {named(before)}: its number was given before"
        elif after.event_before != event_digest(before):
            yield place, f"{named(before)} was changed: {named(after)} holds another digest of it"


def _events(until: int, since: int) -> str:
    return "one event was" if until - since == 1 else f"{until - since} events were"


def _signature_problems(known: Sequence[Event], trusted_keys: frozenset[str]) -> Iterator[tuple[int, str]]:
    for place, event in enumerate(known):
        if problem := signature_problem(event, trusted_keys):
            yield place, f"{named(event)} {problem}"


def _vouched_until(known: Sequence[Event], trusted_keys: frozenset[str]) -> int:
    """How many of the oldest events somebody has looked at and signed for."""
    signed = [
        place
        for place, event in enumerate(known)
        if event.action == "sign" and event.signature is not None and not signature_problem(event, trusted_keys)
    ]
    return max(signed, default=-1) + 1


def _remarks(known: Sequence[Event], channel: Channel, trusted_keys: frozenset[str]) -> Iterator[Finding]:
    old = sum(event.sequence is None for event in known)
    if old:
        yield Finding(
            f"{channel}: {old} events were written by an older voxline, neither chained nor signed", is_damage=False
        )
    unsigned = sum(event.signature is None for event in known) - old
    if unsigned and any(event.signature for event in known) and not trusted_keys:
        yield Finding(f"{channel}: {unsigned} of {len(known)} events are not signed", is_damage=False)


def pin_problem(release: Release, events: Sequence[Event]) -> str:
    """Whether the newest event that names a version still finds the manifest it was written for."""
    pins = {event.version: event for event in events if event.version and event.release_digest}
    pin = pins.get(release.version)
    if pin is None or pin.release_digest == manifest_digest(release):
        return ""
    return f"release.json was changed: {named(pin)} of {pin.channel} holds another digest of it"
