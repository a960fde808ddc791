"""What may not stand in a checkout: results that were committed, and files that Git writes otherwise than it keeps."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from pipeline.errors import SettingsError, UsageError
from pipeline.io.git import SUBMODULE_MODE, SYMLINK_MODE, Repository, find_repository
from pipeline.io.memory import Memory
from pipeline.io.snapshots import TreeDigests, blob_digest
from pipeline.io.voices import counted_digest, is_part_of_voice


def refuse_committed_results(root: Path, work: Path) -> None:
    """Results and checkpoints are believed because our own jobs wrote them: none may come with a commit.

    Raises:
        SettingsError: Git holds files of the folder.
    """
    repository = find_repository(root)
    committed = repository.tracked(work) if repository else []
    if committed:
        more = f" and {len(committed) - 1} more" if len(committed) > 1 else ""
        raise SettingsError(
            f"{committed[0]}{more}: lies in the repository, and what lies in {work.name}/ would be believed",
            hint=f"git rm -r --cached {work.name}, and a line /{work.name}/ in .gitignore; see who committed it",
        )


def refuse_converted(folder: Path, content: str, memory: Memory | None) -> None:
    """A plan counts what Git keeps, a run what lies on disk: where these differ, a voice would be trained for ever.

    Args:
        content: the content digest of the voice's folder on disk.
        memory: digests of trees, from earlier looks.

    Raises:
        SettingsError: naming the first file that Git writes to disk otherwise than it keeps it.
    """
    repository = find_repository(folder)
    commit = repository.commit("HEAD") if repository else None
    if repository is None or commit is None:
        return
    inside = PurePosixPath(folder.resolve().relative_to(repository.root.resolve()))
    prefix, name = inside.parent.as_posix(), inside.name
    tree = repository.folders(commit, prefix).get(name)
    if tree is None or repository.changed_paths(inside.as_posix()):
        return  # nobody compares it with the commit
    try:
        with TreeDigests({}, memory) as digests, repository.blobs() as blobs:
            if digests.of(repository, commit, prefix, {name: tree}, blobs)[name] == content:
                return
        path = _first_converted(repository, commit, inside)
    except UsageError:
        return  # a clone that does not hold every object
    told = [f"{key}={value}" for key, value in repository.attributes(path).items()]
    told += [f"core.autocrlf={value}"] if (value := repository.config("core.autocrlf")) else []
    raise SettingsError(
        f"{path}: Git keeps other bytes of it than it writes to disk ({', '.join(told) or 'cause unknown'}), so"
        " the plan and this run would count different versions",
        hint=f"add to .gitattributes: {prefix}/** -text -ident -working-tree-encoding; then"
        f" git rm -rq --cached {inside} && git add {inside}, and commit",
    )


def _first_converted(repository: Repository, commit: str, inside: PurePosixPath) -> str:
    with repository.blobs() as blobs:
        for entry in repository.files(commit, [inside.as_posix()]):
            is_counted = is_part_of_voice(PurePosixPath(entry.path).relative_to(inside))
            if not is_counted or entry.mode in (SYMLINK_MODE, SUBMODULE_MODE):
                continue
            if counted_digest(repository.root / entry.path) != blob_digest(entry.mode, entry.object_id, blobs):
                return entry.path
    return inside.as_posix()
