"""A published version of a voice, its channels and its history; and how the version number is made.

``version`` is the first 12 hex digits of sha256(content digest, base digest, recipe digest). Plan and publish both use
``release_version``, so a revert meets the version that the registry already holds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, StringConstraints

from pipeline.records.base import Record
from pipeline.records.settings import PublicKey, Settings
from pipeline.records.voice import Consent, VoiceName

# Raise when the same recordings, base and settings give other weights than before.
RECIPE_VERSION = "1"

# Settings that do not change the weights of a voice that passes: what only warns, what lies where on a machine.
NOT_IN_RECIPE: Mapping[str, frozenset[str]] = {
    "validate": frozenset(
        {"speech_min_s", "denoise_weights", "snr_warn_db", "rt60_warn_s", "low_level_dbfs", "dnsmos_overall_warn"}
    ),
    "finetune": frozenset({"checkpoint_every_s"}),
}

Channel = Literal["candidate", "production"]
CHANNELS: tuple[Channel, ...] = ("candidate", "production")
Action = Literal["publish", "republish", "promote", "rollback", "retire", "sign"]

VERSION_PATTERN = r"[0-9a-f]{12}"
Version = Annotated[str, StringConstraints(pattern=f"^{VERSION_PATTERN}$")]
EventId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}-[0-9a-f]{8}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def is_version(name: str) -> bool:
    """Whether a folder of releases may be called so."""
    return re.fullmatch(VERSION_PATTERN, name) is not None


def is_digest(told: object) -> bool:
    """Whether this is a sha256 in hex."""
    return isinstance(told, str) and re.fullmatch(r"[0-9a-f]{64}", told) is not None


def is_inside(name: str) -> bool:
    """Whether a path inside a release stays there."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and "\\" not in name and "\0" not in name


def _stays_inside(name: str) -> str:
    if not is_inside(name):
        raise ValueError(f"{name[:80]!r} leads out of the release")
    return name


