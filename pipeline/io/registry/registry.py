"""The registry of published voices: the one door to releases, channels and events.

A voice changes in one commit (``backend``). A folder writes the files, then release.json, then the channel's pointer,
then the event's own file; elsewhere all of it becomes visible at once.

release.json is the manifest: it names every file with its digest, and the voice and version it belongs to. Events are
chained by digest; both are signed where a key is given. ``verified`` is how a release is used: it believes nothing that
does not fit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from pipeline.errors import PipelineError, SettingsError
from pipeline.io.registry import listing, rollbacks
from pipeline.io.registry.backend import Backend
from pipeline.io.registry.chain import Finding, refusal_problem
from pipeline.io.registry.channels import Channels, NewRelease
from pipeline.io.registry.collection import Collected, collect
from pipeline.io.registry.events import Events, Mover
from pipeline.io.registry.downloads import Downloads
from pipeline.io.registry.examination import examine
from pipeline.io.registry.folder import FolderBackend
from pipeline.io.registry.listing import VoiceState
from pipeline.io.registry.releases import EVERYTHING, Releases, check_files
from pipeline.io.registry.remote import Place, RemoteBackend
from pipeline.io.registry.shelf import REFUSALS, SWAP_ATTEMPTS, Shelf, refusal_key
from pipeline.io.registry.trust import Trust
from pipeline.io.voices import check_name
from pipeline.records.release import CHANNELS, Action, Channel, ChannelPointer, Event, Refusal, Release
from pipeline.records.voice import is_voice_name


# What stands before the colon, and how the whole is written.
REMOTE = {"git": "git:REMOTE[#REF]", "s3": "s3://BUCKET/FOLDER", "hf": "hf://ORGANISATION"}

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


def one_look(method: Callable[Concatenate[Registry, Asked], Answer]) -> Callable[Concatenate[Registry, Asked], Answer]:
    """What a method of the registry reads, it reads once; and nothing of it from before."""

    @wraps(method)
    def looking(registry: Registry, /, *args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
        with registry.backend.look():
            return method(registry, *args, **kwargs)

    return looking


@dataclass(frozen=True)
class Registry:
    """Releases, channels and events above a backend.

    Attributes:
        place: the URL in full, the same from every folder.
    """

    backend: Backend
    url: str = field(default="")
    trust: Trust = field(default=Trust())
    place: str = field(default="")

    @cached_property
    def _shelf(self) -> Shelf:
        return Shelf(self.backend, self.url)

    @cached_property
    def _releases(self) -> Releases:
        return Releases(self._shelf, self.trust)

    @cached_property
    def _channels(self) -> Channels:
        return Channels(self._shelf, self.trust, self.place, self._releases, Events(self._shelf))

    def without_keys(self) -> Registry:
        """The same registry for one who asks for no signature."""
        return replace(self, trust=replace(self.trust, keys=frozenset()))

    # Reading

    @one_look
    def voices(self) -> list[str]:
        """Names of all voices that were ever published. What else lies in the folder is not ours."""
        return [name for name in self.backend.children("") if is_voice_name(name)]

    @one_look
    def versions(self, voice: str) -> list[str]:
        """Versions of a voice, in no order that means anything; each is complete."""
        return self._releases.versions(voice)

    @one_look
    def has(self, voice: str, version: str) -> bool:
        """Whether the registry holds this version completely."""
        return self._releases.has(voice, version)

    @one_look
    def release(self, voice: str, version: str) -> Release:
        """The manifest of a version, as it lies there. Raises UsageError where there is none."""
        return self._releases.get(voice, version)

    @one_look
    def pointer(self, voice: str, channel: Channel) -> ChannelPointer | None:
        """What a channel serves, or None when nothing was ever put on it."""
        return self._channels.pointer(voice, channel)

    @one_look
    def history(self, voice: str) -> list[Event]:
        """Every move of the voice's channels, oldest first, including one whose event file is not written yet."""
        return self._channels.history(voice)

    @one_look
    def resolve(self, voice: str, channel_or_version: str = "production") -> Release:
        """The manifest of the release that a channel serves, or that has this version, as it lies there: to be shown.

        Raises:
            UsageError: the voice was never published, is retired, or has no such version.
        """
        channel = _as_channel(channel_or_version)
        check_name(voice)
        return self.release(voice, self._channels.served(voice, channel)[0] if channel else channel_or_version)

    @one_look
    def verified(
        self, voice: str, channel_or_version: str = "production", *, below: tuple[str, ...] = EVERYTHING
    ) -> tuple[Release, Path]:
        """A release to be used, and the folder with its files, which are what was published.

        Args:
            below: the folders and files of the release that will be read; everything where one is empty.

        Raises:
            UsageError: as ``resolve``.
            NotTrusted: the channel, the manifest or a file is not what was published; nobody trusted signed it; or
                this machine has seen a later state of the channel.
        """
        check_name(voice)
        if channel := _as_channel(channel_or_version):
            return self._channels.verified(voice, channel, below)
        return self._releases.checked(voice, channel_or_version, self.history(voice), below)

    @one_look
    def states(self) -> dict[str, VoiceState]:
        """All voices at once, for ``plan``: a few small files for each, or an index of them, no release records."""
        return listing.states(self._channels)

    @one_look
    def trees(self, voice: str, state: VoiceState) -> dict[str, str]:
        """Git tree id -> content digest, of the releases on the voice's channels that recorded their tree."""
        return listing.trees(self._channels, voice, state)

    def not_trusted(self, states: Mapping[str, VoiceState]) -> list[str]:
        """Voices with a channel whose last move nobody trusted has signed; none where nobody is named."""
        return listing.not_trusted(self._channels, states)

    @one_look
    def refusals(self) -> dict[str, Refusal]:
        """The last refusal of every voice that has one; with trusted keys, only those that are signed by one."""
        return {
            refusal.voice: refusal
            for name in self.backend.children(REFUSALS)
            if (refusal := self._shelf.find(Refusal, f"{REFUSALS}/{name}")) is not None
            if not refusal_problem(refusal, name, self.trust.keys)
        }

    # Writing

    @one_look
    def publish(
        self,
        voice: str,
        release: Release,
        files: Mapping[str, Path],
        *,
        channel: Channel = "production",
        actor: str,
        reason: str = "",
    ) -> Release:
        """Store a release unless the registry has this version already, then move the channel to it.

        Publishing the same twice changes nothing. A publisher killed at any point leaves nothing that can be seen half.

        Args:
            release: its ``files`` are filled here.
            files: path inside the release -> local file: ``card.md``, ``adapter/synthesizer/adapter_config.json`` ...

        Returns:
            The release as stored: the earlier one when there was one.

        Raises:
            SettingsError: a path leads out of the release, or a weight file is not safetensors.
            TransientError: full disk, or the registry is held by others for too long.
        """
        check_files(files)
        self.trust.check_can_write()
        mover = Mover(actor, release.provenance.git_revision, release.provenance.pipeline, reason)
        new = None
        if not self.has(voice, release.version):
            present = self.pointer(voice, channel)
            self._channels.last_event(voice, channel, present, "publish")  # refuse before anything is brought there
            new = NewRelease(*self._releases.staged(voice, release, files))
        action: Action = "publish" if new else "republish"
        if self._channels.move(voice, channel, release.version, action=action, mover=mover, new=new):
            listing.note(self._channels, voice)
        return self.release(voice, release.version)

    @one_look
    def adopt(self, voice: str, version: str, source: str) -> Release:
        """Store another voice's release under this name: the folder was only renamed, so nothing has to be trained."""
        self.trust.check_can_write()
        original, folder = self.verified(source, version)
        if not self.has(voice, version):
            self._releases.copy(voice, original, folder)
        return self.release(voice, version)

    @one_look
    def republish(self, voice: str, version: str, *, channel: Channel, mover: Mover) -> Release | None:
        """Put a version that was published before on the channel, without training: a revert, or a renamed folder.

        A release that a person has to review goes to channel candidate instead.

        Returns:
            The release, or None when no voice of this registry has the version.
        """
        if not self.has(voice, version):
            holder = next((name for name in self._holders(version) if name != voice and self.has(name, version)), None)
            if holder is None:
                return None
            self.adopt(voice, version, holder)
        release = self.release(voice, version)
        self.move(voice, release.channel(channel), version, action="republish", mover=mover)
        return release

    def _holders(self, version: str) -> list[str]:
        """Voices that may have a version; elsewhere the index says which, since nobody asks thousands one by one."""
        if self.backend.is_local:
            return self.voices()
        return [name for name, state in listing.states(self._channels).items() if version in state.versions]

    @one_look
    def move(self, voice: str, channel: Channel, version: str | None, *, action: Action, mover: Mover) -> Event | None:
        """Point a channel to a version, or to none. Returns None when it points there already.

        Raises:
            UsageError: the registry does not hold the version.
            NotTrusted: the version, or the channel as it is, is not what was published, or nobody trusted signed it.
            TransientError: others moved the channel again and again meanwhile.
        """
        return self._channels.move(voice, channel, version, action=action, mover=mover)

    @one_look
    def promote(self, voice: str, version: str | None, mover: Mover) -> Event | None:
        """Put the candidate, or a named version, on production."""
        chosen = version or self.verified(voice, "candidate")[0].version
        return self.move(voice, "production", chosen, action="promote", mover=mover)

    @one_look
    def rollback(self, voice: str, version: str | None, mover: Mover) -> Event | None:
        """Put production back to the newest version before that was not rolled back itself, or to a named one.

        Returns:
            None when production is on the named version already, or was rolled back and not moved since.

        Raises:
            UsageError: there is no version before.
            MovedMeanwhile: somebody put another version on production just now.
        """
        if version is not None:
            return self.move(voice, "production", version, action="rollback", mover=mover)
        return rollbacks.roll_back(self._channels, voice, mover)

    @one_look
    def version_before(self, voice: str, present: str | None) -> str:
        """What a rollback goes to from a version. Raises UsageError where there is none."""
        return rollbacks.version_before(self._channels, voice, present)

    @one_look
    def retire(self, voice: str, mover: Mover) -> list[Event]:
        """Take a voice off all channels. Its releases stay until ``gc``, so this can be undone."""
        moved = []
        for channel in CHANNELS:
            pointer = self.pointer(voice, channel)
            if pointer is not None and pointer.version is not None:
                moved.append(self.move(voice, channel, None, action="retire", mover=mover))
        return [event for event in moved if event is not None]

    @one_look
    def sign(self, voice: str, mover: Mover) -> list[str]:
        """Stand for everything a voice has, as it is now, with our key: for what was written before there was one.

        Signs the manifests anew, and adds an event to each channel whose history does not stand by itself.

        Returns:
            What was signed: versions and channels; nothing when all is signed already.

        Raises:
            NotTrusted: a file of a release is not what its manifest says.
        """
        signer = self.trust.signer
        if signer is None:
            raise SettingsError("there is no key to sign with", hint="set VOXLINE_SIGNING_KEY, or voxline keys new")
        self.trust.check_can_write()
        keys = self.trust.keys or frozenset({signer.public_key})
        versions = [version for version in self.versions(voice) if self._releases.sign(voice, version, keys)]
        return [*versions, *(channel for channel in CHANNELS if self._channels.sign(voice, channel, keys, mover))]

    @one_look
    def refuse(self, refusal: Refusal) -> None:
        """Note that a version was tried and refused, in place of the voice's refusal before; signed where we can."""
        key, refusal = refusal_key(refusal.voice), self.trust.signed(refusal)
        for _ in range(SWAP_ATTEMPTS):
            stored = self.backend.get(key)  # not read as a record: a damaged one is replaced
            if self._shelf.swap(key, refusal, stored.tag if stored else None):
                return
        raise self._shelf.contended(key, "written")

    # Upkeep

    @one_look
    def reindex(self) -> int | None:
        """Make the index anew that lists and plans read; how many voices it has, or None where none is needed."""
        return listing.reindex(self._channels)

    def verify(self, voice: str) -> list[str]:
        """What is wrong with a voice's releases, channels and events: a line for each damage, none when all is well."""
        return [finding.message for finding in self.examine(voice) if finding.is_damage]

    @one_look
    def examine(self, voice: str) -> list[Finding]:
        """Everything there is to say about a voice's releases, channels and events; every file is read."""
        return examine(self._channels, voice)

    @one_look
    def examine_refusals(self) -> list[Finding]:
        """Notes of refused versions that are not believed: what they name is tried again."""
        findings = []
        for name in self.backend.children(REFUSALS):
            try:
                refusal = self._shelf.find(Refusal, f"{REFUSALS}/{name}")
            except PipelineError as error:
                findings.append(Finding(error.message))
                continue
            if refusal is not None and (problem := refusal_problem(refusal, name, self.trust.keys)):
                findings.append(Finding(f"{REFUSALS}/{name} {problem}", is_damage=refusal.signature is not None))
        return findings

    @one_look
    def collect(self, *, unused_days: int, now: datetime | None = None, dry_run: bool) -> list[Collected]:
        """Remove releases that no channel names and that no event of the last ``unused_days`` days names."""
        since = (now or datetime.now(UTC)) - timedelta(days=unused_days)
        voices = self.voices()
        self.backend.prepare(voices)
        return [one for voice in voices for one in collect(self._channels, voice, since, dry_run=dry_run)]


