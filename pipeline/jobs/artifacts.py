"""Pulls an artifact: its bytes from the first source that has them, checked, converted once, and moved in whole.

Result: ``<cache>/artifacts/<name>/`` with the files of the table and ``pulled.json``, which says where they came from.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, SettingsError, TransientError
from pipeline.io.artifacts.cache import artifact_folder, check, file_digest, is_pulled
from pipeline.io.artifacts.sources import Advance, Download, Log, describe, fetch, fetch_from_folder
from pipeline.io.files import disk_full_is_transient, write_atomically
from pipeline.io.hub import From
from pipeline.records.artifact import Artifact, ArtifactFile

NOTE_FILE = "pulled.json"


def pull_artifact(
    artifact: Artifact,
    cache: Path,
    source: From,
    *,
    force: bool = False,
    advance: Advance = lambda count: None,
    log: Log = lambda line: None,
) -> bool:
    """Make an artifact present in the cache, whole or not at all.

    Returns:
        whether anything was fetched; False when it was here.

    Raises:
        TransientError: no source has it now; the message names each file and where to put it.
        SettingsError: a folder was named and it is not there.
    """
    target = artifact_folder(cache, artifact.name)
    if not force and _is_sound(artifact, cache):
        return False
    work = target.with_name(f".{artifact.name}.download")
    staging = target.with_name(f".{artifact.name}.partial")
    with disk_full_is_transient(target), _alone(target.parent):
        if not force and _is_sound(artifact, cache):  # somebody else has just fetched it
            return False
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        work.mkdir(exist_ok=True)
        download = Download(source, work, advance, log)
        origins = {file.name: _bring(artifact, file, download, staging) for file in artifact.files}
        write_atomically(staging / NOTE_FILE, (json.dumps(origins, indent=1) + "\n").encode())
        shutil.rmtree(target, ignore_errors=True)
        staging.replace(target)
        shutil.rmtree(work, ignore_errors=True)
    return True


def _is_sound(artifact: Artifact, cache: Path) -> bool:
    return is_pulled(artifact, cache) and all(one.state == "here" for one in check(artifact, cache))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two commands that fetch into one cache take turns: they would share a download."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _bring(artifact: Artifact, file: ArtifactFile, download: Download, staging: Path) -> Mapping[str, str]:
    local, origin = _fetch_checked(artifact, file, download)
    _LAYOUTS[file.layout](file, local, staging)
    for kept in file.in_cache:
        found = file_digest(staging / kept.name)
        if found != kept.sha256:
            raise SettingsError(
                f"{artifact.name}: {kept.name} made of {file.name} has sha256 {found}, not {kept.sha256}"
            )
    return {"source": origin, "sha256": file.sha256}


def _fetch_checked(artifact: Artifact, file: ArtifactFile, download: Download) -> tuple[Path, str]:
    """The file with the right bytes, and where it came from."""
    source = download.source
    if source.folder is not None:
        target = download.work / file.name
        if not fetch_from_folder(file, artifact.name, source.folder, target, download.advance):
            raise SettingsError(_offline(artifact, file, [f"{source.folder}: {file.name} is not there"], source))
        _refuse_other_bytes(file, target, str(source.folder))
        return target, str(source.folder)
    failures = []
    for place in file.sources:
        name = describe(place, source.endpoint)
        try:
            download.log(f"{artifact.name}: {file.name} from {name}")
            local = fetch(place, file, download)
            _refuse_other_bytes(file, local, name)
            return local, name
        except PipelineError as error:
            failures.append(error.message.splitlines()[0])
    raise TransientError(
        _offline(artifact, file, failures, source), hint=f"voxline artifacts pull {artifact.name} --from FOLDER"
    )


def _refuse_other_bytes(file: ArtifactFile, local: Path, origin: str) -> None:
    found = file_digest(local)
    if found != file.sha256:
        local.unlink()
        raise SettingsError(f"{origin}: sha256 {found}, but {file.name} has {file.sha256}")


def _offline(artifact: Artifact, file: ArtifactFile, failures: list[str], source: From) -> str:
    places = "\n".join(f"      from {describe(place, source.endpoint)}" for place in file.sources)
    told = "\n".join(f"  {failure}" for failure in failures)
    return (
        f"{artifact.name}: {file.name} could not be fetched:\n{told}\n"
        f"Without a network, put it into a folder:\n  FOLDER/{artifact.name}/{file.name}  "
        f"({file.size_bytes} bytes, sha256 {file.sha256})\n{places}"
    )


# -- what is kept of a download -----------------------------------------------------------------------------------


def _keep_plain(file: ArtifactFile, local: Path, staging: Path) -> None:
    shutil.copyfile(local, staging / file.name)


def _keep_members(file: ArtifactFile, local: Path, staging: Path) -> None:
    """The named members of a tar file, by their bytes: no path, link or mode of the archive is believed."""
    try:
        with tarfile.open(local) as archive:
            for kept in file.kept:
                member = archive.getmember(kept.member)
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is None or member.size != kept.size_bytes:
                    raise SettingsError(f"{file.name}: {kept.member} is not a file of {kept.size_bytes} bytes")
                (staging / kept.name).write_bytes(stream.read())
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise SettingsError(f"{file.name}: {error}") from None


def _keep_tensors(file: ArtifactFile, local: Path, staging: Path) -> None:
    """A pickle's tensors as safetensors, read by the restricted reader. The bytes are the same on every machine."""
    from safetensors.torch import save

    from models.errors import WeightsError

    try:
        (staging / file.kept[0].name).write_bytes(save(_tensors(file, local), metadata={"format": "pt"}))
    except WeightsError as error:
        raise SettingsError(str(error)) from error


def _tensors(file: ArtifactFile, local: Path) -> dict[str, Any]:
    from torch import Tensor

    from models.errors import WeightsError
    from models.upstream.torch_archive import read_torch_archive

    state = read_torch_archive(local)
    state = state.get(file.key) if file.key and isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise WeightsError(f"{file.name}: holds no state dict")
    return {name: value.clone().contiguous() for name, value in state.items() if isinstance(value, Tensor)}


_LAYOUTS: dict[str, Callable[[ArtifactFile, Path, Path], None]] = {
    "plain": _keep_plain,
    "tar": _keep_members,
    "pickle": _keep_tensors,
}
