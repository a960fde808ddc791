"""Where a release comes from: commit, tree, repository, author, pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.io.ci import actor, describe_run, repository_name
from pipeline.io.git import find_repository
from pipeline.io.registry import Mover
from pipeline.records.release import Provenance


def find_provenance(voice_folder: Path, environment: Mapping[str, str]) -> Provenance:
    """Describe the state a voice folder is in; outside a repository only the author and the pipeline are known.

    The tree is recorded only when nothing in the folder differs from the commit, so an equal tree means equal content.
    """
    pipeline = describe_run(environment).pipeline
    repository = find_repository(voice_folder)
    commit = repository.commit("HEAD") if repository else None
    if repository is None or commit is None:
        return Provenance(author=actor(environment, repository), pipeline=pipeline)
    inside = voice_folder.resolve().relative_to(repository.root.resolve())
    trees = repository.folders(commit, inside.parent.as_posix())
    is_clean = not repository.changed_paths(inside.as_posix())
    return Provenance(
        git_revision=commit,
        git_tree=trees.get(inside.name, "") if is_clean else "",
        repository=repository_name(environment, repository),
        author=repository.author(commit),
        pipeline=pipeline,
    )


def find_mover(folder: Path, environment: Mapping[str, str], reason: str) -> Mover:
    """Who moves a channel from here: the pipeline's author or Git's user, with the commit that is checked out."""
    repository = find_repository(folder)
    revision = repository.commit("HEAD") if repository else None
    return Mover(actor(environment, repository), revision or "", describe_run(environment).pipeline, reason)
