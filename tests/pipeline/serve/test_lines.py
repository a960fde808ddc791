"""`voxline say --lines`: many lines, and again only what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from serve_running import prepared_root
from served_voices import publish_voice

from pipeline.errors import UsageError
from pipeline.io.registry.registry import open_registry
from pipeline.records.serving import SaidSentence, Word
from pipeline.records.spoken import SpokenPart
from pipeline.serve.batch_files import TIMINGS, Line, Manner, read_lines


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, write_tiny_base: Callable[[Path], Path], repository: Path) -> Path:
    made = prepared_root(tmp_path_factory.mktemp("lines"), write_tiny_base)
    for seed, name in enumerate(("ana", "ben")):
        publish_voice(open_registry("file:registry", root=made), made, repository, name, seed)
    return made


@pytest.fixture
def here(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for one test; commands run in the repository."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("VOXLINE_CACHE", str(root / "cache"))
    return tmp_path


@pytest.mark.slow
def test_lines_of_two_voices_are_spoken_once(here, voxline):
    table, out = here / "lines.csv", here / "out"
    table.write_text('name,voice,text\nhello,ana,"Hello, all."\nbye,ben,Good bye.\nagain,ana,Hello again.\n')
    told = voxline("say", "ana", "--lines", str(table), "--out", str(out), "--timings", "srt", "--timings", "json")
    assert told.code == 0, told.err
    assert "3 spoken" in told.out
    assert sorted(path.name for path in out.glob("*.wav")) == ["again.wav", "bye.wav", "hello.wav"]
    assert soundfile.info(out / "hello.wav").duration > 0.2
    assert (out / "hello.srt").read_text().startswith("1\n00:00:00,000 --> 00:00:0")
    words = [one["word"] for one in json.loads((out / "hello.json").read_text())["sentences"][0]["words"]]
    assert words == ["Hello,", "all."]
    before = {path: path.read_bytes() for path in out.glob("*.wav")}
    (out / "bye.wav").unlink()
    table.write_text(table.read_text().replace("Hello again.", "Hello once more."))
    told = voxline("say", "ana", "--lines", str(table), "--out", str(out), "--timings", "srt", "--timings", "json")
    assert "2 spoken" in told.out
    assert "1 there already" in told.out
    assert (out / "bye.wav").read_bytes() == before[out / "bye.wav"]
    assert (out / "again.wav").read_bytes() != before[out / "again.wav"]
    # alone, a line is what it is beside others
    assert voxline("say", "ben", "Good bye.", "-o", str(here / "alone.wav")).code == 0
    alone, _ = soundfile.read(here / "alone.wav")
    together, _ = soundfile.read(out / "bye.wav")
    assert abs(alone - together).max() < 1e-3 * abs(alone).max()


@pytest.mark.slow
def test_a_line_that_cannot_be_said_stops_no_other(here, voxline):
    text, out = here / "lines.txt", here / "out"
    text.write_text("Hello.\n\nПривет, как дела?\nGood bye.\n", encoding="utf-8")
    told = voxline("say", "ana", "--lines", str(text), "--out", str(out), "--format", "flac")
    assert told.code == 10
    assert "0002" in told.err
    assert sorted(path.name for path in out.glob("*.flac")) == ["0001.flac", "0003.flac"]


WRONG = {
    "nothing": ("lines.txt", "\n \n", "no line"),
    "no column of texts": ("lines.csv", "name\nx\n", "columns"),
    "a column that is not known": ("lines.csv", "text,pitch\nHello.,1\n", "columns"),
    "too few columns": ("lines.csv", "text,voice\nHello.\n", "not 2 columns"),
    "too many columns": ("lines.csv", "text\nHello, all.\n", "not 1 columns"),
    "a path for a name": ("lines.csv", "text,name\nHello.,../x\n", "name"),
    "two of a name": ("lines.csv", "text,name\nHello.,x\nBye.,x\n", "two lines are called x"),
    "a seed that is none": ("lines.tsv", "text\tseed\nHello.\tx\n", "no number"),
    "a speed beyond all": ("lines.tsv", "text\tspeed\nHello.\t9\n", "speed 9"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_told_with_its_line(tmp_path, name):
    file, content, told = WRONG[name]
    (tmp_path / file).write_text(content)
    with pytest.raises(UsageError, match=told):
        read_lines(tmp_path / file, Manner("ana"))


def test_a_table_may_say_how_each_line_is_said(tmp_path):
    (tmp_path / "lines.tsv").write_text("text\tvoice\tseed\tspeed\nHello.\tben\t4\t1.5\nBye.\t\t\t\n")
    assert read_lines(tmp_path / "lines.tsv", Manner("ana", seed=1)) == [
        Line("0001", "Hello.", "ben", 4, 1.5),
        Line("0002", "Bye.", "ana", 1, 1.0),
    ]


def test_subtitles_are_one_cue_for_a_sentence():
    said = [
        SaidSentence(index=0, text="A <b> & c --> d.\nE.", part=SpokenPart(start_s=0.0, duration_s=1.5, attempts=1)),
        SaidSentence(
            index=1,
            text="Next.",
            part=SpokenPart(start_s=3725.25, duration_s=0.5, attempts=1),
            words=(Word(word="Next.", start=3725.25, end=3725.75),),
        ),
    ]
    line = Line("x", "A. Next.", "ana")
    assert TIMINGS["srt"](line, said) == (
        "1\n00:00:00,000 --> 00:00:01,500\nA <b> & c -> d. E.\n\n2\n01:02:05,250 --> 01:02:05,750\nNext.\n"
    )
    assert TIMINGS["vtt"](line, said).startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nA &lt;b> &amp; c -> d. E.\n")
    assert json.loads(TIMINGS["json"](line, said))["sentences"][1]["words"] == [
        {"word": "Next.", "start": 3725.25, "end": 3725.75}
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--lines", "x.txt"),
        ("Hello.", "--out", "x"),
        ("Hello.", "--lines", "x.txt", "--out", "x"),
        ("--timings", "srt"),
    ],
)
def test_options_that_do_not_belong_together_are_usage(here, voxline, options):
    assert voxline("say", "ana", *options).code == 2
