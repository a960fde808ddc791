"""A merge request's tree through the commands: what it says counts for nothing but its voices."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    "arguments",
    [
        ("publish", "ana"),
        ("run", "ana"),
        ("validate", "ana", "--record"),
        ("evaluate", "ana", "--record"),
        ("registry", "promote", "ana"),
        ("registry", "rollback", "ana"),
        ("registry", "retire", "ana"),
        ("registry", "gc"),
        ("run", "--plan", "auto"),
    ],
)
def test_a_merge_request_writes_nothing_into_the_registry(line, voxline, monkeypatch, arguments):
    line.write_voice("ana")
    line.commit()
    line.publish("ana")
    before = sorted(path.read_bytes() for path in (line.root / "registry").rglob("*") if path.is_file())
    monkeypatch.setenv("CI_MERGE_REQUEST_ID", "17")
    told = voxline(*arguments)
    assert told.code == 2
    assert "not with a stranger's files" in told.err
    assert "protected branch" in told.err
    assert sorted(path.read_bytes() for path in (line.root / "registry").rglob("*") if path.is_file()) == before


def test_the_flag_does_the_same_and_is_forgotten_with_its_command_line(line, voxline):
    line.write_voice("ana")
    line.commit()
    assert voxline("publish", "ana", "--untrusted").code == 2
    assert "stranger" not in voxline("publish", "ana").err


@pytest.mark.parametrize(
    "command", ["plan", "validate", "run", "extract", "finetune", "evaluate", "publish", "settings"]
)
def test_the_flag_stands_after_every_command_that_reads_settings(voxline, command):
    assert "--untrusted" in voxline(command, "--help").out
