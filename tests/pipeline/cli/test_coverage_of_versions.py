"""plan, validate and run agree about what belongs to a voice, and about what they refuse to read."""

from __future__ import annotations

import pytest

from pipeline.cli.main import run_command


@pytest.fixture
def swapped(line):
    """A voice whose recordings lie in a hidden folder, published by an older voxline; then somebody swaps them."""
    folder = line.write_voice("ana")
    (folder / "wavs").rename(folder / ".w")
    (folder / "metadata.csv").write_text("file_name,text\n.w/1.wav,Hello there.\n")
    line.commit("hidden")
    line.publish("ana")
    (folder / ".w" / "1.wav").write_bytes(b"somebody else")
    line.commit("swapped")
    return line


@pytest.mark.parametrize("command", [["validate", "ana"], ["run", "ana"], ["publish", "ana"], ["extract", "ana"]])
def test_recordings_in_a_hidden_folder_are_refused_whatever_was_accepted_before(swapped, command, capsys):
    assert run_command(command) == 10
    told = capsys.readouterr().err
    assert "'.w/1.wav'" in told
    assert "version does not cover" in told


def test_a_recording_that_git_ignores_counts_on_disk_and_in_the_plan_of_the_disk(line):
    folder = line.write_voice("ana")
    line.commit()
    committed = line.version("ana")
    (folder / ".gitignore").write_text("*.flac\n")
    (folder / "wavs" / "2.flac").write_bytes(b"never committed")
    assert line.version("ana") != committed
    assert line.planned(is_worktree=True)["ana"].version == line.version("ana")
    assert line.planned()["ana"].version == committed
