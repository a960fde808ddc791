"""Everything that can be said about a voice's releases, channels and events; every file is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.errors import PipelineError, TransientError
from pipeline.io.registry.chain import Finding, chain_findings, pin_problem, pointer_problem, release_problem
from pipeline.io.registry.channels import Channels
from pipeline.io.registry.shelf import RECORD_FILE, SWAP_ATTEMPTS, record_key, release_prefix
from pipeline.io.registry.trust import Digester, NotTrusted, file_problems
from pipeline.io.voices import check_name
from pipeline.records.release import CHANNELS, Channel, ChannelPointer, Event, Release


def examine(channels: Channels, voice: str) -> list[Finding]:
    """Damages and remarks of one voice."""
    try:
        for name in ("releases", "channels", "events"):
            channels.shelf.backend.children(f"{check_name(voice)}/{name}")
    except TransientError:
        raise  # says nothing about the voice
    except PipelineError as error:
        return [Finding(f"{voice}: {error.message}")]
    for _ in range(SWAP_ATTEMPTS):
        pointers = _read_pointers(channels, voice)
        events, findings = channels.events.examine(voice)
        if _read_pointers(channels, voice) == pointers:  # nobody moved a channel while the events were read
            break
    damages = [
        Finding(f"{voice}/{version}: {problem}")
        for version in channels.releases.folders(voice)
        for problem in _release_damages(channels, voice, version, events)
    ]
    about_channels = [
        finding
        for channel, pointer in zip(CHANNELS, pointers, strict=True)
        for finding in _channel_findings(channels, voice, channel, pointer, events)
    ]
    return [*damages, *about_channels, *findings]


def _read_pointers(channels: Channels, voice: str) -> list[ChannelPointer | str | None]:
    """What each channel serves, or what is wrong with its file."""
    found: list[ChannelPointer | str | None] = []
    for channel in CHANNELS:
        try:
            found.append(channels.pointer(voice, channel))
        except PipelineError as error:
            found.append(error.message)
    return found


def _channel_findings(
    channels: Channels, voice: str, channel: Channel, pointer: ChannelPointer | str | None, events: Sequence[Event]
) -> Iterator[Finding]:
    if isinstance(pointer, str):
        yield Finding(pointer)
        return
    if pointer is not None and (problem := pointer_problem(pointer, voice, channel)):
        yield Finding(f"{voice}: {problem}")
        return
    served = pointer.version if pointer else None
    if served is not None and served not in channels.releases.folders(voice):  # what lies there is told elsewhere
        yield Finding(f"{voice}: channel {channel} names {served}, which is not there")
    own = [event for event in events if event.channel == channel]
    for finding in chain_findings(own, pointer, channel, channels.trust.keys):
        yield Finding(f"{voice}: {finding.message}", finding.is_damage)
    if pointer is not None:
        try:
            channels.trust.check_not_older(channels.place, pointer.event)
        except NotTrusted as error:
            yield Finding(error.message)


def _release_damages(channels: Channels, voice: str, version: str, events: Sequence[Event]) -> Iterator[str]:
    try:
        release = channels.shelf.find(Release, record_key(voice, version))
        if release is None:
            yield f"{RECORD_FILE} is missing"
            return
        folder = channels.shelf.backend.release_folder(release_prefix(voice, version), release.files, anew=True)
    except TransientError:
        raise
    except PipelineError as error:
        yield error.message
        return
    if problem := release_problem(release, voice, version, channels.trust.keys) or pin_problem(release, events):
        yield problem
    yield from file_problems(folder, release.files, RECORD_FILE, Digester())
