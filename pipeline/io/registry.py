"""The registry of published voices.

```
<voice>/releases/<version>/release.json  card.md  adapter/...  reference/  report/
<voice>/channels/<channel>.json          <voice>/events/<time-sortable id>.json
.refusals/<voice>.json                   what was tried last and not published, so that it is not tried again
```
Order of writing: files, then release.json, then the channel's pointer (compare-and-swap), then the event's own file.
The pointer holds a copy of its event, so whoever moves the channel next completes what a killed publisher left out.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pydantic import ValidationError

from pipeline.config import describe
from pipeline.errors import SettingsError, TransientError, UsageError
from pipeline.io.objects import Backend, FileBackend, Stored
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
    is_inside,
    is_version,
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


@dataclass(frozen=True)
class Registry:
    """Releases, channels and events above a backend."""

    backend: Backend
    url: str = field(default="")

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
        """The release that a channel serves, or that has this version.

        Raises:
            UsageError: the voice was never published, is retired, or has no such version.
        """
        check_name(voice)
        if channel_or_version not in CHANNELS:
            return self.release(voice, channel_or_version)
        channel: Channel = "production" if channel_or_version == "production" else "candidate"
        pointer = self.pointer(voice, channel)
        if pointer is None:
            raise UsageError(f"{voice}: nothing on channel {channel} of {self.url}", hint=f"voxline run {voice}")
        if pointer.version is None:
            hint = f"voxline registry rollback {voice} brings the last version back"
            raise UsageError(f"{voice}: retired on {pointer.event.at:%Y-%m-%d} by {pointer.event.actor}", hint=hint)
        return self.release(voice, pointer.version)

    def fetch(self, voice: str, version: str) -> Path:
        """A local folder with the files of a version. Only read it.

        Raises:
            UsageError: there is no such version.
        """
        self.release(voice, version)
        return self.backend.local_folder(_release_prefix(voice, version))

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
            is_rolled_back = production is not None and production.event.action == "rollback"
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
                found[release.provenance.git_tree] = release.content_digest
        return {tree: digest for tree, digest in found.items() if tree}

    def _rolled_back(self, voice: str) -> frozenset[str]:
        left = set()
        for event in reversed([event for event in self.history(voice) if event.channel == "production"]):
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
        action: Action = "republish"
        if not self.has(voice, release.version):
            action = "publish"
            described = {name: _describe(path) for name, path in files.items()}
            record = release.model_copy(update={"voice": check_name(voice), "files": described})
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
        original = self.release(source, version)
        if not self.has(voice, version):
            folder = self.fetch(source, version)
            files = {name: (folder / name, told.sha256) for name, told in original.files.items()}
            record = original.model_copy(update={"voice": check_name(voice), "copied_from": source})
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

    def move(self, voice: str, channel: Channel, version: str | None, *, action: Action, mover: Mover) -> Event | None:
        """Point a channel to a version, or to none. Returns None when it points there already.

        Raises:
            UsageError: the registry does not hold the version.
            TransientError: others moved the channel again and again meanwhile.
        """
        key, needs = _channel_key(voice, channel), None if version is None else _record_key(voice, version)
        for _ in range(SWAP_ATTEMPTS):
            if version is not None and not self.has(
                voice, version
            ):  # `gc` may be running, so it is asked again each time
                raise UsageError(f"{voice}: no version {version} in {self.url}", hint=f"voxline registry show {voice}")
            stored = self.backend.get(key)
            present = _parse(ChannelPointer, stored, f"{self.url}/{key}") if stored else None
            if present is not None:
                self._write_event(present.event)  # a publisher may have been killed right after its swap
                if present.version == version:
                    return None
            event = _event(voice, channel, present, version, action, mover)
            pointer = ChannelPointer(version=version, event=event)
            if self.backend.compare_and_swap(key, _dump(pointer), stored.tag if stored else None, needs=needs):
                self._write_event(event)
                return event
        raise TransientError(f"{self.url}/{key}: moved by others {SWAP_ATTEMPTS} times meanwhile", hint="run again")

    def promote(self, voice: str, version: str | None, mover: Mover) -> Event | None:
        """Put the candidate, or a named version, on production."""
        chosen = version or self.resolve(voice, "candidate").version
        return self.move(voice, "production", chosen, action="promote", mover=mover)

    def rollback(self, voice: str, version: str | None, mover: Mover) -> Event | None:
        """Put production back to the version before, or to a named one.

        Raises:
            UsageError: there is no version before.
        """
        chosen = version or self._version_before(voice)
        return self.move(voice, "production", chosen, action="rollback", mover=mover)

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
        """What is wrong with a voice's releases and pointers: one line for each damage, none when all is well."""
        damages = []
        for version in self._version_folders(voice):
            damages += [f"{voice}/{version}: {problem}" for problem in self._damages(voice, version)]
        for channel in CHANNELS:
            try:
                pointer = self.pointer(voice, channel)
            except SettingsError as error:
                damages.append(error.message)
                continue
            if pointer is not None and pointer.version is not None and not self.has(voice, pointer.version):
                damages.append(f"{voice}: channel {channel} names {pointer.version}, which is not there")
        return damages

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

    def _damages(self, voice: str, version: str) -> Iterator[str]:
        if not self.has(voice, version):
            yield f"{RECORD_FILE} is missing"
            return
        try:
            release = self.release(voice, version)
        except SettingsError as error:
            yield error.message
            return
        folder = self.fetch(voice, version)
        for name, told in release.files.items():
            path = folder / name
            if not path.is_file():
                yield f"{name} is missing"
            elif _describe(path) != told:
                yield f"{name} is not what was published"
        present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        for name in sorted(present - release.files.keys() - {RECORD_FILE}):
            yield f"{name} was added after publishing"

    def _version_before(self, voice: str) -> str:
        present = self.pointer(voice, "production")
        if present is None:
            raise UsageError(f"{voice}: was never on production", hint="voxline registry list")
        for event in reversed(self.history(voice)):
            is_other = event.previous is not None and event.previous != present.version
            if (
                event.channel == "production"
                and event.previous is not None
                and is_other
                and self.has(voice, event.previous)
            ):
                return event.previous
        raise UsageError(f"{voice}: production never served another version", hint=f"voxline registry history {voice}")

    def _write_event(self, event: Event) -> None:
        self.backend.put_if_absent(f"{event.voice}/events/{event.id}.json", _dump(event))


