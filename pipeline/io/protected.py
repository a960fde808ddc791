"""The pipeline.toml that governs a stranger's tree: the protected branch's, read through git, never the tree's own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import PIPELINE_FILE, SECTIONS, Layer, parse_pipeline, read_pipeline
from pipeline.errors import SettingsError, UsageError
from pipeline.io.git import (
    MAX_POINTER_BYTES,
    SUBMODULE_MODE,
    SYMLINK_MODE,
    Repository,
    find_repository,
    lfs_object_id,
)
from pipeline.trust import PROTECTED_BRANCH_VARIABLE, protected_revisions

_NO_PLAIN_FILES = frozenset({SYMLINK_MODE, SUBMODULE_MODE})


@dataclass(frozen=True)
class Governing:
    """What holds in place of the tree's pipeline.toml.

    Attributes:
        layer: the sections, and where they come from.
        commit: of the protected branch; None where this clone does not hold it, then only defaults and variables count.
        ignored: what the tree says differently, as ``section.key``, with its value.
        note: one line for the log where something is ignored or missing.
    """

    layer: Layer
    commit: str | None
    ignored: dict[str, Any]
    note: str = ""


def find_governing(root: Path, environment: Mapping[str, str]) -> Governing:
    """Read pipeline.toml of the protected branch. ``root``: the folder whose own file does not count.

    Raises:
        SettingsError: the protected branch's own file is wrong.
    """
    repository = find_repository(root)
    commit, revision = _find_commit(repository, environment)
    if repository is None or commit is None:
        layer: Layer = ("default", {})
        missing = (
            f"the protected branch is not in this clone: defaults and variables count in place of {PIPELINE_FILE};"
            f" fetch it, or name it in {PROTECTED_BRANCH_VARIABLE}"
        )
    else:
        missing = ""
        name = f"{PIPELINE_FILE} of {revision.removeprefix('refs/remotes/')} ({commit[:8]})"
        layer = name, _sections_at(repository, commit, _inside(repository, root) + PIPELINE_FILE, name)
    ignored, told = _differences(root / PIPELINE_FILE, layer[1])
    return Governing(layer, commit, ignored, "; ".join(part for part in (told, missing) if part))


def _find_commit(repository: Repository | None, environment: Mapping[str, str]) -> tuple[str | None, str]:
    for revision in protected_revisions(environment) if repository else []:
        assert repository is not None
        commit = repository.commit(revision)
        if commit is not None:
            return commit, revision if revision != commit else "the merge request's start"
    return None, ""


def _inside(repository: Repository, root: Path) -> str:
    """The folder of a repository that ``root`` is, as Git names it, ending in / unless it is the top."""
    inside = root.resolve().relative_to(repository.root.resolve()).as_posix()
    return "" if inside == "." else f"{inside}/"


def _sections_at(repository: Repository, commit: str, path: str, name: str) -> dict[str, dict[str, Any]]:
    if "\n" in path:
        raise UsageError(f"{path!r}: a line break in the folder's name", hint="rename the folder")
    with repository.blobs() as blobs:
        content = blobs.read(f"{commit}:{path}")
    return parse_pipeline(content, name) if content is not None else {}


def _differences(path: Path, governing: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], str]:
    """What the tree's own file says differently, and the line that says so. Names known settings only."""
    try:
        own = read_pipeline(path)
    except (SettingsError, OSError):
        return {}, f"{PIPELINE_FILE} of this merge request cannot be read: ignored here"
    known = [(section, key) for section, model in SECTIONS.items() for key in model.model_fields]
    ignored = {
        f"{section}.{key}": own.get(section, {}).get(key)
        for section, key in known
        if own.get(section, {}).get(key) != governing.get(section, {}).get(key)
    }
    if not ignored:
        return {}, ""
    names = ", ".join(ignored)
    return ignored, f"{PIPELINE_FILE} of this merge request changes {names}: ignored here; it counts once merged"


def forbid_changed(folder: Path, root: Path, governing: Governing) -> None:
    """Raises SettingsError unless a folder of the tree is the protected branch's, byte for byte.

    A folder that the settings in force name outside the tree is its owner's.
    """
    if not folder.is_relative_to(root):
        return
    repository = find_repository(root)
    if repository is None or governing.commit is None:
        changed = "the protected branch is not in this clone"
    else:
        inside = _inside(repository, root) + folder.relative_to(root).as_posix()
        theirs = _digests_at(repository, governing.commit, inside)
        ours = _digests_on_disk(folder, inside)
        names = sorted({*theirs.items()} ^ {*ours.items()})
        if not names:
            return
        changed = f"{names[0][0]} differs" if theirs else "the protected branch has no such folder"
    raise SettingsError(
        f"{folder.name}: a base of this merge request, not of the protected branch: {changed}",
        hint="merge the base first, on its own; voices of that branch can then use it",
    )


def _digests_at(repository: Repository, commit: str, inside: str) -> dict[str, str]:
    with repository.blobs() as blobs:
        entries = repository.files(commit, [inside])
        return {
            entry.path: blobs.digest(entry.object_id) or "" for entry in entries if entry.mode not in _NO_PLAIN_FILES
        }


def _digests_on_disk(folder: Path, inside: str) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        name = f"{inside}/{path.relative_to(folder).as_posix()}"
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            found[name] = "no plain file"
        elif path.is_file():
            with path.open("rb") as stream:
                head = stream.read(MAX_POINTER_BYTES)
                stream.seek(0)
                found[name] = lfs_object_id(head) or hashlib.file_digest(stream, "sha256").hexdigest()
    return found
