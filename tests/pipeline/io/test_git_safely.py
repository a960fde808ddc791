"""A .git/config that its sender wrote starts no program of his, and a folder that tries to is refused by name."""

from __future__ import annotations

import os
import shutil

import pytest

from pipeline.errors import UsageError
from pipeline.io import git
from pipeline.io.git import find_repository
from pipeline.io.provenance import find_provenance

# What reading a work tree obeys, or comes close to: programs, and other folders.
REFUSED = {
    "core.fsmonitor": "touch {pwned}; false",
    "filter.evil.clean": "touch {pwned}; cat",
    "filter.evil.process": "touch {pwned}; false",
    "filter.lfs.clean": "touch {pwned}; cat",
    "filter.lfs.smudge": "git-lfs smudge -- %f; touch {pwned}",
    "core.worktree": "/etc",
    "diff.external": "touch {pwned}",
    "diff.evil.textconv": "touch {pwned}; cat",
    "gpg.program": "touch {pwned}; false",
    "gpg.ssh.program": "touch {pwned}; false",
    "core.alternateRefsCommand": "touch {pwned}",
    "core.gitProxy": "touch {pwned}",
    "lfs.extension.evil.clean": "touch {pwned}; cat",
    "remote.origin.uploadpack": "touch {pwned}; false",
}

# What developers and CI engines write, and nothing of ours does: it stays without effect.
WITHOUT_EFFECT = {
    "core.fsmonitor": "true",
    "core.hooksPath": "{hooks}",
    "core.sshCommand": "touch {pwned}; false",
    "credential.helper": "!touch {pwned}; false",
    "core.askPass": "touch {pwned}",
    "core.pager": "touch {pwned}",
    "core.editor": "touch {pwned}",
    "log.showSignature": "true",
    "status.submoduleSummary": "true",
    "alias.status": "!touch {pwned}",
    "filter.lfs.clean": "git-lfs clean -- %f",
    "filter.lfs.smudge": "git-lfs smudge --skip -- %f",
}


@pytest.fixture
def clone(line, tmp_path):
    """A repository with a voice whose recording has to be looked at again, and hooks beside it."""
    (line.root / ".gitattributes").write_text("*.wav filter=evil diff=evil\n*.flac filter=lfs\n")
    folder = line.write_voice("ana")
    (folder / "wavs" / "2.flac").write_bytes(b"take two")
    line.commit()
    for recording in (folder / "wavs").iterdir():
        os.utime(recording, (1, 1))  # git reads it again, through its filter
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-index-change", "fsmonitor-watchman", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/PWNED\n")
        (hooks / name).chmod(0o755)
    return line


@pytest.mark.parametrize(
    ("key", "command", "is_foreign"),
    [
        ("filter.lfs.process", "git-lfs filter-process", False),
        ("filter.lfs.process", "git-lfs filter-process --skip", False),
        ("filter.lfs.clean", "git lfs clean %f", False),
        ("filter.lfs.clean", "git-lfs clean -- %f; touch PWNED", True),
        ("filter.lfs.clean", "./git-lfs clean -- %f", True),
        ("filter.LFS.clean", "git-lfs clean -- %f", True),
        ("core.fsmonitor", "", False),
        ("core.fsmonitor", ".git/hooks/query-watchman", True),
    ],
)
def test_git_lfs_is_the_one_filter_that_may_run(key, command, is_foreign):
    assert git._starts_a_program(key, command) == is_foreign


def everything_asked(root) -> None:
    """What the commands ask of git, all of it."""
    repository = find_repository(root)
    commit = repository.commit("HEAD")
    assert commit is not None
    repository.changed_paths("voices")
    repository.files(commit, repository.folders(commit, "."))
    repository.author(commit)
    repository.is_shallow()
    repository.is_ancestor(commit, commit)
    with repository.blobs() as blobs:
        blobs.read("HEAD:.gitattributes")
        blobs.read("0" * 40)
    find_provenance(root / "voices" / "ana", {})


