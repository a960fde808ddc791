"""plan, validate and run agree about what belongs to a voice, about what they refuse to read, and about consent."""

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


@pytest.mark.parametrize("command", ["validate", "run", "extract", "publish"])
@pytest.mark.parametrize("name", ["ana", "voices/ana"])
def test_a_folder_among_the_voices_without_a_manifest_is_refused_for_its_consent(line, command, name, capsys):
    (line.write_voice("ana") / "voice.yaml").unlink()
    assert run_command([command, name]) == 13
    told = capsys.readouterr().err
    assert "voice.yaml: is missing, and with it the speaker's consent" in " ".join(told.split())


def test_a_voice_without_consent_is_refused_by_validate_already(line, capsys):
    manifest = line.write_voice("ana") / "voice.yaml"
    manifest.write_text("language: en\nlicense: CC0-1.0\n")
    assert run_command(["validate", "ana"]) == 13
    assert "key 'consent' is missing" in capsys.readouterr().err


def test_the_language_of_a_voice_cannot_be_given_to_get_around_its_manifest(line, capsys):
    line.write_voice("ana")
    assert run_command(["validate", "ana", "--language", "en"]) == 2
    assert "stands in its voice.yaml" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "command", [["new", "ben"], ["import", "recordings", "--name", "ben", "--language", "en"]], ids=["new", "import"]
)
@pytest.mark.parametrize(
    ("dates", "told"),
    [
        (["--consent-date", "2999-01-01"], "lies in the future"),
        (["--consent-date", "2020-01-01", "--consent-expires", "2021-01-01"], "expired on 2021-01-01"),
    ],
)
def test_a_consent_that_is_not_in_force_writes_no_folder(line, command, dates, told, capsys):
    (line.root / "recordings").mkdir()
    (line.root / "recordings" / "1.wav").write_bytes(b"take one")
    assert run_command([*command, "--consent-speaker", "Ben", *dates]) == 13
    assert told in " ".join(capsys.readouterr().err.split())
    assert not (line.root / "voices" / "ben").exists()
