"""Where a release comes from: commit, tree, repository, author, pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.io.ci import actor, describe_run, repository_name
from pipeline.io.git import find_repository
from pipeline.io.registry.events import Mover
from pipeline.plain import stripped
from pipeline.records.release import Provenance

LONGEST = 500  # characters of a value from outside that the registry keeps


def find_provenance(voice_folder: Path, environment: Mapping[str, str]) -> Provenance:
    """Describe the state a voice folder is in; outside a repository only the author and the pipeline are known.

    The tree is recorded only when nothing in the folder differs from the commit, so an equal tree means equal content.
    """
    pipeline = stripped(describe_run(environment).pipeline, LONGEST)
    repository = find_repository(voice_folder)
    commit = repository.commit("HEAD") if repository else None
    if repository is None or commit is None:
        return Provenance(author=stripped(actor(environment, repository), LONGEST), pipeline=pipeline)
    inside = voice_folder.resolve().relative_to(repository.root.resolve())
    trees = repository.folders(commit, inside.parent.as_posix())
    is_clean = not repository.changed_paths(inside.as_posix())
    return Provenance(
        git_revision=commit,
        git_tree=trees.get(inside.name, "") if is_clean else "",
        repository=stripped(repository_name(environment, repository), LONGEST),
        author=stripped(repository.author(commit), LONGEST),
        pipeline=pipeline,
    )


def find_mover(folder: Path, environment: Mapping[str, str], reason: str) -> Mover:
    """Who moves a channel from here: the pipeline's author or Git's user, with the commit that is checked out.

    Whatever Git, the engine or a report says is kept on one line and without control characters.
    """
    repository = find_repository(folder)
    revision = repository.commit("HEAD") if repository else None
    return Mover(
        stripped(actor(environment, repository), LONGEST) or "unknown",
        revision or "",
        stripped(describe_run(environment).pipeline, LONGEST),
        stripped(reason, LONGEST),
    )
