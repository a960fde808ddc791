"""The registry of published voices.

```
<voice>/releases/<version>/release.json  card.md  adapter/...  reference/  report/
<voice>/channels/<channel>.json          <voice>/events/<time-sortable id>.json
.refusals/<voice>.json                   what was tried last and not published, so that it is not tried again
```
Order of writing: files, then release.json, then the channel's pointer (compare-and-swap), then the event's own file.
The pointer holds a copy of its event, so whoever moves the channel next completes what a killed publisher left out.

release.json is the manifest: it names every file with its digest, and the voice and version it belongs to. Each event
holds the digest of the manifest it put on the channel and of the channel's event before it; both are signed where a key
is given. ``verified`` is how a release is used: it believes nothing that does not fit.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import ValidationError

from pipeline.config import describe
from pipeline.errors import PipelineError, SettingsError, TransientError, UsageError
from pipeline.io.chain import (
    VOUCH,
    Finding,
    chain_findings,
    copies_differ,
    pin_problem,
    place_problem,
    pointer_problem,
    release_problem,
    replay_problem,
)
from pipeline.io.objects import Backend, FileBackend, Stored
from pipeline.io.registry_trust import Digester, NotTrusted, Trust, file_problems
from pipeline.io.voices import check_name
from pipeline.io.weights import check_safetensors
from pipeline.records.base import Record
from pipeline.records.release import (
    CHANNELS,
    Action,
    Channel,
    ChannelPointer,
    Event,
    Refusal,
    Release,
    ReleaseFile,
    Signed,
    event_digest,
    is_inside,
    is_version,
    manifest_digest,
)
from pipeline.records.voice import is_voice_name

Kind = TypeVar("Kind", bound=Record)

RECORD_FILE = "release.json"
REFUSALS = ".refusals"  # a name that no voice can have, and that is not listed among them
SWAP_ATTEMPTS = 20

# What may lie in a release, by its top folder; adapter/ holds weights and is the strictest.
ADAPTER_SUFFIXES = frozenset({".safetensors", ".json"})


@dataclass(frozen=True)
class VoiceState:
    """What a plan needs to know about one voice in the registry.

    Attributes:
        versions: all releases, by the names of their folders.
        rolled_back: versions that people took off production and that it must not go back to by itself.
    """

    production: ChannelPointer | None
    candidate: ChannelPointer | None
    versions: frozenset[str]
    rolled_back: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Mover:
    """Who moves a channel, and from where; goes into the event."""

    actor: str
    git_revision: str = ""
    pipeline: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Collected:
    """One release that ``gc`` removes, or would remove."""

    voice: str
    version: str
    created_at: datetime
    size_bytes: int


class MovedMeanwhile(UsageError):
    """Somebody else moved the channel between our look at it and our move."""


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

    # Reading

    def voices(self) -> list[str]:
        """Names of all voices that were ever published. What else lies in the folder is not ours."""
        return [name for name in self.backend.children("") if is_voice_name(name)]

    def versions(self, voice: str) -> list[str]:
        """Versions of a voice, in no order that means anything; each is complete."""
        return [name for name in self._version_folders(voice) if self.has(voice, name)]

    def _version_folders(self, voice: str) -> list[str]:
        return [name for name in self.backend.children(f"{check_name(voice)}/releases") if is_version(name)]

    def has(self, voice: str, version: str) -> bool:
        """Whether the registry holds this version completely."""
        return self.backend.get(_record_key(voice, version)) is not None

    def release(self, voice: str, version: str) -> Release:
        """The record of a version.

        Raises:
            UsageError: there is none.
        """
        stored = self.backend.get(_record_key(voice, version))
        if stored is None:
            known = ", ".join(self.versions(voice)[:5]) or "none"
            raise UsageError(f"{voice}: no version {version} in {self.url}", hint=f"there are: {known}")
        return _parse(Release, stored, f"{self.url}/{_record_key(voice, version)}")

    def releases(self, voice: str) -> list[Release]:
        """All releases of a voice, newest first."""
        found = [self.release(voice, version) for version in self.versions(voice)]
        return sorted(found, key=lambda release: release.created_at, reverse=True)

    def pointer(self, voice: str, channel: Channel) -> ChannelPointer | None:
        """What a channel serves, or None when nothing was ever put on it."""
        stored = self.backend.get(_channel_key(voice, channel))
        return _parse(ChannelPointer, stored, f"{self.url}/{_channel_key(voice, channel)}") if stored else None

    def resolve(self, voice: str, channel_or_version: str = "production") -> Release:
        """The manifest of the release that a channel serves, or that has this version, as it lies there: to be shown.

        Raises:
            UsageError: the voice was never published, is retired, or has no such version.
        """
        check_name(voice)
        if channel_or_version not in CHANNELS:
            return self.release(voice, channel_or_version)
        served = self._served(voice, _as_channel(channel_or_version))
        return self.release(voice, served.version or "")

    def verified(
        self, voice: str, channel_or_version: str = "production", *, below: tuple[str, ...] = ("",)
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
        if channel_or_version in CHANNELS:
            served = self._served(voice, _as_channel(channel_or_version))
            self._check_head(voice, _as_channel(channel_or_version), served)
            version, events = served.version or "", [served.event]
        else:
            version, events = channel_or_version, self.history(voice)
        release = self.release(voice, version)
        problem = release_problem(release, voice, version, self.trust.keys) or pin_problem(release, events)
        return release, self._checked_folder(voice, version, release, problem, below)

    def _checked_folder(
        self, voice: str, version: str, release: Release, problem: str, below: tuple[str, ...] = ("",)
    ) -> Path:
        folder = self.backend.local_folder(_release_prefix(voice, version))
        if not problem:
            with Digester(self.trust.digests) as digester:
                problem = "; ".join(file_problems(folder, release.files, RECORD_FILE, digester, below=below))
        if problem:
            raise NotTrusted(f"{voice}/{version}: {problem}", hint="voxline registry verify says all of it")
        return folder

    def _served(self, voice: str, channel: Channel) -> ChannelPointer:
        pointer = self.pointer(voice, channel)
        if pointer is None:
            raise UsageError(f"{voice}: nothing on channel {channel} of {self.url}", hint=f"voxline run {voice}")
        if pointer.version is None:
            hint = f"voxline registry rollback {voice} brings the last version back"
            raise UsageError(f"{voice}: retired on {pointer.event.at:%Y-%m-%d} by {pointer.event.actor}", hint=hint)
        return pointer

    def _check_head(self, voice: str, channel: Channel, pointer: ChannelPointer) -> None:
        """Raises NotTrusted when a channel's file is not the newest that somebody we believe has written."""
        problem = pointer_problem(pointer, voice, channel, self.trust.keys)
        newest = None if problem else self._newest_event(voice, channel, pointer.event)
        if newest is not None and self.pointer(voice, channel) == pointer:  # nobody moved it just now
            problem = replay_problem(pointer.event, newest)
        problem = problem or self._differing_copy(voice, pointer.event)
        if problem:
            hint = f"voxline registry verify {voice}; who has looked at it can vouch for it: {VOUCH} {voice}"
            raise NotTrusted(f"{voice}: {problem}", hint=hint)
        try:
            self.trust.check_not_older(self.place, pointer.event)
        except NotTrusted:
            if self.pointer(voice, channel) == pointer:  # else somebody beside us has seen a later move just now
                raise

    def _differing_copy(self, voice: str, event: Event) -> str:
        """What to say when an event's own file, if it was written already, is not the event."""
        key = f"{check_name(voice)}/events/{event.id}.json"
        stored = self.backend.get(key)
        if stored is None or _parse(Event, stored, f"{self.url}/{key}") == event:
            return ""
        return copies_differ(event)

    def _newest_event(self, voice: str, channel: Channel, after: Event | None) -> Event | None:
        """The channel's last event that is later than one, or None."""
        prefix, since = f"{check_name(voice)}/events", after.id if after else ""
        for name in reversed(self.backend.children(prefix)):
            if name <= f"{since}.json":
                break
            stored = self.backend.get(f"{prefix}/{name}")
            event = _parse(Event, stored, f"{self.url}/{prefix}/{name}") if stored else None
            if event is not None and (event.voice, event.channel) == (voice, channel) and event.id > since:
                return event
        return None

    def history(self, voice: str) -> list[Event]:
        """Every move of the voice's channels, oldest first, including one whose event file is not written yet."""
        prefix = f"{check_name(voice)}/events"
        events = {event.id: event for event in self._read_all(Event, prefix)}
        for channel in CHANNELS:
            pointer = self.pointer(voice, channel)
            if pointer is not None:
                events.setdefault(pointer.event.id, pointer.event)
        return [events[key] for key in sorted(events)]

    def states(self) -> dict[str, VoiceState]:
        """All voices at once, for ``plan``: a few small files for each, no release records."""
        found = {}
        for voice in self.voices():
            production, candidate = (self.pointer(voice, channel) for channel in ("production", "candidate"))
            versions = frozenset(self._version_folders(voice))
            is_rolled_back = production is not None and production.event.action in ("rollback", "sign")
            rolled_back = self._rolled_back(voice) if is_rolled_back else frozenset()
            found[voice] = VoiceState(production, candidate, versions, rolled_back)
        return found

    def refusals(self) -> dict[str, Refusal]:
        """The last refusal of every voice that has one."""
        return {refusal.voice: refusal for refusal in self._read_all(Refusal, REFUSALS)}

    def _read_all(self, kind: type[Kind], prefix: str) -> Iterator[Kind]:
        for name in self.backend.children(prefix):
            stored = self.backend.get(f"{prefix}/{name}")
            if stored is not None:
                yield _parse(kind, stored, f"{self.url}/{prefix}/{name}")

    def trees(self, voice: str, state: VoiceState) -> dict[str, str]:
        """Git tree id -> content digest, of the releases on the voice's channels that recorded their tree."""
        found = {}
        for pointer in (state.production, state.candidate):
            if pointer is not None and pointer.version is not None:
                release = self.release(voice, pointer.version)
                problem = pin_problem(release, [pointer.event])
                if not problem and not release_problem(release, voice, pointer.version, self.trust.keys):
                    found[release.provenance.git_tree] = release.content_digest  # else the blobs are asked
        return {tree: digest for tree, digest in found.items() if tree}

    def not_trusted(self, states: Mapping[str, VoiceState]) -> list[str]:
        """Voices with a channel whose last move nobody trusted has signed; none where nobody is named."""
        return [
            voice
            for voice, state in states.items()
            for channel, pointer in (("candidate", state.candidate), ("production", state.production))
            if self.trust.keys and pointer is not None
            if pointer_problem(pointer, voice, _as_channel(channel), self.trust.keys)
        ]

    def _moves(self, voice: str) -> list[Event]:
        """How production came to where it is, oldest first."""
        return [event for event in self.history(voice) if event.channel == "production" and event.action != "sign"]

    def _rolled_back(self, voice: str) -> frozenset[str]:
        left = set()
        for event in reversed(self._moves(voice)):
            if event.action != "rollback":
                break
            if event.previous is not None:
                left.add(event.previous)
        return frozenset(left)

    # Writing

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
        _check_files(files)
        self.trust.check_can_write()
        action: Action = "republish"
        if not self.has(voice, release.version):
            action = "publish"
            self._last_event(voice, channel, self.pointer(voice, channel), action)  # refuse before anything is stored
            described = {name: _describe(path) for name, path in files.items()}
            record = self._signed(release.model_copy(update={"voice": check_name(voice), "files": described}))
            self.backend.put_folder(
                _release_prefix(voice, release.version),
                {name: (path, described[name].sha256) for name, path in files.items()},
                RECORD_FILE,
                _dump(record),
            )
        stored = self.release(voice, release.version)
        mover = Mover(actor, release.provenance.git_revision, release.provenance.pipeline, reason)
        self.move(voice, channel, release.version, action=action, mover=mover)
        return stored

    def adopt(self, voice: str, version: str, source: str) -> Release:
        """Store another voice's release under this name: the folder was only renamed, so nothing has to be trained."""
        self.trust.check_can_write()
        original, folder = self.verified(source, version)
        if not self.has(voice, version):
            files = {name: (folder / name, told.sha256) for name, told in original.files.items()}
            changes = {"voice": check_name(voice), "copied_from": source, "signature": None}
            record = self._signed(original.model_copy(update=changes))
            self.backend.put_folder(_release_prefix(voice, version), files, RECORD_FILE, _dump(record))
        return self.release(voice, version)

    def republish(self, voice: str, version: str, *, channel: Channel, mover: Mover) -> Release | None:
        """Put a version that was published before on the channel, without training: a revert, or a renamed folder.

        Returns:
            The release, or None when no voice of this registry has the version.
        """
        if not self.has(voice, version):
            holder = next((name for name in self.voices() if name != voice and self.has(name, version)), None)
            if holder is None:
                return None
            self.adopt(voice, version, holder)
        self.move(voice, channel, version, action="republish", mover=mover)
        return self.release(voice, version)

    def move(
        self,
        voice: str,
        channel: Channel,
        version: str | None,
        *,
        action: Action,
        mover: Mover,
        expected: str | None = None,
    ) -> Event | None:
        """Point a channel to a version, or to none. Returns None when it points there already.

        Args:
            expected: the event that must be the channel's last one.

        Raises:
            UsageError: the registry does not hold the version.
            MovedMeanwhile: the channel's last event is another than ``expected``.
            NotTrusted: the version, or the channel as it is, is not what was published, or nobody trusted signed it.
            TransientError: others moved the channel again and again meanwhile.
        """
        self.trust.check_can_write()
        key, needs = _channel_key(voice, channel), None if version is None else _record_key(voice, version)
        for _ in range(SWAP_ATTEMPTS):
            release = None if version is None else self._movable(voice, version)  # again: `gc` may be running
            stored = self.backend.get(key)
            present = _parse(ChannelPointer, stored, f"{self.url}/{key}") if stored else None
            last = self._last_event(voice, channel, present, action)
            if last is not None and expected not in (None, last.id):
                raise MovedMeanwhile(
                    f"{voice}: {last.actor} moved {channel} to {last.version} just now ({last.action})",
                    hint=f"voxline registry history {voice}, then decide again",
                )
            if present is not None and present.version == version:
                return None
            served = present.version if present else None
            event = self._signed(_event(voice, channel, last, served, release, action, mover))
            if self._swap(key, ChannelPointer(version=version, event=event), stored, needs):
                return event
        raise TransientError(f"{self.url}/{key}: moved by others {SWAP_ATTEMPTS} times meanwhile", hint="run again")

    def _movable(self, voice: str, version: str) -> Release:
        """A release that a channel may be pointed to."""
        if not self.has(voice, version):
            raise UsageError(f"{voice}: no version {version} in {self.url}", hint=f"voxline registry show {voice}")
        return self.verified(voice, version)[0]

    def _last_event(self, voice: str, channel: Channel, present: ChannelPointer | None, action: Action) -> Event | None:
        """The channel's last event, with its file, which a publisher may have been killed before writing.

        A voice can always be retired, and a named version put in place of one that nobody trusted put there.
        """
        if present is None:
            return self._newest_event(voice, channel, None)  # some, where a damaged channel file was removed
        if problem := place_problem(present, voice, channel):
            hint = f"remove that file, then put the voice back: voxline registry rollback {voice} --to VERSION"
            raise NotTrusted(f"{voice}: {problem}", hint=hint)
        is_rescue = action in ("retire", "rollback") or present.version is None
        if not is_rescue:
            self._check_head(voice, channel, present)
        self._write_event(present.event)
        return (is_rescue and self._newest_event(voice, channel, present.event)) or present.event

    def _swap(self, key: str, pointer: ChannelPointer, stored: Stored | None, needs: str | None) -> bool:
        """Move a channel and give the move a file of its own."""
        if not self.backend.compare_and_swap(key, _dump(pointer), stored.tag if stored else None, needs=needs):
            return False
        self._write_event(pointer.event)
        return True

    def promote(self, voice: str, version: str | None, mover: Mover) -> Event | None:
        """Put the candidate, or a named version, on production."""
        chosen = version or self.verified(voice, "candidate")[0].version
        return self.move(voice, "production", chosen, action="promote", mover=mover)

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
        present = self.pointer(voice, "production")
        if present is None:
            raise UsageError(f"{voice}: was never on production", hint="voxline registry list")
        self._check_head(voice, "production", present)
        self._write_event(present.event)
        moves = self._moves(voice)
        if moves and moves[-1].action == "rollback":
            return None
        chosen = self.version_before(voice, present.version)
        try:
            return self.move(voice, "production", chosen, action="rollback", mover=mover, expected=present.event.id)
        except MovedMeanwhile:
            now = self._moves(voice)[-1]
            if now.action == "rollback" and now.previous == present.version:
                return None  # somebody else was a moment faster with the same
            raise

    def version_before(self, voice: str, present: str | None) -> str:
        """What a rollback goes to from a version: the newest on production before it that was not rolled back.

        Raises:
            UsageError: there is none.
        """
        moves = self._moves(voice)
        left: set[str | None] = set()
        for event in moves:
            if event.action == "rollback":
                left.add(event.previous)
            left.discard(event.version)
        for event in reversed(moves):
            version = event.previous
            if version not in (None, present) and version not in left and self.has(voice, version):
                return version
        raise UsageError(
            f"{voice}: production never served another version that was not rolled back",
            hint=f"voxline registry history {voice}",
        )

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
        versions = [version for version in self.versions(voice) if self._sign_release(voice, version, keys)]
        return [*versions, *(channel for channel in CHANNELS if self._sign_channel(voice, channel, keys, mover))]

    def _sign_release(self, voice: str, version: str, keys: frozenset[str]) -> bool:
        key = _record_key(voice, version)
        for _ in range(SWAP_ATTEMPTS):
            stored = self.backend.get(key)
            if stored is None:
                return False
            release = _parse(Release, stored, f"{self.url}/{key}")
            if not release_problem(release, voice, version, keys):
                return False
            plain = release.model_copy(update={"signature": None})
            self._checked_folder(voice, version, release, release_problem(plain, voice, version, frozenset()))
            if self.backend.compare_and_swap(key, _dump(self._signed(plain)), stored.tag):
                return True
        raise TransientError(f"{self.url}/{key}: written by others {SWAP_ATTEMPTS} times meanwhile", hint="run again")

    def _sign_channel(self, voice: str, channel: Channel, keys: frozenset[str], mover: Mover) -> bool:
        key = _channel_key(voice, channel)
        for _ in range(SWAP_ATTEMPTS):
            stored = self.backend.get(key)
            pointer = _parse(ChannelPointer, stored, f"{self.url}/{key}") if stored else None
            if pointer is None or pointer.version is None:
                return False
            if problem := place_problem(pointer, voice, channel):
                hint = f"remove that file, then put the voice back: voxline registry rollback {voice} --to VERSION"
                raise NotTrusted(f"{voice}: {problem}", hint=hint)
            events = [event for event in self._read_events(voice)[0] if event.channel == channel]
            if not any(finding.is_damage for finding in chain_findings(events, pointer, channel, keys)):
                return False
            last = max([*events, pointer.event], key=lambda event: event.id)
            release = self.release(voice, pointer.version)
            event = self._signed(_event(voice, channel, last, pointer.version, release, "sign", mover))
            if self._swap(key, ChannelPointer(version=pointer.version, event=event), stored, None):
                return True
        raise TransientError(f"{self.url}/{key}: moved by others {SWAP_ATTEMPTS} times meanwhile", hint="run again")

    def _signed(self, record: Signed) -> Signed:
        return self.trust.signer.sign(record) if self.trust.signer else record

    def retire(self, voice: str, mover: Mover) -> list[Event]:
        """Take a voice off all channels. Its releases stay until ``gc``, so this can be undone."""
        moved = []
        for channel in CHANNELS:
            pointer = self.pointer(voice, channel)
            if pointer is not None and pointer.version is not None:
                moved.append(self.move(voice, channel, None, action="retire", mover=mover))
        return [event for event in moved if event is not None]

    def refuse(self, refusal: Refusal) -> None:
        """Note that a version was tried and refused, in place of the voice's refusal before."""
        key = f"{REFUSALS}/{check_name(refusal.voice)}.json"
        for _ in range(SWAP_ATTEMPTS):
            stored = self.backend.get(key)
            if self.backend.compare_and_swap(key, _dump(refusal), stored.tag if stored else None):
                return
        raise TransientError(f"{self.url}/{key}: written by others {SWAP_ATTEMPTS} times meanwhile", hint="run again")

    # Upkeep

    def verify(self, voice: str) -> list[str]:
        """What is wrong with a voice's releases, channels and events: a line for each damage, none when all is well."""
        return [finding.message for finding in self.examine(voice) if finding.is_damage]

    def without_keys(self) -> Registry:
        """The same registry for one who asks for no signature."""
        return replace(self, trust=replace(self.trust, keys=frozenset()))

    def examine_refusals(self) -> list[Finding]:
        """Notes of refused versions that nobody can read. They are not signed: at worst one is not tried again."""
        try:
            self.refusals()
        except PipelineError as error:
            return [Finding(error.message)]
        return []

    def examine(self, voice: str) -> list[Finding]:
        """Everything there is to say about a voice's releases, channels and events; every file is read."""
        try:
            for name in ("releases", "channels", "events"):
                self.backend.local_folder(f"{check_name(voice)}/{name}")
        except PipelineError as error:
            return [Finding(f"{voice}: {error.message}")]
        for _ in range(SWAP_ATTEMPTS):
            pointers = self._read_pointers(voice)
            events, findings = self._read_events(voice)
            if self._read_pointers(voice) == pointers:  # nobody moved a channel while the events were read
                break
        damages = []
        for version in self._version_folders(voice):
            damages += [f"{voice}/{version}: {problem}" for problem in self._damages(voice, version, events)]
        for channel, pointer in zip(CHANNELS, pointers, strict=True):
            if isinstance(pointer, str):
                damages.append(pointer)
                continue
            if pointer is not None and (problem := pointer_problem(pointer, voice, channel)):
                damages.append(f"{voice}: {problem}")
                continue
            if pointer is not None and pointer.version is not None and not self._has_any(voice, pointer.version):
                damages.append(f"{voice}: channel {channel} names {pointer.version}, which is not there")
            own = [event for event in events if event.channel == channel]
            for finding in chain_findings(own, pointer, channel, self.trust.keys):
                findings.append(Finding(f"{voice}: {finding.message}", finding.is_damage))
            damages += self._seen_problems(pointer)
        return [*(Finding(message) for message in damages), *findings]

    def _read_pointers(self, voice: str) -> list[ChannelPointer | str | None]:
        """What each channel serves, or what is wrong with its file."""
        found: list[ChannelPointer | str | None] = []
        for channel in CHANNELS:
            try:
                found.append(self.pointer(voice, channel))
            except PipelineError as error:
                found.append(error.message)
        return found

    def _read_events(self, voice: str) -> tuple[list[Event], list[Finding]]:
        """The voice's own events in order, and what is wrong with the other files beside them."""
        prefix = f"{check_name(voice)}/events"
        events, findings = [], []
        for name in self.backend.children(prefix):
            try:
                stored = self.backend.get(f"{prefix}/{name}")
                event = _parse(Event, stored, f"{self.url}/{prefix}/{name}") if stored else None
            except PipelineError as error:
                findings.append(Finding(error.message))
                continue
            if event is not None and (event.voice, f"{event.id}.json") != (voice, name):
                findings.append(Finding(f"{voice}/events/{name} holds event {event.id} of {event.voice}"))
            elif event is not None:
                events.append(event)
        return sorted(events, key=lambda event: event.id), findings

    def _seen_problems(self, pointer: ChannelPointer | None) -> list[str]:
        try:
            if pointer is not None:
                self.trust.check_not_older(self.place, pointer.event)
        except NotTrusted as error:
            return [error.message]
        return []

    def _has_any(self, voice: str, version: str) -> bool:
        """Whether something lies in a release's place; what is wrong with it is told elsewhere."""
        return version in self._version_folders(voice)

    def collect(self, *, unused_days: int, now: datetime | None = None, dry_run: bool) -> list[Collected]:
        """Remove releases that no channel names and that no event of the last ``unused_days`` days names.

        Safe beside publishers: whether a release is used is asked again at the moment in which it goes.
        """
        since = (now or datetime.now(UTC)) - timedelta(days=unused_days)
        collected = []
        for voice in self.voices():
            for release in self.releases(voice):
                version = release.version
                if release.created_at >= since or self._is_used(voice, version, since):
                    continue
                prefix, is_used = _release_prefix(voice, version), partial(self._is_used, voice, version, since)
                if dry_run or self.backend.remove_folder(prefix, unless=is_used):
                    size_bytes = sum(told.size_bytes for told in release.files.values())
                    collected.append(Collected(voice, version, release.created_at, size_bytes))
        return collected

    def _is_used(self, voice: str, version: str, since: datetime) -> bool:
        return version in self._versions_in_use(voice, since)

    def _versions_in_use(self, voice: str, since: datetime) -> Iterator[str]:
        for channel in CHANNELS:
            pointer = self.pointer(voice, channel)
            if pointer is not None and pointer.version is not None:
                yield pointer.version
        for event in self.history(voice):
            if event.at >= since:
                yield from (version for version in (event.previous, event.version) if version is not None)

    def _damages(self, voice: str, version: str, events: list[Event]) -> Iterator[str]:
        try:
            stored = self.backend.get(_record_key(voice, version))
            if stored is None:
                yield f"{RECORD_FILE} is missing"
                return
            release = _parse(Release, stored, f"{self.url}/{_record_key(voice, version)}")
            folder = self.backend.local_folder(_release_prefix(voice, version))
        except PipelineError as error:
            yield error.message
            return
        if problem := release_problem(release, voice, version, self.trust.keys) or pin_problem(release, events):
            yield problem
        yield from file_problems(folder, release.files, RECORD_FILE, Digester())

    def _write_event(self, event: Event) -> None:
        self.backend.put_if_absent(f"{event.voice}/events/{event.id}.json", _dump(event))


