"""voxline registry, for people and for scripts."""

from __future__ import annotations

import json

import pytest

from pipeline.io.registry.events import Mover
from pipeline.records.release import Event, Release


@pytest.fixture
def published(line):
    """ana has two versions on production."""
    line.write_voice("ana")
    line.commit("first")
    line.publish("ana")
    line.write_voice("ana", sound=b"take two")
    line.commit("second")
    line.publish("ana")
    return line


def test_an_empty_registry_says_what_to_do(line, voxline):
    answer = voxline("registry", "list")
    assert (answer.code, "is empty" in answer.out) == (0, True)
    assert json.loads(voxline("registry", "list", "--json").out) == {"registry": "file:registry", "voices": []}
    assert not (line.root / "registry").exists()


def test_list_show_and_history_tell_the_same_for_people_and_scripts(published, voxline):
    version = published.version("ana")
    listed = json.loads(voxline("registry", "list", "--json").out)["voices"]
    assert listed == [{"voice": "ana", "production": version, "candidate": None, "releases": 2}]
    assert version in voxline("registry", "list").out
    release = Release.model_validate_json(voxline("registry", "show", "ana", "--json").out)
    assert (release.version, release.provenance.git_revision) == (version, published.git("rev-parse", "HEAD"))
    assert release.provenance.author == "Ana Perez"
    shown = voxline("registry", "show", "ana").out
    assert all(word in shown for word in (version, "Ana Perez", "CC-BY-4.0", "Somebody, 2026-01-09"))
    events = [
        Event.model_validate(event)
        for event in json.loads(voxline("registry", "history", "ana", "--json").out)["events"]
    ]
    assert [event.action for event in events] == ["publish", "publish"]
    assert version in voxline("registry", "history", "ana").out


def test_rollback_promote_and_retire_move_the_channel_and_leave_a_trace(published, voxline):
    registry, version = published.registry, published.version("ana")
    answer = voxline("registry", "rollback", "ana", "--reason", "hisses")
    assert answer.code == 0, answer.err
    old = registry.resolve("ana").version
    assert old != version
    assert voxline("registry", "promote", "ana", version).code == 0
    assert registry.resolve("ana").version == version
    assert voxline("registry", "retire", "ana").code == 0
    assert "retired" in voxline("registry", "list").out
    assert voxline("registry", "show", "ana").code == 2
    told = [(event.action, event.reason) for event in registry.history("ana")][2:]
    assert told == [("rollback", "hisses"), ("promote", ""), ("retire", "")]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "ben"], 2, "nothing on channel production"),
        (["show", "ana", "ffffffffffff"], 2, "no version ffffffffffff"),
        (["show", "../ana"], 2, "not a voice name"),
        (["show", "ana", "../../x"], 2, "not a version"),
        (["history", "ben"], 2, "never published"),
        (["retire", "ben"], 2, "never published"),
        (["promote", "ana"], 2, "nothing on channel candidate"),
        (["rollback", "ana", "--to", "ffffffffffff"], 2, "no version"),
        (["verify", "ben"], 2, "never published"),
        (["list", "--registry", "ftp://x"], 2, "ftp://x"),
        (["list", "--registry", "/srv/voices"], 2, "--registry file:/srv/voices"),
        (["gc", "--unused-days", "0"], 2, "unused-days"),
    ],
)
def test_what_is_not_there_is_told_with_the_next_step(published, voxline, arguments, code, message):
    answer = voxline("registry", *arguments)
    assert (answer.code, message in answer.err) == (code, True), answer.err


@pytest.mark.parametrize(
    "command",
    ["registry list", "plan", "validate ana", "run ana", "say ana Hello. -o x.wav", "export ana -o x"],
)
def test_a_registry_nobody_can_open_is_usage_where_it_was_typed_else_a_setting(
    published, voxline, monkeypatch, command
):
    typed = voxline(*command.split(), "--registry", "ftp://x")
    assert (typed.code, "ftp://x" in typed.err) == (2, True), typed.err
    monkeypatch.setenv("VOXLINE_REGISTRY", "ftp://x")
    told = voxline(*command.split())
    assert (told.code, "ftp://x" in told.err) == (3, True), told.err


