"""The table of artifacts, and where they lie once pulled: ``<cache>/artifacts/<name>/<file>``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ValidationError

from pipeline.errors import SettingsError
from pipeline.io.files import open_regular
from pipeline.records.artifact import Artifact, ArtifactTable, KeptFile

TABLE = Path(__file__).parent / "artifacts.yaml"

State = Literal["here", "missing", "damaged"]


@dataclass(frozen=True)
class Checked:
    """One file of the cache, compared with the table. ``sha256``: what it has, where it is here and was read."""

    artifact: str
    file: KeptFile
    path: Path
    state: State
    sha256: str = ""


@cache
def artifact_table() -> dict[str, Artifact]:
    """Every artifact by its name, in the order of the table."""
    try:
        table = ArtifactTable.model_validate(yaml.safe_load(TABLE.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:  # the table is ours, so this is a damaged installation
        raise SettingsError(f"{TABLE}: {error}", hint="install voxline again") from None
    return {artifact.name: artifact for artifact in table.artifacts}


def chosen(names: list[str]) -> list[Artifact]:
    """The artifacts with these names, or of these groups; all of them for no name.

    Raises:
        SettingsError: there is no such artifact or group.
    """
    table = artifact_table()
    groups = sorted({group for artifact in table.values() for group in artifact.groups})
    for name in names:
        if name not in table and name not in groups:
            raise SettingsError(f"no artifact {name!r}", hint=f"there are: {', '.join([*table, *groups])}")
    return [
        artifact
        for artifact in table.values()
        if not names or artifact.name in names or any(group in names for group in artifact.groups)
    ]


def artifact_folder(cache: Path, name: str) -> Path:
    """Where an artifact lies once pulled."""
    return cache.expanduser() / "artifacts" / name


def is_pulled(artifact: Artifact, cache: Path) -> bool:
    """Whether every file is here with its size. Cheap; ``check`` reads the bytes."""
    folder = artifact_folder(cache, artifact.name)
    return all(_size(folder / kept.name) == kept.size_bytes for kept in artifact.in_cache)


def check(artifact: Artifact, cache: Path) -> list[Checked]:
    """Every file of an artifact against the table, byte for byte."""
    folder = artifact_folder(cache, artifact.name)
    return [_check(artifact.name, kept, folder / kept.name) for kept in artifact.in_cache]


def _check(name: str, kept: KeptFile, path: Path) -> Checked:
    if _size(path) is None:
        return Checked(name, kept, path, "missing")
    digest = file_digest(path)
    return Checked(name, kept, path, "here" if digest == kept.sha256 else "damaged", digest)


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    hasher = hashlib.sha256()
    with open_regular(path) as stream:
        while chunk := stream.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
