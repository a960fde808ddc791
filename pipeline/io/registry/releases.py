"""Releases: folders of files with a manifest each, which names every file with its digest.

The files are written first and the manifest last, so what can be seen is complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.errors import SettingsError, UsageError
from pipeline.io.registry.backend import Change, Staged
from pipeline.io.registry.chain import pin_problem, release_problem
from pipeline.io.registry.shelf import (
    RECORD_FILE,
    SWAP_ATTEMPTS,
    Shelf,
    dumped,
    record_key,
    release_prefix,
    releases_prefix,
)
from pipeline.io.registry.trust import Digester, NotTrusted, Trust, file_problems, is_below
from pipeline.io.voices import check_name
from pipeline.io.weights import check_safetensors
from pipeline.records.release import Event, Release, ReleaseFile, is_inside, is_version

# What may lie in a release, by its top folder; adapter/ holds weights and is the strictest.
ADAPTER_SUFFIXES = frozenset({".safetensors", ".json"})

EVERYTHING = ("",)


@dataclass(frozen=True)
class Releases:
    """The releases of all voices."""

    shelf: Shelf
    trust: Trust

    def folders(self, voice: str) -> list[str]:
        """Versions with a folder, whatever lies in it."""
        return [name for name in self.shelf.backend.children(releases_prefix(voice)) if is_version(name)]

    def versions(self, voice: str) -> list[str]:
        """Versions of a voice, in no order that means anything; each is complete."""
        return [name for name in self.folders(voice) if self.has(voice, name)]

    def has(self, voice: str, version: str) -> bool:
        """Whether the registry holds this version completely."""
        return self.shelf.backend.get(record_key(voice, version)) is not None

    def find(self, voice: str, version: str) -> Release | None:
        """The manifest of a version, as it lies there, or None."""
        return self.shelf.find(Release, record_key(voice, version))

    def get(self, voice: str, version: str) -> Release:
        """The manifest of a version, as it lies there. Raises UsageError where there is none."""
        release = self.find(voice, version)
        if release is None:
            known = ", ".join(self.versions(voice)[:5]) or "none"
            raise UsageError(f"{voice}: no version {version} in {self.shelf.url}", hint=f"there are: {known}")
        return release

    def checked(
        self, voice: str, version: str, events: Sequence[Event], below: tuple[str, ...] = EVERYTHING
    ) -> tuple[Release, Path]:
        """A manifest and the folder with its files, which are what was published.

        Args:
            events: those that may name the manifest's digest.
            below: the folders and files of the release that will be read; everything where one is empty.

        Raises:
            NotTrusted: they are not, or nobody trusted stands for them.
        """
        release = self.get(voice, version)
        problem = release_problem(release, voice, version, self.trust.keys) or pin_problem(release, events)
        return release, self._checked_folder(voice, version, release, problem, below)

    def _checked_folder(
        self, voice: str, version: str, release: Release, problem: str, below: tuple[str, ...] = EVERYTHING
    ) -> Path:
        backend, prefix = self.shelf.backend, release_prefix(voice, version)
        wanted = {name: told for name, told in release.files.items() if is_below(name, below)}
        folder = backend.release_folder(prefix, {} if problem else wanted)
        if not problem:
            problem = self._file_problems(folder, release, below)
            if problem and not backend.is_local:  # what is here is a copy, which somebody may have damaged
                folder = backend.release_folder(prefix, wanted, anew=True)
                problem = self._file_problems(folder, release, below)
        if problem:
            raise NotTrusted(f"{voice}/{version}: {problem}", hint="voxline registry verify says all of it")
        return folder

    def _file_problems(self, folder: Path, release: Release, below: tuple[str, ...]) -> str:
        with Digester(self.trust.digests) as digester:
            return "; ".join(file_problems(folder, release.files, RECORD_FILE, digester, below=below))

    def staged(self, voice: str, release: Release, files: Mapping[str, Path]) -> tuple[Release, Staged]:
        """A release as it will lie in the registry, and its files, ready for the commit that makes them visible.

        Args:
            release: its ``files`` are filled here.
        """
        described = {name: _describe(path) for name, path in files.items()}
        return self._stage(voice, release.model_copy(update={"voice": check_name(voice), "files": described}), files)

    def copy(self, voice: str, original: Release, folder: Path) -> None:
        """Store another voice's release under this name, unless somebody just did."""
        changes = {"voice": check_name(voice), "copied_from": original.voice, "signature": None}
        files = {name: folder / name for name in original.files}
        release, staged = self._stage(voice, original.model_copy(update=changes), files)
        key = record_key(voice, release.version)
        self.shelf.backend.commit(voice, Change(expects={key: None}, puts={key: dumped(release)}, adds=staged))

    def _stage(self, voice: str, release: Release, files: Mapping[str, Path]) -> tuple[Release, Staged]:
        contents = {name: (path, release.files[name].sha256) for name, path in files.items()}
        return self.trust.signed(release), self.shelf.backend.stage(release_prefix(voice, release.version), contents)

    def sign(self, voice: str, version: str, keys: frozenset[str]) -> bool:
        """Sign a manifest that none of ``keys`` has signed, after a look at its files. Raises NotTrusted."""
        key = record_key(voice, version)
        for _ in range(SWAP_ATTEMPTS):
            release, tag = self.shelf.look(Release, key)
            if release is None or not release_problem(release, voice, version, keys):
                return False
            plain = release.model_copy(update={"signature": None})
            self._checked_folder(voice, version, release, release_problem(plain, voice, version, frozenset()))
            if self.shelf.swap(key, self.trust.signed(plain), tag):
                return True
        raise self.shelf.contended(key, "written")


def check_files(files: Mapping[str, Path]) -> None:
    """Raises SettingsError where a path leads out of the release, or a weight file is not safetensors."""
    for name, path in files.items():
        inside = PurePosixPath(name)
        if not is_inside(name) or name == RECORD_FILE:
            raise SettingsError(f"{name!r} cannot be a file of a release")
        if path.is_symlink() or not path.is_file():
            raise SettingsError(f"{path}: not a regular file, cannot be published as {name}")
        if inside.parts[0] == "adapter" and inside.suffix not in ADAPTER_SUFFIXES:
            raise SettingsError(
                f"{path}: adapter/ takes safetensors and json, not '{inside.suffix}'", hint="nothing was published"
            )
        if inside.suffix == ".safetensors":
            check_safetensors(path)


def _describe(path: Path) -> ReleaseFile:
    with path.open("rb") as stream:
        return ReleaseFile(sha256=hashlib.file_digest(stream, "sha256").hexdigest(), size_bytes=path.stat().st_size)