def open_registry(
    url: str, *, root: Path | None = None, trust: Trust | None = None, cache: Path | None = None
) -> Registry:
    """The registry at a URL; a relative path counts from ``root``. Creates nothing, and asks nobody yet.

    Args:
        cache: folder for what is downloaded; the user's own where none is named.

    Raises:
        SettingsError: an address that this installation cannot open.
    """
    scheme, separator, rest = url.partition(":")
    here = root or Path()
    if scheme == "file" and rest:
        folder = Path("/" + rest.lstrip("/")) if rest.startswith("/") else here / rest
        if folder.exists() and not folder.is_dir():
            raise SettingsError(f"registry {url!r}: {folder} is not a folder")
        return Registry(FolderBackend(folder), url, trust or Trust(), f"file:{folder.absolute()}")
    if scheme not in REMOTE or not rest:
        meant = url if "/" in url and not separator else "registry"
        kinds = ", ".join(("file:FOLDER", *REMOTE.values()))
        raise SettingsError(f"registry {url!r}: none of {kinds}", hint=f"--registry file:{meant}")
    kept = downloads_folder(cache or Path("~/.cache/voxline").expanduser())
    place = _remote_place(scheme, rest, kept, here)
    return Registry(RemoteBackend(place, Downloads(kept)), place.url, trust or Trust(), place.identity)


def downloads_folder(cache: Path) -> Path:
    """Where in a user's cache lies what came from registries."""
    return cache / "registry"


def _remote_place(scheme: str, rest: str, cache: Path, root: Path) -> Place:
    """A place on another machine, by what stands before and behind the colon of its URL."""
    if scheme == "s3":
        from pipeline.io.registry.bucket_place import open_bucket

        return open_bucket(rest, cache / "s3", os.environ)
    if scheme == "hf":
        from pipeline.io.registry.hub_place import open_hub

        return open_hub(rest, os.environ)
    from pipeline.io.registry.git_place import open_git

    return open_git(rest, cache / "git", os.environ, root)


def _as_channel(name: str) -> Channel | None:
    """A channel by its name; None where it is no channel's."""
    return next((channel for channel in CHANNELS if channel == name), None)
