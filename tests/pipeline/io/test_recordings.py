"""What a folder lists as recordings: nothing that its digest leaves out, and nothing that makes a reader wait."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.io.audio import AudioLimits
from pipeline.io.recordings import Folder, list_recordings, read_recording
from pipeline.records.clip_report import ClipResult


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of recordings that is not a voice yet. What is in them does not matter here."""
    (tmp_path / "wavs").mkdir()
    (tmp_path / "wavs" / "1.wav").write_bytes(b"take one")
    return tmp_path


def name(folder: Path, *rows: str) -> Folder:
    """A metadata.csv with a line for each of the files."""
    lines = "".join(f"{row},Hello number {index}.\n" for index, row in enumerate(rows))
    (folder / "metadata.csv").write_text(f"file_name,text\n{lines}")
    return list_recordings(folder, "en")


def recordings(found: Folder) -> dict[str, ClipResult]:
    return {clip.file_name: read_recording(found, clip, AudioLimits())[0] for clip in found.clips}


@pytest.mark.parametrize("hidden", [".w/2.wav", "wavs/2.wav~", "wavs/.2.wav", "wavs~/2.wav"])
def test_a_file_that_no_digest_covers_is_never_opened(folder: Path, monkeypatch: pytest.MonkeyPatch, hidden: str):
    (folder / hidden).parent.mkdir(exist_ok=True)
    (folder / hidden).write_bytes(b"take two")
    found = name(folder, "wavs/1.wav", hidden)
    monkeypatch.setattr("pipeline.io.recordings.read_audio", lambda path, limits: pytest.fail(f"{path} was opened"))
    clip = next(clip for clip in found.clips if clip.file_name == hidden)
    (finding,) = read_recording(found, clip, AudioLimits())[0].findings
    assert (finding.code, finding.severity) == ("bad_metadata", "reject")
    assert "version does not cover" in finding.detail


def test_files_of_an_editors_copy_of_a_folder_are_no_recordings(folder: Path):
    (folder / "wavs" / "old~").mkdir()
    (folder / "wavs" / "old~" / "1.wav").write_bytes(b"take zero")
    assert [clip.file_name for clip in list_recordings(folder, "en").clips] == ["wavs/1.wav"]


def test_a_spoken_consent_is_no_recording_however_its_path_is_written(folder: Path):
    (folder / "wavs" / "consent.wav").write_bytes(b"I agree")
    found = list_recordings(folder, "en", leave_out=frozenset(["wavs/./consent.wav"]))
    assert [clip.file_name for clip in found.clips] == ["wavs/1.wav"]


def test_recordings_come_in_the_order_of_their_names_files_before_folders(folder: Path):
    for path in ("wavs/b/1.wav", "wavs/a/2.wav", "wavs/a/1.wav", "wavs/c.wav"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(b"take")
    listed = [clip.file_name for clip in list_recordings(folder, "en").clips]
    assert listed == ["wavs/1.wav", "wavs/c.wav", "wavs/a/1.wav", "wavs/a/2.wav", "wavs/b/1.wav"]


@pytest.mark.parametrize(
    "path", ["a/" * 60_000 + "x.wav", "../" * 40_000 + "x.wav", "x" * 120_000], ids=["deep", "outside", "one name"]
)
def test_an_over_long_path_costs_its_row_and_is_quoted_in_part(folder: Path, path: str):
    found = name(folder, "wavs/1.wav", path)
    assert [clip.file_name for clip in found.clips] == ["wavs/1.wav"]
    (told,) = [finding.detail for finding in found.findings]
    assert "metadata.csv line 3" in told
    assert len(told) < 250


def test_a_pipe_among_the_recordings_is_a_finding_and_not_waited_for(folder: Path):
    os.mkfifo(folder / "wavs" / "2.wav")
    read = recordings(name(folder, "wavs/1.wav", "wavs/2.wav"))
    assert [finding.detail for finding in read["wavs/2.wav"].findings] == ["not a regular file"]


def test_a_pipe_in_the_place_of_metadata_is_as_good_as_none(folder: Path):
    os.mkfifo(folder / "metadata.csv")
    assert not list_recordings(folder, "en").has_transcripts
