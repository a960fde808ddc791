"""Garbage collection: releases that nothing names any more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pipeline.io.registry.backend import Change
from pipeline.io.registry.channels import Channels
from pipeline.io.registry.shelf import SWAP_ATTEMPTS, channel_key, record_key, release_prefix
from pipeline.records.release import CHANNELS, Release


@dataclass(frozen=True)
class Collected:
    """One release that ``gc`` removes, or would remove."""

    voice: str
    version: str
    created_at: datetime
    size_bytes: int


def collect(channels: Channels, voice: str, since: datetime, *, dry_run: bool) -> Iterator[Collected]:
    """Remove a voice's releases that are older than ``since`` and that no channel and no event since then names.

    Safe beside publishers: a removal is a commit that fails when a channel was moved since it was decided.
    """
    for release in _old(channels, voice, since):
        if dry_run:
            is_gone = not _is_used(channels, voice, release.version, since)
        else:
            is_gone = _remove(channels, voice, release.version, since)
        if is_gone:
            size_bytes = sum(told.size_bytes for told in release.files.values())
            yield Collected(voice, release.version, release.created_at, size_bytes)
    if not dry_run:
        channels.shelf.backend.sweep(voice)


def _remove(channels: Channels, voice: str, version: str, since: datetime) -> bool:
    """Remove a release unless it is used; every use of it begins with a channel that is moved."""
    keys = [record_key(voice, version), *(channel_key(voice, channel) for channel in CHANNELS)]
    for _ in range(SWAP_ATTEMPTS):
        seen = {key: channels.shelf.backend.get(key) for key in keys}
        if seen[keys[0]] is None or _is_used(channels, voice, version, since):
            return False
        expects = {key: stored.tag if stored else None for key, stored in seen.items()}
        if channels.shelf.backend.commit(voice, Change(expects=expects, removes=release_prefix(voice, version))):
            return True
    raise channels.shelf.contended(keys[0], "kept in use")


def _old(channels: Channels, voice: str, since: datetime) -> list[Release]:
    """Newest first."""
    found = [channels.releases.get(voice, version) for version in channels.releases.versions(voice)]
    old = [release for release in found if release.created_at < since]
    return sorted(old, key=lambda release: release.created_at, reverse=True)


def _is_used(channels: Channels, voice: str, version: str, since: datetime) -> bool:
    return version in _versions_in_use(channels, voice, since)


def _versions_in_use(channels: Channels, voice: str, since: datetime) -> Iterator[str]:
    for channel in CHANNELS:
        pointer = channels.pointer(voice, channel)
        if pointer is not None and pointer.version is not None:
            yield pointer.version
    for event in channels.history(voice):
        if event.at >= since:
            yield from (version for version in (event.previous, event.version) if version is not None)
