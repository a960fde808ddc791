"""What is read of a release, copied here and compared with its manifest: a voice goes on without a registry."""

from __future__ import annotations

import hashlib
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import ConsentError, PipelineError, TransientError
from pipeline.io.files import disk_full_is_transient, read_regular
from pipeline.io.registry.registry import Registry
from pipeline.io.registry.trust import NotTrusted
from pipeline.records.adapter import ADAPTER_FOLDER
from pipeline.records.reference import REFERENCE_FOLDER
from pipeline.records.release import Release, manifest_digest
from pipeline.records.serving import ServedVoice

USED = (ADAPTER_FOLDER, REFERENCE_FOLDER)  # what is read of a release
MAX_FILE_BYTES = 2 * 2**30


def copy_release(release: Release, folder: Path, cache: Path) -> Path:
    """The folder of this machine with the files of a release that speaking needs; copied where it is not there.

    Args:
        folder: the release's files, verified a moment ago.

    Raises:
        NotTrusted: a file is not what the manifest says.
        TransientError: the disk is full.
    """
    target = cache / f"{release.voice}-{release.version}-{manifest_digest(release)[:16]}"
    wanted = {name: file for name, file in release.files.items() if name.split("/", 1)[0] in USED}
    if target.is_dir() and all(_is_whole(target / name, file.size_bytes, file.sha256) for name, file in wanted.items()):
        return target
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with disk_full_is_transient(target):
        for name, file in wanted.items():
            data = read_regular(folder / name, MAX_FILE_BYTES, follow_links=False)
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise NotTrusted(f"{release.voice}/{release.version}: {name} is not what was published")
            (partial / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            (partial / name).write_bytes(data)
        shutil.rmtree(target, ignore_errors=True)
        try:
            partial.replace(target)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            if not target.is_dir():  # else another server of this user was quicker
                raise TransientError(f"{target}: {error.strerror}") from error
    return target


def verified_voice(registry: Registry, voice: str, channel: str, cache: Path) -> ServedVoice:
    """A release, verified and copied, for who speaks it.

    Raises:
        ConsentError: the consent has expired since.
        NotTrusted: it is not what was published.
    """
    release, folder = registry.verified(voice, channel, below=USED)
    if release.consent.has_expired(datetime.now(UTC).date()):
        raise ConsentError(
            f"{voice}: consent expired on {release.consent.expires_on}", hint=f"voxline registry retire {voice}"
        )
    return served_voice(release, copy_release(release, folder, cache))


def served_voice(release: Release, copied: Path) -> ServedVoice:
    """What the one who speaks is told of a release."""
    return ServedVoice(
        voice=release.voice,
        version=release.version,
        language=release.language,
        base=release.base,
        base_digest=release.base_digest,
        folder=str(copied),
    )


def _is_whole(path: Path, size_bytes: int, sha256: str) -> bool:
    try:
        data = read_regular(path, size_bytes + 1, follow_links=False)
    except (OSError, PipelineError):
        return False
    return hashlib.sha256(data).hexdigest() == sha256