def open_registry(url: str, *, root: Path | None = None) -> Registry:
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
    return Registry(FileBackend(folder), url)


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


def _event(
    voice: str, channel: Channel, present: ChannelPointer | None, version: str | None, action: Action, mover: Mover
) -> Event:
    now = datetime.now(UTC)
    return Event(
        id=_event_id(now, present.event.id if present else ""),
        voice=voice,
        channel=channel,
        action=action,
        previous=present.version if present else None,
        version=version,
        actor=mover.actor,
        at=now,
        git_revision=mover.git_revision,
        pipeline=mover.pipeline,
        reason=mover.reason,
    )


def _event_id(now: datetime, previous: str) -> str:
    """Milliseconds as 12 hex digits, then 8 random ones; after the channel's last event even if the clock went back."""
    milliseconds = int(now.timestamp() * 1000)
    if previous:
        milliseconds = max(milliseconds, int(previous[:12], 16) + 1)
    return f"{milliseconds:012x}-{secrets.token_hex(4)}"


def _dump(record: Record) -> bytes:
    return (record.model_dump_json(indent=1) + "\n").encode()


def _parse(kind: type[Kind], stored: Stored, source: str) -> Kind:
    try:
        return kind.model_validate_json(stored.data)
    except ValidationError as error:
        raise SettingsError(f"damaged: {describe(error, source)}", hint="voxline registry verify") from None
