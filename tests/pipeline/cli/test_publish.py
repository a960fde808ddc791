"""Publishing moves a channel forward along the history of the repository, never back by accident."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def two_versions(line):
    """A voice with two published versions, one commit each; returns the commits and the versions."""
    line.write_voice("ana")
    first_commit = line.commit()
    first = line.publish("ana").version
    line.write_voice("ana", sound=b"take two")
    line.commit()
    second = line.publish("ana").version
    return first_commit, first, second


def published(line) -> str | None:
    return line.registry.pointer("ana", "production").version


def test_a_pipeline_that_finishes_late_does_not_move_production_back(line, voxline, two_versions):
    first_commit, _, second = two_versions
    line.git("checkout", "-q", first_commit)
    answer = voxline("publish", "ana", "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["status"] == "superseded"
    assert published(line) == second


def test_a_revert_brings_the_old_version_back(line, voxline, two_versions):
    _, first, _ = two_versions
    line.git("revert", "--no-edit", "HEAD")
    answer = voxline("publish", "ana", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["status"] == "republished"
    assert published(line) == first


def test_a_version_that_a_person_took_off_stays_off_and_it_is_said(line, voxline, two_versions):
    assert voxline("registry", "retire", "ana", "--reason", "consent withdrawn").code == 0
    (told,) = json.loads(voxline("run", "ana", "--json").out)
    assert (told["exit_code"], told["status"], told["channel"]) == (0, "unchanged", "")
    assert "consent withdrawn" in voxline("run", "ana").out


def test_a_version_on_production_does_not_become_a_candidate(line, voxline, two_versions):
    _, _, second = two_versions
    answer = voxline("publish", "ana", "--channel", "candidate")
    assert (answer.code, answer.out) == (0, f"ana {second}: unchanged on production; production serves {second}\n")


def test_what_the_gate_wants_heard_waits_until_a_person_promotes_it_and_after_a_revert_again(line, voxline):
    line.write_voice("ana")
    line.commit()
    first = line.publish("ana", review="required", reason="DistillMOS: 2.1 is below 3").version
    for command in ("publish", "run"):
        waiting = voxline(command, "ana", "--json")
        told = json.loads(waiting.out)
        told = told[0] if command == "run" else told
        assert (waiting.code, told["channel"], told["version"]) == (12, "candidate", first), waiting.err
    assert "DistillMOS: 2.1 is below 3" in voxline("publish", "ana").err
    assert line.registry.pointer("ana", "production") is None
    assert voxline("registry", "promote", "ana").code == 0
    assert (voxline("run", "ana").code, published(line)) == (0, first)

    line.write_voice("ana", sound=b"take two")
    line.commit()
    second = line.publish("ana").version
    line.write_voice("ana", sound=b"take three")
    line.commit()
    line.publish("ana", review="required")
    line.git("revert", "--no-edit", "HEAD", "HEAD~1")
    again = json.loads(voxline("publish", "ana", "--json").out)
    assert (again["status"], again["channel"], again["version"]) == ("republished", "candidate", first)
    assert (voxline("run", "ana").code, published(line)) == (12, second), "nobody promoted it anew"


def test_a_retired_voice_that_needs_review_does_not_wait_for_one(line, voxline, manifest_text):
    line.write_voice("ana", manifest=f"{manifest_text}review: required\n")
    line.commit()
    line.publish("ana", channel="candidate")
    assert voxline("publish", "ana").code == 12
    assert voxline("registry", "promote", "ana").code == 0
    assert voxline("registry", "retire", "ana").code == 0
    assert voxline("publish", "ana").code == 0
