"""A registry on refs of a Git repository: who may, what is refused, and what Git makes of it."""

from __future__ import annotations

import subprocess

import pytest
from faulty_proxy import faulty_proxy
from git_server import git_server
from releases import version_of

from pipeline.errors import NoAccessError, SettingsError, TransientError
from pipeline.io.registry import remote
from pipeline.io.registry.registry import open_registry
from pipeline.io.registry.trust import NotTrusted

WEIGHTS = "adapter/synthesizer/adapter_model.safetensors"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(remote, "PAUSES_S", (0.0,))


@pytest.fixture
def bare(tmp_path):
    folder = tmp_path / "served" / "voices.git"
    git("init", "-q", "--bare", folder)
    return folder


@pytest.fixture
def publish(tmp_path, make_release, make_weights):
    def published(registry):
        return registry.publish("ana", make_release(), {WEIGHTS: make_weights(tmp_path / "w")}, actor="x")

    return published


def git(*arguments):
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


def test_a_release_is_a_tree_on_a_ref_of_its_own(bare, tmp_path, publish):
    registry = open_registry(f"git:{bare}", cache=tmp_path / "cache")
    publish(registry)
    refs = git("-C", bare, "for-each-ref", "--format=%(refname)").split()
    assert refs == [
        "refs/voxline/_index/head",
        "refs/voxline/ana/head",
        f"refs/voxline/ana/releases/{version_of(1)}",
    ]
    assert git("-C", bare, "ls-tree", "-r", "--name-only", refs[2]).split() == [WEIGHTS]
    assert git("-C", bare, "fsck", "--strict") == ""


def test_another_prefix_holds_another_registry(bare, tmp_path, publish):
    one, other = (open_registry(f"git:{bare}{name}", cache=tmp_path / "cache") for name in ("", "#refs/heads/models"))
    publish(one)
    assert other.voices() == []
    publish(other)
    assert "refs/heads/models/ana/head" in git("-C", bare, "for-each-ref", "--format=%(refname)")
    assert other.verify("ana") == []


def test_a_release_whose_ref_somebody_moved_is_not_believed(bare, tmp_path, publish):
    publish(open_registry(f"git:{bare}", cache=tmp_path / "cache"))
    ref = f"refs/voxline/ana/releases/{version_of(1)}"
    git("-C", bare, "update-ref", ref, git("-C", bare, "rev-parse", "refs/voxline/ana/head").strip())
    fresh = open_registry(f"git:{bare}", cache=tmp_path / "fresh")
    with pytest.raises(NotTrusted, match="the head names"):
        fresh.verified("ana")
    assert any("the head names" in line for line in fresh.verify("ana"))
    git("-C", bare, "update-ref", "-d", ref)
    with pytest.raises(NotTrusted, match="is gone"):
        fresh.verified("ana")


@pytest.mark.parametrize(
    ("told", "is_good"),
    [
        ({"CI_JOB_TOKEN": "secret-of-the-job", "CI_SERVER_URL": "{server}"}, True),
        ({"CI_JOB_TOKEN": "secret-of-the-job", "CI_SERVER_URL": "https://gitlab.example.org"}, False),
        ({"VOXLINE_REGISTRY_TOKEN": "secret-of-the-job", "VOXLINE_REGISTRY_USER": "gitlab-ci-token"}, True),
        ({"VOXLINE_REGISTRY_TOKEN": "another"}, False),
        ({}, False),
    ],
)
def test_a_job_s_token_opens_it_and_is_never_shown(bare, tmp_path, publish, monkeypatch, told, is_good):
    with git_server(bare.parent, login="gitlab-ci-token:secret-of-the-job") as (url, _):
        for name, value in told.items():
            monkeypatch.setenv(name, value.format(server=url))
        registry = open_registry(f"git:{url}/voices.git", cache=tmp_path / "cache")
        if is_good:
            publish(registry)
            assert registry.verify("ana") == []
        else:
            with pytest.raises(NoAccessError, match="docs|could not read|Authentication") as failure:
                publish(registry)
            assert failure.value.exit_code == 3
            assert "another" not in str(failure.value) + failure.value.hint


