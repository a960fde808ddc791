"""Texts that a machine heard wait for a person, and nobody else takes them for texts."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pipeline.cli.main import run_command
from pipeline.io.metadata import UNREVIEWED, parse_metadata, read_metadata
from pipeline.io.recordings import list_recordings


@pytest.fixture
def folder(tmp_path: Path, repository: Path) -> Path:
    """Three recordings of the sample voice; the first has its text."""
    path = tmp_path / "in"
    (path / "wavs").mkdir(parents=True)
    for source in sorted((repository / "voices/sample/wavs").glob("*"))[:3]:
        (path / "wavs" / source.name).write_bytes(source.read_bytes())
    (path / "metadata.csv").write_text('file_name,text\nwavs/001.flac,"A text, by hand."\nwavs/002.flac,\n')
    return path


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metadata.csv").read_text(encoding="utf-8").splitlines()))


@pytest.mark.slow
def test_texts_that_were_heard_wait_for_a_person(folder, artifacts, monkeypatch, capsys):
    pytest.importorskip("ctranslate2")
    monkeypatch.setenv("VOXLINE_CACHE", str(artifacts("whisper-base").parent.parent))
    assert run_command(["transcribe", f"{folder}/", "--language", "en"]) == 0
    assert "2 lines to review" in capsys.readouterr().out
    first, second, third = rows_of(folder)
    assert (first["text"], first["reviewed"]) == ("A text, by hand.", "yes")
    assert second["text"].startswith("Please open your books")
    assert third["text"].startswith("Did you remember")
    assert second["reviewed"] == third["reviewed"] == "no"
    texts = {clip.file_name: clip.text for clip in list_recordings(folder, "en").clips}
    assert texts == {"wavs/001.flac": "A text, by hand.", "wavs/002.flac": None, "wavs/003.flac": None}
    reviewed = (
        (folder / "metadata.csv").read_text().replace("Did you remember", "Do you recall").replace(",no\n", ",yes\n", 1)
    )
    (folder / "metadata.csv").write_text(reviewed)
    assert run_command(["transcribe", f"{folder}/", "--language", "en"]) == 0, "nothing is left to hear"
    assert (folder / "metadata.csv").read_text() == reviewed, "what a person corrected stays"
    assert len(read_metadata(folder / "metadata.csv").rows) == 2


@pytest.mark.parametrize(("value", "counts"), [("no", False), ("No", False), ("", False), ("yes", True), ("ana", True)])
def test_only_a_reviewed_line_has_a_text(value, counts):
    found = parse_metadata(f"file_name,text,reviewed\n1.wav,Hello there,{value}\n".encode())
    assert len(found.rows) == counts
    assert len(found.unreviewed) == (not counts)
    assert [one.detail for one in found.problems] == ([] if counts else [UNREVIEWED])


def test_without_whisper_it_says_what_to_fetch(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VOXLINE_CACHE", str(tmp_path / "empty"))
    before = (folder / "metadata.csv").read_bytes()
    assert run_command(["transcribe", f"{folder}/", "--language", "en"]) == 3
    assert "voxline artifacts pull whisper-base" in capsys.readouterr().err
    assert (folder / "metadata.csv").read_bytes() == before


def test_other_languages_and_a_damaged_table_are_refused(folder, capsys):
    assert run_command(["transcribe", f"{folder}/", "--language", "yue"]) == 3
    assert "en, zh, ja, ko" in capsys.readouterr().err
    (folder / "metadata.csv").write_text("file_name,text\nwavs/001.flac,a,b,c\n")
    assert run_command(["transcribe", f"{folder}/", "--language", "en"]) == 3
    assert "metadata.csv:2: 4 fields" in capsys.readouterr().err
