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