def open_registry(url: str, *, root: Path | None = None, trust: Trust | None = None) -> Registry:
    """The registry at a URL; a relative ``file:`` path counts from ``root``. Creates nothing.

    Raises:
        SettingsError: a scheme this installation cannot open.
    """
    scheme, separator, rest = url.partition(":")
    if scheme != "file" or not separator or not rest:
        meant = url if "/" in url and not separator else "registry"
        raise SettingsError(f"registry {url!r}: only file:FOLDER can be opened", hint=f"--registry file:{meant}")
    folder = Path("/" + rest.lstrip("/")) if rest.startswith("/") else (root or Path()) / rest
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"registry {url!r}: {folder} is no folder")
    return Registry(FileBackend(folder), url, trust or Trust(), f"file:{folder.absolute()}")


def _release_prefix(voice: str, version: str) -> str:
    if not (version.isalnum() and version.isascii()):
        raise UsageError(f"{version!r} is no version", hint="a version is 12 hex digits, see voxline registry show")
    return f"{check_name(voice)}/releases/{version}"


def _record_key(voice: str, version: str) -> str:
    return f"{_release_prefix(voice, version)}/{RECORD_FILE}"


def _channel_key(voice: str, channel: Channel) -> str:
    return f"{check_name(voice)}/channels/{channel}.json"


