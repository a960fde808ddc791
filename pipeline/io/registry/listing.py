"""What a plan and a list need to know of every voice: a few small records for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.io.registry.chain import pin_problem, pointer_problem, release_problem
from pipeline.io.registry.channels import Channels
from pipeline.io.registry.rollbacks import rolled_back
from pipeline.records.release import CHANNELS, Channel, ChannelPointer


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