def test_a_rollback_twice_says_where_production_is(published, voxline):
    new, (old,) = published.version("ana"), set(published.registry.versions("ana")) - {published.version("ana")}
    assert f"production {new} -> {old}" in voxline("registry", "rollback", "ana").out
    again = voxline("registry", "rollback", "ana")
    assert again.code == 0
    assert f"production is on {old} already, rolled back from {new}" in again.out
    assert published.registry.resolve("ana").version == old
    assert "already" in voxline("registry", "rollback", "ana", "--to", old).out
    assert json.loads(voxline("registry", "rollback", "ana", "--json").out) == {"voice": "ana", "events": []}
    assert voxline("registry", "rollback", "ana", "--to", new).code == 0
    assert published.registry.resolve("ana").version == new


def test_numbers_are_shown_with_their_units(published, voxline, make_weights, tmp_path):
    release = published.registry.resolve("ana")
    numbers = {"copy_synthesis.pesq_wb": 3.5, "copy_synthesis.stoi": 0.9, "resynthesis.mcd_db": None}
    other = release.model_copy(update={"voice": "ben", "metrics": numbers})
    published.registry.publish("ben", other, {"adapter/x.safetensors": make_weights(tmp_path / "x")}, actor="x")
    lines = [line.split() for line in voxline("registry", "show", "ben").out.splitlines()]
    assert ["copy_synthesis.pesq_wb", "3.500", "MOS-LQO"] in lines
    assert ["copy_synthesis.stoi", "0.900"] in lines
    assert ["resynthesis.mcd_db", "not", "measured"] in lines
    assert ["signed", "no"] in lines


def test_verify_names_damage_and_exits_with_3(published, voxline):
    assert voxline("registry", "verify").code == 0
    release = published.registry.resolve("ana")
    next((published.registry.verified("ana", release.version)[1] / "adapter").rglob("*.safetensors")).write_bytes(b"x")
    answer = voxline("registry", "verify", "ana")
    assert (answer.code, "is not what was published" in answer.err) == (3, True)
    assert len(json.loads(voxline("registry", "verify", "--json").out)["damages"]) == 1


def test_gc_says_first_and_keeps_what_is_recent(published, voxline):
    assert json.loads(voxline("registry", "gc", "--dry-run", "--json").out) == {"dry_run": True, "collected": []}
    assert "0 releases" in voxline("registry", "gc").out
    assert len(published.registry.versions("ana")) == 2


def test_the_engine_s_user_is_the_actor(published, voxline, monkeypatch):
    monkeypatch.setenv("GITLAB_CI", "true")
    monkeypatch.setenv("GITLAB_USER_LOGIN", "cleo")
    monkeypatch.setenv("CI_PIPELINE_URL", "https://gitlab.example.org/p/7")
    voxline("registry", "rollback", "ana")
    event = published.registry.history("ana")[-1]
    assert (event.actor, event.pipeline) == ("cleo", "https://gitlab.example.org/p/7")


def test_history_is_legible_in_a_narrow_terminal(published, voxline, monkeypatch):
    published.registry.rollback("ana", None, Mover("Ana Perez", "0123456789abcdef", "", "a reason of some length"))
    monkeypatch.setenv("COLUMNS", "60")
    told = voxline("registry", "history", "ana").out
    assert all(len(line) <= 60 for line in told.splitlines()), told
    last = published.registry.history("ana")[-1]
    assert f"  {last.previous} -> {last.version}, commit 01234567" in told.splitlines()
    assert "  by Ana Perez: a reason of some length" in told.splitlines()


def test_moves_are_told_to_scripts(published, voxline):
    version = published.version("ana")
    retired = json.loads(voxline("registry", "retire", "ana", "--json").out)
    assert [(event["action"], event["previous"]) for event in retired["events"]] == [("retire", version)]
    assert json.loads(voxline("registry", "retire", "ana", "--json").out) == {"voice": "ana", "events": []}
    promoted = json.loads(voxline("registry", "promote", "ana", version, "--json").out)
    assert promoted["events"][0]["version"] == version


def test_versions_are_listed_whole_in_a_narrow_terminal(published, voxline, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert published.version("ana") in voxline("registry", "list").out


def test_a_move_that_a_killed_publisher_left_unfinished_is_a_remark_of_verify(published, voxline):
    last = published.registry.history("ana")[-1]
    (published.root / "registry" / "ana" / "events" / f"{last.id}.json").unlink()
    answer = voxline("registry", "verify", "ana")
    assert (answer.code, "damages: 0" in answer.out, last.id in answer.out) == (0, True, True), answer.out
    (remark,) = json.loads(voxline("registry", "verify", "ana", "--json").out)["remarks"]
    assert "the next move of production completes it" in remark
