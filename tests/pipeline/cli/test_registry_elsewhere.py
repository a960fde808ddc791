"""Every command with a registry on another machine: here one in a bare Git repository."""

from __future__ import annotations

import json
import subprocess

import pytest

from pipeline.io.registry.registry import open_registry

pytestmark = pytest.mark.slow


@pytest.fixture
def bare(tmp_path):
    folder = tmp_path / "voices.git"
    subprocess.run(["git", "init", "-q", "--bare", folder], check=True)
    return folder


@pytest.fixture
def published(line, bare, tmp_path, monkeypatch):
    """ana has two versions on production, in the registry that pipeline.toml names."""
    (line.root / "pipeline.toml").write_text(f'[voxline]\nregistry = "git:{bare}"\n')
    monkeypatch.setenv("VOXLINE_CACHE", str(tmp_path / "cache"))
    registry = open_registry(f"git:{bare}", cache=tmp_path / "cache")
    monkeypatch.setattr(type(line), "registry", registry)
    for take in (b"take one", b"take two"):
        line.write_voice("ana", sound=take)
        line.commit(take.decode())
        line.publish("ana")
    return line


def test_the_commands_mean_the_same_there(published, voxline, bare):
    registry, new = published.registry, published.version("ana")
    listed = json.loads(voxline("registry", "list", "--json").out)
    assert listed["registry"] == f"git:{bare}"
    assert listed["voices"] == [{"voice": "ana", "production": new, "candidate": None, "releases": 2}]
    assert json.loads(voxline("registry", "show", "ana", "--json").out)["version"] == new
    planned = json.loads(voxline("plan", "--all", "--json").out)
    assert [(entry["voice"], entry["action"]) for entry in planned["entries"]] == [("ana", "skip")]
    answer = voxline("registry", "rollback", "ana", "--reason", "hisst 嘶")
    assert answer.code == 0, answer.err
    assert registry.resolve("ana").version != new
    assert voxline("registry", "promote", "ana", new).code == 0
    assert voxline("registry", "verify").code == 0
    assert "1 voices in the index" in voxline("registry", "reindex").out
    assert voxline("registry", "gc").code == 0
    assert voxline("registry", "retire", "ana", "--registry", f"git:{bare}").code == 0
    assert registry.pointer("ana", "production").version is None
    assert not (published.root / "registry").exists()


def test_a_list_of_a_registry_that_is_away_is_a_temporary_failure_or_a_setting(published, voxline, tmp_path):
    (tmp_path / "voices.git").rename(tmp_path / "gone.git")
    answer = voxline("registry", "list")
    assert (answer.code, "voices.git" in answer.err) == (3, True), answer.err


@pytest.mark.parametrize(
    "url", ["git:http://git.example.org/x.git", "s3://", "hf://a/b", "git:ext::sh -c id", "https://example.org"]
)
def test_an_address_that_nobody_should_use_is_usage_where_it_was_typed_else_a_setting(line, voxline, monkeypatch, url):
    for command in ("plan", "registry list", "registry reindex"):
        assert voxline(*command.split(), "--registry", url).code == 2
    monkeypatch.setenv("VOXLINE_REGISTRY", url)
    assert voxline("registry", "list").code == 3


def test_doctor_says_whether_the_registry_can_be_used(published, voxline, monkeypatch):
    def registry_row():
        found = json.loads(voxline("doctor", "--json").out)["findings"]
        return next(one for one in found if one["topic"] == "registry")

    assert (registry_row()["state"], registry_row()["detail"]) == ("ok", "1 voices")
    monkeypatch.setenv("VOXLINE_REGISTRY", "git:/not/there.git")
    assert registry_row()["state"] == "missing"
    assert "/not/there.git" in registry_row()["detail"]


def test_a_folder_needs_no_index(line, voxline):
    assert "needs no index" in voxline("registry", "reindex").out


def test_what_was_downloaded_is_bounded(published, voxline, tmp_path):
    published.registry.verified("ana")
    told = json.loads(voxline("cache", "gc", "--max-gb", "0", "--json").out)
    assert told["folder"] == str(tmp_path / "cache" / "registry")
    assert (told["removed_bytes"], told["kept_bytes"] > 0) == (0, True), "what was used within the hour stays"
    assert voxline("cache", "gc", "--max-gb", "-1").code == 2


def test_a_token_is_no_setting_that_nobody_knows(line, voxline, monkeypatch):
    monkeypatch.setenv("VOXLINE_REGISTRY_TOKEN", "secret")
    monkeypatch.setenv("VOXLINE_REGISTRY_USER", "x-access-token")
    answer = voxline("settings", "--explain")
    assert answer.code == 0, answer.err
    assert "secret" not in answer.out
