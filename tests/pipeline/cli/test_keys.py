"""voxline keys, and what trusting one means to every command."""

from __future__ import annotations

import json
import stat

import pytest
from releases import OURS, THEIRS, rewrite

from pipeline.io.signing import key_id, key_path


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder of this test's own."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for variable in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    return folder


@pytest.fixture
def published(line, home):
    """ana was published before there was a key."""
    line.write_voice("ana")
    line.commit("first")
    line.publish("ana")
    return line


def test_a_new_key_is_for_its_owner_alone_and_not_overwritten(line, home, voxline):
    answer = voxline("keys", "new")
    path = key_path({})
    assert (answer.code, answer.out, stat.S_IMODE(path.stat().st_mode)) == (0, "", 0o600)
    assert path.read_text().strip() not in answer.err
    before = path.read_text()
    again = voxline("keys", "new")
    assert (again.code, "a key already exists" in again.err) == (2, True)
    assert path.read_text() == before
    listed = json.loads(voxline("keys", "list", "--json").out)["keys"]
    assert [(key["own"], key["trusted"]) for key in listed] == [(True, False)]


def test_a_printed_key_is_one_word_and_stored_nowhere(line, home, voxline, monkeypatch):
    secret = voxline("keys", "new", "--print").out.strip()
    assert len(secret.split()) == 1
    assert not key_path({}).exists()
    monkeypatch.setenv("VOXLINE_SIGNING_KEY", secret)
    listed = json.loads(voxline("keys", "list", "--json").out)["keys"]
    assert [key["own"] for key in listed] == [True]


def test_trusting_a_key_keeps_what_a_person_wrote(line, home, voxline):
    path = line.root / "pipeline.toml"
    path.write_text("# ours\n[voxline]\nbase = 'nano'  # small\n")
    for key in (OURS.public_key, THEIRS.public_key):
        assert voxline("keys", "trust", key).code == 0
    assert "already" in voxline("keys", "trust", OURS.public_key).out
    written = path.read_text()
    assert written.startswith("# ours\n[voxline]\nbase = 'nano'  # small\n")
    told = json.loads(voxline("settings", "--json").out)
    assert OURS.public_key in str(told) and THEIRS.public_key in str(told)
    assert key_id(OURS.public_key) in voxline("keys", "list").out


@pytest.mark.parametrize("key", ["hello", "ed25519:", "ed25519:" + "A" * 44, OURS.secret])
def test_what_is_no_key_is_not_trusted(line, home, voxline, key):
    answer = voxline("keys", "trust", key)
    assert (answer.code, "trusted_keys" in answer.err) == (3, True)
    assert not (line.root / "pipeline.toml").exists()


def test_from_the_first_trusted_key_on_unsigned_is_refused_until_somebody_signs(published, voxline, monkeypatch):
    assert voxline("registry", "verify").code == 0
    voxline("keys", "new")
    assert voxline("keys", "trust").code == 0
    for command in (["registry", "verify"], ["say", "ana", "Hi"], ["export", "ana"], ["registry", "promote", "ana"]):
        answer = voxline(*command, *([published.version("ana")] if "promote" in command else []))
        assert (answer.code, "is not signed" in answer.err) == (3, True), (command, answer.err)
    plan = voxline("plan", "--json")
    assert "not signed by a trusted key: ana" in json.loads(plan.out)["note"]
    assert voxline("registry", "sign", "ana", "--reason", "first key").code == 0
    assert voxline("registry", "verify").code == 0
    assert json.loads(voxline("plan", "--json").out)["note"].count("trusted key") == 0
    assert "is signed already" in voxline("registry", "sign", "ana").out
    assert ", trusted" in voxline("registry", "show", "ana").out
    record = published.root / "registry" / "ana" / "releases" / published.version("ana") / "release.json"
    rewrite(record, lambda told: told.update(license="MIT"))
    assert "no: release.json is not what was signed" in voxline("registry", "show", "ana").out


def test_a_damaged_release_is_not_signed_without_a_word(published, voxline):
    voxline("keys", "new")
    version = published.version("ana")
    record = published.root / "registry" / "ana" / "releases" / version / "release.json"
    rewrite(record, lambda told: told.update(license="MIT"))
    answer = voxline("registry", "sign", "ana")
    assert (answer.code, "--anyway" in answer.err) == (3, True)
    assert '"signature": null' in record.read_text()


def test_a_flipped_byte_stops_say_and_export(published, voxline):
    release = published.registry.resolve("ana")
    path = next((published.registry.verified("ana", release.version)[1] / "adapter").rglob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    for command in (["say", "ana", "Hi"], ["export", "ana"]):
        answer = voxline(*command)
        assert (answer.code, "is not what was published" in answer.err) == (3, True), answer.err
    assert not list(published.root.glob("out*.wav"))


def test_a_key_that_others_can_read_signs_nothing(published, voxline):
    voxline("keys", "new")
    key_path({}).chmod(0o644)
    answer = voxline("registry", "rollback", "ana", "--to", published.version("ana"))
    assert answer.code == 0, "nothing to sign: it is there already"
    answer = voxline("registry", "retire", "ana")
    assert (answer.code, "other users can read this key" in answer.err) == (3, True)
    assert published.registry.resolve("ana").version == published.version("ana")


def test_no_program_that_a_command_starts_is_told_the_key(published, voxline, monkeypatch, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "git").write_text(f'#!/bin/sh\nenv >> {tmp_path}/seen\nexec /usr/bin/env -i /usr/bin/git "$@"\n')
    (tools / "git").chmod(0o755)
    monkeypatch.setenv("VOXLINE_SIGNING_KEY", OURS.secret)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    assert voxline("registry", "retire", "ana").code == 0
    assert OURS.secret not in (tmp_path / "seen").read_text()
    assert published.registry.history("ana")[-1].signature.key == OURS.public_key


def test_a_variable_that_is_no_key_is_told_without_being_quoted(published, voxline, monkeypatch):
    monkeypatch.setenv("VOXLINE_SIGNING_KEY", "hunter2")
    answer = voxline("registry", "retire", "ana")
    assert (answer.code, "VOXLINE_SIGNING_KEY: no signing key" in answer.err, "hunter2" in answer.err) == (
        3,
        True,
        False,
    )


def test_keys_can_be_trusted_by_a_variable(published, voxline, monkeypatch):
    monkeypatch.setenv("VOXLINE_REGISTRY_TRUSTED_KEYS", f"{OURS.public_key},{THEIRS.public_key}")
    assert "is not signed" in voxline("registry", "verify").err
    monkeypatch.setenv("VOXLINE_REGISTRY", "file:elsewhere")
    assert "elsewhere is empty" in voxline("registry", "list").out
