"""What a plan and a list need to know of every voice: a few small records for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.errors import PipelineError, TransientError
from pipeline.io.registry.chain import pin_problem, pointer_problem, release_problem
from pipeline.io.registry.channels import Channels
from pipeline.io.registry.rollbacks import rolled_back
from pipeline.io.registry.shelf import INDEX_KEY, SWAP_ATTEMPTS
from pipeline.io.voices import check_name
from pipeline.records.base import Record
from pipeline.records.release import CHANNELS, Channel, ChannelPointer, Version
from pipeline.records.voice import VoiceName, is_voice_name

AT_ONCE = 16
NOTE_ATTEMPTS = 2


@dataclass(frozen=True)
class VoiceState:
    """What a plan needs to know about one voice in the registry.

    Attributes:
        versions: all releases, by the names of their folders.
        rolled_back: versions that people took off production and that it must not go back to by itself.
        is_reviewed: the release on channel candidate says itself that a person has to hear it first.
    """

    production: ChannelPointer | None
    candidate: ChannelPointer | None
    versions: frozenset[str]
    rolled_back: frozenset[str] = frozenset()
    is_reviewed: bool = False

    def on(self, channel: Channel) -> ChannelPointer | None:
        return self.production if channel == "production" else self.candidate


class IndexEntry(Record):
    """What a list tells of a voice. ``tag``: of the records it was made from; where they have another, it is old."""

    tag: str
    production: ChannelPointer | None
    candidate: ChannelPointer | None
    versions: tuple[Version, ...]
    rolled_back: tuple[Version, ...] = ()

    def state(self) -> VoiceState:
        versions, back = frozenset[str](self.versions), frozenset[str](self.rolled_back)
        return VoiceState(self.production, self.candidate, versions, back)


class Index(Record):
    """A list of all voices, so that nobody has to read each; nothing but a list is ever made from it."""

    format: int = 1
    voices: dict[VoiceName, IndexEntry]


def states(channels: Channels) -> dict[str, VoiceState]:
    """All voices: by the index, as far as their records are still those that it was made from."""
    backend = channels.shelf.backend
    tags = backend.tags()
    if tags is None:
        return {name: state_of(channels, name) for name in backend.children("") if is_voice_name(name)}
    listed = _index(channels).voices
    known = {name: listed[name].state() for name in tags if name in listed and listed[name].tag == tags[name]}
    fresh = _entries(channels, [name for name in tags if name not in known])
    found = known | {name: entry.state() for name, entry in fresh.items()}
    return {name: found[name] for name in sorted(found)}


def note(channels: Channels, voice: str) -> None:
    """Bring a voice's entry up to date. A list is right without it, only slower; so nothing is made of a failure."""
    if channels.shelf.backend.tag(check_name(voice)) is None:
        return
    try:
        for _ in range(NOTE_ATTEMPTS):
            if _put(channels, _entries(channels, [voice]), keep=True):
                return
    except PipelineError:
        return


def reindex(channels: Channels) -> int | None:
    """Make the index anew; the number of voices, or None where there is no need of one."""
    tags = channels.shelf.backend.tags()
    if tags is None:
        return None
    entries = _entries(channels, sorted(tags))
    for _ in range(SWAP_ATTEMPTS):
        if _put(channels, entries, keep=False):
            return len(entries)
    raise channels.shelf.contended(INDEX_KEY, "written")


def _entries(channels: Channels, voices: Sequence[str]) -> dict[str, IndexEntry]:
    """Made from the records themselves, of many voices at once."""
    backend = channels.shelf.backend

    def entry(voice: str) -> IndexEntry:
        with backend.look():
            state = state_of(channels, voice)
            return IndexEntry(
                tag=backend.tag(voice) or "",
                production=state.production,
                candidate=state.candidate,
                versions=tuple(sorted(state.versions)),
                rolled_back=tuple(sorted(state.rolled_back)),
            )

    if len(voices) == 1:
        return {voices[0]: entry(voices[0])}
    if voices:
        backend.prepare(list(voices))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(voices, pool.map(entry, voices), strict=True))


def _index(channels: Channels) -> Index:
    """The index; an empty one where there is none, or one that cannot be read: it says nothing that counts."""
    try:
        return channels.shelf.find(Index, INDEX_KEY) or Index(voices={})
    except TransientError:
        raise
    except PipelineError:
        return Index(voices={})


def _put(channels: Channels, entries: Mapping[str, IndexEntry], *, keep: bool) -> bool:
    stored = channels.shelf.backend.get(INDEX_KEY)
    before = _index(channels).voices if keep else {}
    return channels.shelf.swap(INDEX_KEY, Index(voices={**before, **entries}), stored.tag if stored else None)


def state_of(channels: Channels, voice: str) -> VoiceState:
    """One voice, without a look at its manifests."""
    production, candidate = channels.pointer(voice, "production"), channels.pointer(voice, "candidate")
    is_rolled_back = production is not None and production.event.action in ("rollback", "sign")
    return VoiceState(
        production,
        candidate,
        frozenset(channels.releases.folders(voice)),
        rolled_back(channels, voice) if is_rolled_back else frozenset(),
        _is_reviewed(channels, voice, candidate, production),
    )


def _is_reviewed(
    channels: Channels, voice: str, candidate: ChannelPointer | None, production: ChannelPointer | None
) -> bool:
    """Whether the candidate's manifest asks for a person; only looked at where production serves another version."""
    version = candidate.version if candidate else None
    if version is None or (production is not None and production.version == version):
        return False
    release = channels.releases.find(voice, version)
    return release is not None and release.review == "required"


def trees(channels: Channels, voice: str, state: VoiceState) -> dict[str, str]:
    """Git tree id -> content digest, of the releases on the voice's channels that recorded their tree."""
    found = {}
    for channel in CHANNELS:
        pointer = state.on(channel)
        if pointer is not None and pointer.version is not None:
            release = channels.releases.get(voice, pointer.version)
            problem = pin_problem(release, [pointer.event])
            if not problem and not release_problem(release, voice, pointer.version, channels.trust.keys):
                found[release.provenance.git_tree] = release.content_digest  # else the blobs are asked
    return {tree: digest for tree, digest in found.items() if tree}


def not_trusted(channels: Channels, states: Mapping[str, VoiceState]) -> list[str]:
    """Voices with a channel whose last move nobody trusted has signed; none where nobody is named."""
    keys = channels.trust.keys
    return [
        voice
        for voice, state in states.items()
        for channel in CHANNELS
        if keys and (pointer := state.on(channel)) is not None and pointer_problem(pointer, voice, channel, keys)
    ]