def recipe_digest(settings: Settings) -> str:
    """sha256 over the recipe's number and the settings that change the weights; the base has a digest of its own."""
    sections = {
        "validate": settings.validate_.model_dump(mode="json"),
        "finetune": settings.finetune.model_dump(mode="json"),
    }
    covered = {
        section: {key: value for key, value in values.items() if key not in NOT_IN_RECIPE[section]}
        for section, values in sections.items()
    }
    content = json.dumps([RECIPE_VERSION, covered], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


def release_version(content_digest: str, base_digest: str, recipe: str) -> str:
    """The version of a voice: 12 hex digits, the same for the same content, base and recipe."""
    return hashlib.sha256("\n".join((content_digest, base_digest, recipe)).encode()).hexdigest()[:12]


def judges_digest(settings: Settings, code: str) -> str:
    """What a verdict rests on besides the version: the limits, and the version of the code that judges."""
    sections = [section.model_dump(mode="json") for section in (settings.validate_, settings.evaluate, settings.gate)]
    content = json.dumps([code, sections], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


class Provenance(Record):
    """Where a release comes from.

    Attributes:
        git_revision: commit that was checked out; empty outside a repository.
        git_tree: id of the voice folder's tree in that commit when the folder had no local change, else empty.
        repository: ``group/name`` of the repository, so that two of them can share a registry.
        pipeline: address of the CI pipeline, or empty.
    """

    git_revision: str = ""
    git_tree: str = ""
    repository: str = ""
    author: str = ""
    pipeline: str = ""


class Signature(Record):
    """An ed25519 signature over ``statement(record)``.

    Attributes:
        key: who signed; the whole public key, so that a signature can be checked before its key is trusted.
    """

    key: PublicKey
    value: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{86}==$")]


class ReleaseFile(Record):
    """One file of a release."""

    sha256: Digest
    size_bytes: int = Field(ge=0)


class Release(Record):
    """``release.json``: the one manifest of a release, written after its files, so what can be seen is complete.

    Attributes:
        files: path inside the release folder -> file; filled by the registry on publishing.
        review: required: a person hears it before production does, because voice.yaml or the gate asked for that.
        metrics: the gate's numbers by name, with the unit in the name; None where not measured.
        copied_from: the voice this release was first published for, when a folder was only renamed.
    """

    voice: VoiceName
    version: Version
    created_at: datetime
    base: str
    content_digest: Digest
    base_digest: Digest
    recipe_digest: Digest
    language: str
    license: str
    copyright_notice: str = ""
    consent: Consent
    review: Literal["none", "required"] = "none"
    provenance: Provenance = Provenance()
    metrics: dict[str, float | None] = Field(default_factory=dict)
    voxline_version: str = ""
    copied_from: VoiceName | None = None
    files: dict[Annotated[str, AfterValidator(_stays_inside)], ReleaseFile] = Field(default_factory=dict)
    signature: Signature | None = None

    def channel(self, wanted: Channel) -> Channel:
        """Where it goes by itself, whoever puts it there: only a person moves what has to be reviewed to production."""
        return "candidate" if self.review == "required" else wanted


def made_by(voxline_version: str) -> str:
    """Who has the base of a release, where the voxline that asks has another one of that name."""
    return f"voxline {voxline_version}" if voxline_version else "the voxline that published it"


class Event(Record):
    """One move of a channel: who, when, from which version to which, and from which commit and pipeline.

    Attributes:
        id: sorts by time, unique; also the file's name.
        previous: version before; None when the channel was empty.
        version: version after; None when the voice was retired.
        sequence: number of this move in its channel, from 1; None in what a voxline before the chain wrote.
        event_before: digest of the channel's event before, None in its first.
        release_digest: digest of the manifest that the version had at this moment.
    """

    id: EventId
    voice: VoiceName
    channel: Channel
    action: Action
    previous: Version | None
    version: Version | None
    actor: str
    at: datetime
    git_revision: str = ""
    pipeline: str = ""
    reason: str = ""
    sequence: int | None = Field(None, ge=1)
    event_before: Digest | None = None
    release_digest: Digest | None = None
    signature: Signature | None = None


class Refusal(Record):
    """Why the last version of a voice that was tried is not published; a plan does not try the same again.

    Attributes:
        judges: ``judges_digest`` of the limits and the code that refused it.
        exit_code: 10 for the recordings, 11 for the gate.
    """

    voice: VoiceName
    version: Version
    judges: Digest
    exit_code: Literal[10, 11]
    reason: str
    at: datetime
    actor: str
    git_revision: str = ""
    pipeline: str = ""
    signature: Signature | None = None


class ChannelPointer(Record):
    """``channels/<channel>.json``: what a channel serves, and the move that put it there.

    The event lies inside the pointer, so a publisher killed between the pointer and the event's own file loses nothing.
    """

    version: Version | None
    event: Event

    @property
    def why_published(self) -> str:
        """Why the gate wants a person to hear what was published here; empty where it does not."""
        return self.event.reason if self.event.action == "publish" else ""


Signed = TypeVar("Signed", Release, Event, Refusal)


def statement(record: Release | Event | Refusal) -> bytes:
    """What a signature covers: the kind of record and everything in it but the signature.

    Defaults are left out, so a field that a later voxline adds changes nothing about the records before it.
    """
    told = record.model_dump(mode="json", exclude_defaults=True, exclude={"signature"})
    content = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"voxline {type(record).__name__.lower()} 1\n{content}".encode()


def manifest_digest(release: Release) -> str:
    """What events say of a release. Without its signature: signing it again, with a new key, changes no event."""
    return hashlib.sha256(statement(release)).hexdigest()


def event_digest(event: Event) -> str:
    """What the next event says of this one, its signature included."""
    signature = event.signature.model_dump_json() if event.signature else ""
    return hashlib.sha256(statement(event) + b"\n" + signature.encode()).hexdigest()