def _check_files(files: Mapping[str, Path]) -> None:
    for name, path in files.items():
        inside = PurePosixPath(name)
        if not is_inside(name) or name == RECORD_FILE:
            raise SettingsError(f"{name!r} cannot be a file of a release")
        if path.is_symlink() or not path.is_file():
            raise SettingsError(f"{path}: no ordinary file, cannot be published as {name}")
        if inside.parts[0] == "adapter" and inside.suffix not in ADAPTER_SUFFIXES:
            raise SettingsError(
                f"{path}: adapter/ takes safetensors and json, not '{inside.suffix}'", hint="nothing was published"
            )
        if inside.suffix == ".safetensors":
            check_safetensors(path)


def _describe(path: Path) -> ReleaseFile:
    with path.open("rb") as stream:
        return ReleaseFile(sha256=hashlib.file_digest(stream, "sha256").hexdigest(), size_bytes=path.stat().st_size)


def _as_channel(name: str) -> Channel:
    return "production" if name == "production" else "candidate"


def _event(
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
        id=_event_id(now, last.id if last else ""),
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


def _event_id(now: datetime, previous: str) -> str:
    """Milliseconds as 12 hex digits, then 8 random ones; after the channel's last event even if the clock went back."""
    milliseconds = max(0, int(now.timestamp() * 1000))  # a machine without a battery may start before 1970
    if previous:
        milliseconds = max(milliseconds, int(previous[:12], 16) + 1)
    return f"{milliseconds:012x}-{secrets.token_hex(4)}"


def _dump(record: Record) -> bytes:
    return (record.model_dump_json(indent=1) + "\n").encode()


def _parse(kind: type[Kind], stored: Stored, source: str) -> Kind:
    try:
        record = kind.model_validate_json(stored.data)
        json.loads(stored.data, object_pairs_hook=_without_repetition)
    except ValidationError as error:
        raise SettingsError(f"damaged: {describe(error, source)}", hint="voxline registry verify") from None
    except KeyError as error:
        raise SettingsError(f"damaged: {source}: key {error} is there twice", hint="voxline registry verify") from None
    return record


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two keys of one name readers take the one or the other. Raises KeyError."""
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise KeyError(name[:80])
        table[name] = value
    return table