@pytest.mark.parametrize("key", REFUSED)
@pytest.mark.parametrize("place", ["local", "included", "worktree"])
def test_a_configuration_that_starts_programs_is_refused_by_name(clone, tmp_path, key, place):
    value = REFUSED[key].format(pwned=tmp_path / "PWNED")
    if place == "worktree":
        clone.git("config", "extensions.worktreeConfig", "true")
        clone.git("config", "--worktree", key, value)
    elif place == "included":
        clone.git("config", "--file", ".git/more", key, value)
        clone.git("config", "include.path", "more")
    else:
        clone.git("config", key, value)
    with pytest.raises(UsageError) as refusal:
        everything_asked(clone.root)
    assert "not read as a repository" in refusal.value.message
    assert key.lower() in refusal.value.message
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("key", WITHOUT_EFFECT)
def test_what_developers_and_engines_configure_stays_without_effect(clone, tmp_path, key):
    value = WITHOUT_EFFECT[key].format(pwned=tmp_path / "PWNED", hooks=tmp_path / "hooks")
    clone.git("config", key, value)
    if key == "core.fsmonitor":
        clone.git("config", "core.hooksPath", str(tmp_path / "hooks"))
    everything_asked(clone.root)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("command", [("plan", "--worktree"), ("registry", "retire", "ana")])
def test_the_command_says_which_key_and_what_to_do(clone, voxline, tmp_path, command):
    clone.publish("ana")
    clone.git("config", "core.fsmonitor", f"touch {tmp_path}/PWNED; false")
    told = voxline(*command)
    assert told.code == 2
    assert "not read as a repository: its .git/config sets 'core.fsmonitor' to" in told.err
    assert "git config --unset 'core.fsmonitor'" in told.err
    assert not (tmp_path / "PWNED").exists()


def test_a_missing_object_is_not_fetched_through_a_program_of_the_remotes(clone, tmp_path):
    """A partial clone fetches what it lacks: reading would start the remote's program."""
    clone.git("config", "core.repositoryFormatVersion", "1")
    clone.git("config", "extensions.partialClone", "origin")
    clone.git("config", "remote.origin.promisor", "true")
    clone.git("config", "remote.origin.url", f"ext::touch {tmp_path}/PWNED")
    clone.git("config", "protocol.ext.allow", "always")
    with find_repository(clone.root).blobs() as blobs:
        assert blobs.read("1" * 40) is None
    assert not (tmp_path / "PWNED").exists()


def test_a_bare_repository_inside_the_tree_is_not_taken_for_the_repository(clone, tmp_path):
    """A commit cannot hold .git, but it can hold everything that lies in it."""
    folder = clone.root / "voices" / "ana"
    shutil.copytree(clone.root / ".git", folder, dirs_exist_ok=True)
    (folder / "config").write_text(
        f"[core]\n repositoryformatversion = 0\n worktree = {clone.root}\n fsmonitor = touch {tmp_path}/PWNED; false\n"
    )
    assert find_repository(folder) is None
    find_provenance(folder, {})
    assert not (tmp_path / "PWNED").exists()


def test_another_users_folder_is_refused_unless_the_administrator_trusts_it(clone, monkeypatch):
    real = git._environment
    monkeypatch.setattr(git, "_environment", lambda: {**real(), "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"})
    with pytest.raises(UsageError, match="another user owns it"):
        find_repository(clone.root)
    monkeypatch.setattr(git, "_safe_directories", lambda: ("*",))  # as /etc/gitconfig of our images says
    assert find_repository(clone.root).commit("HEAD")


def test_neither_the_system_nor_the_terminal_is_asked(clone, monkeypatch, tmp_path):
    program = tmp_path / "git"
    program.write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\nprintf '%s\\n' \"$@\" > {tmp_path}/arguments\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("VOXLINE_NOTIFY_SECRET", "s3cret")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    git.Repository(clone.root).commit("HEAD")
    seen = (tmp_path / "seen").read_text()
    assert "GIT_TERMINAL_PROMPT=0" in seen and "GIT_CONFIG_NOSYSTEM=1" in seen
    assert "s3cret" not in seen and "GIT_CONFIG_COUNT" not in seen
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert "core.fsmonitor=false" in arguments and f"core.hooksPath={os.devnull}" in arguments
