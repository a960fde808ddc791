"""The voice folders of a commit, or of the files on disk, with their content digests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.errors import SettingsError, UsageError
from pipeline.io.files import open_regular
from pipeline.io.git import SUBMODULE_MODE, SYMLINK_MODE, BlobReader, Repository
from pipeline.io.memory import Memory
from pipeline.io.voices import MANIFEST_FILE, content_digest, digest_of, is_part_of_voice, link_digest
from pipeline.io.yaml import MAX_YAML_BYTES
from pipeline.records.release import is_digest
from pipeline.records.voice import NAME_RULE, is_voice_name


@dataclass(frozen=True)
class Snapshot:
    """The voice folders of one state of the repository.

    Attributes:
        contents: voice -> (bytes of voice.yaml or None, content digest).
        trees: voice -> Git tree id, for those that lie in a commit unchanged.
    """

    contents: Mapping[str, tuple[bytes | None, str]]
    trees: Mapping[str, str]


class TreeDigests:
    """Content digests of Git trees: known from releases or an earlier plan, else computed from the blobs.

    Args:
        known: tree id -> digest, as releases recorded them; believed here, and not remembered.
        memory: what was computed before, or None.
    """

    def __init__(self, known: Mapping[str, str], memory: Memory | None) -> None:
        self._known = known
        self._memory = memory
        self._computed: dict[str, str] = {}
        self._has_new = False

    def __enter__(self) -> TreeDigests:
        content = self._memory.load() if self._memory else {}
        self._computed = {tree: told for tree, told in content.items() if is_digest(told)}
        return self

    def __exit__(self, *_: object) -> None:
        if self._memory is not None and self._has_new:
            self._memory.save(self._computed)

    def of(
        self, repository: Repository, commit: str, prefix: str, trees: Mapping[str, str], blobs: BlobReader
    ) -> dict[str, str]:
        """Digest of each voice, from its tree id where that is known."""
        new = [name for name, tree in trees.items() if self._find(tree) is None]
        files: dict[str, list[tuple[str, str]]] = {name: [] for name in new}
        for entry in repository.files(commit, [f"{prefix}/{name}" for name in new]):
            name, _, path = entry.path.removeprefix(f"{prefix}/").partition("/")
            if is_part_of_voice(PurePosixPath(path)):
                files[name].append((path, blob_digest(entry.mode, entry.object_id, blobs)))
        self._computed |= {trees[name]: digest_of(files[name]) for name in new}
        self._has_new |= bool(new)
        return {name: self._find(tree) or "" for name, tree in trees.items()}

    def _find(self, tree: str) -> str | None:
        return self._computed.get(tree) or self._known.get(tree)


def blob_digest(mode: str, object_id: str, blobs: BlobReader) -> str:
    """What a file of a commit counts as. Raises UsageError where the clone does not hold it."""
    if mode == SUBMODULE_MODE:
        return f"submodule:{object_id}"
    if mode == SYMLINK_MODE:
        return link_digest(blobs.read(object_id) or b"")
    digest = blobs.digest(object_id)
    if digest is None:
        raise UsageError(
            f"object {object_id} is missing from this clone", hint="git fetch --unshallow, or git fetch --refetch"
        )
    return digest


def _check_names(names: Iterable[str], prefix: str) -> None:
    for name in sorted(names):
        if not is_voice_name(name):
            raise SettingsError(
                f"{prefix}/{name}: {name!r} is not a voice name", hint=f"rename the folder; {NAME_RULE}"
            )


def read_commit(repository: Repository, commit: str, prefix: str, digests: TreeDigests) -> Snapshot:
    trees = {name: tree for name, tree in repository.folders(commit, prefix).items() if not name.startswith(".")}
    _check_names(trees, prefix)
    with repository.blobs() as blobs:
        contents = digests.of(repository, commit, prefix, trees, blobs)
        manifests = blobs.read_all([f"{commit}:{prefix}/{name}/{MANIFEST_FILE}" for name in trees])
    return Snapshot({name: (manifest, contents[name]) for name, manifest in zip(trees, manifests, strict=True)}, trees)


def read_worktree(
    repository: Repository | None, commit: str | None, prefix: str, folder: Path, digests: TreeDigests
) -> Snapshot:
    """Folders that Git calls clean are taken from the commit, which is fast; the others are read from disk."""
    on_disk = (
        {path.name: path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
        if folder.is_dir()
        else {}
    )
    _check_names(on_disk, prefix)
    committed = Snapshot({}, {})
    touched = set(on_disk)
    if repository is not None and commit is not None:
        committed = read_commit(repository, commit, prefix, digests)
        paths = repository.changed_paths(prefix)
        touched = {path.removeprefix(f"{prefix}/").partition("/")[0] for path in paths} | (
            set(on_disk) - set(committed.trees)
        )
    contents: dict[str, tuple[bytes | None, str]] = {}
    for name, path in on_disk.items():
        contents[name] = _read_folder(path) if name in touched else committed.contents[name]
    return Snapshot(
        contents, {name: tree for name, tree in committed.trees.items() if name in on_disk and name not in touched}
    )


def _read_folder(folder: Path) -> tuple[bytes | None, str]:
    manifest = folder / MANIFEST_FILE
    if manifest.is_symlink() or not manifest.is_file():
        return None, content_digest(folder)
    with open_regular(manifest, follow_links=False) as stream:
        return stream.read(MAX_YAML_BYTES + 1), content_digest(folder)  # one byte too many: refused where it is parsed