def test_a_password_in_the_address_is_refused_and_not_shown(tmp_path):
    with pytest.raises(SettingsError, match="VOXLINE_REGISTRY_TOKEN|password stood") as failure:
        open_registry("git:https://ci:secret-of-the-job@git.example.org/voices.git", cache=tmp_path)
    assert "secret" not in failure.value.message + failure.value.hint


def test_a_token_that_may_only_read_publishes_nothing(bare, tmp_path, publish):
    with git_server(bare.parent, may_push=False) as (url, _):
        with pytest.raises(NoAccessError, match="403|not allowed"):
            publish(open_registry(f"git:{url}/voices.git", cache=tmp_path / "cache"))
    assert git("-C", bare, "for-each-ref") == ""


def test_a_repository_that_refuses_by_a_hook_is_quoted(bare, tmp_path, publish):
    hook = bare / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'no voices on a Sunday' >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(SettingsError, match="no voices on a Sunday"):
        publish(open_registry(f"git:{bare}", cache=tmp_path / "cache"))


def test_a_repository_that_is_not_there_is_a_setting(tmp_path, publish):
    (tmp_path / "served").mkdir()
    with git_server(tmp_path / "served") as (url, _):
        with pytest.raises(SettingsError, match="not found"):
            publish(open_registry(f"git:{url}/nothing.git", cache=tmp_path / "cache"))
    with pytest.raises(SettingsError, match="repository"):
        open_registry("git:nothing", root=tmp_path, cache=tmp_path / "cache").voices()


def test_a_server_that_is_away_is_a_temporary_failure(tmp_path):
    with git_server(tmp_path) as (url, _):
        pass
    with pytest.raises(TransientError) as failure:
        open_registry(f"git:{url}/voices.git", cache=tmp_path / "cache").voices()
    assert failure.value.exit_code == 75


def test_what_lies_there_and_is_no_registry_of_ours_is_named(bare, tmp_path, publish):
    registry = open_registry(f"git:{bare}", cache=tmp_path / "cache")
    publish(registry)
    work = tmp_path / "work"
    git("init", "-q", work)
    (work / "head.json").write_text('{"format": 1, "voice": "ben", "records": {}}')
    git("-C", work, "add", ".")
    git("-C", work, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "-m", "x")
    git("-C", work, "push", "-q", bare, "+HEAD:refs/voxline/ana/head")
    with pytest.raises(SettingsError, match=r"damaged: .*its head is of 'ben'"):
        registry.resolve("ana")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("git:http://git.example.org/voices.git", "in the clear"),
        ("git:ftp://git.example.org/voices.git", "ftp is not used"),
        ("git:ext::sh -c touch% x", "not the address"),
        ("git:--upload-pack=touch x", "not the address"),
        ("git:", "none of"),
        ("git:voices.git#../x", "not a name for refs"),
        ("git:voices.git#refs/heads/a b", "not a name for refs"),
    ],
)
def test_an_address_that_is_not_safe_is_refused_before_anybody_is_asked(url, told, tmp_path):
    with pytest.raises(SettingsError, match=told):
        open_registry(url, root=tmp_path, cache=tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_the_user_s_hooks_and_templates_runs(bare, tmp_path, publish, monkeypatch):
    evil = tmp_path / "evil"
    evil.mkdir()
    for name in ("pre-push", "reference-transaction", "post-checkout"):
        (evil / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (evil / name).chmod(0o755)
    config = tmp_path / "gitconfig"
    config.write_text(f"[core]\nhooksPath = {evil}\nfsmonitor = {evil}/pre-push\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    with git_server(bare.parent) as (_, port), faulty_proxy("127.0.0.1", port) as faults:
        publish(open_registry(f"git:{faults.url}/voices.git", cache=tmp_path / "cache"))
    assert not (tmp_path / "ran").exists()
