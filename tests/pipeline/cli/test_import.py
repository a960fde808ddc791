"""voxline import and new: every layout, all or nothing, and nothing from outside the given folder."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.main import run_command
from pipeline.errors import ConsentError
from pipeline.io.voices import load_manifest, load_voice

CONSENT = ("--consent-speaker", "Linda Johnson", "--consent-date", "2017-07-05")


@pytest.fixture
def recordings(tmp_path) -> Path:
    """A folder with two recordings in wavs/."""
    folder = tmp_path / "recordings"
    (folder / "wavs").mkdir(parents=True)
    for name in ("1", "2"):
        (folder / "wavs" / f"{name}.wav").write_bytes(name.encode() * 100)
    return folder


def rows(root: Path, name: str) -> list[dict[str, str]]:
    with (root / "voices" / name / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def nothing_is_left(root: Path) -> bool:
    folder = root / "voices"
    return not folder.exists() or not list(folder.iterdir())


@pytest.mark.parametrize(
    ("file_name", "content", "texts"),
    [
        ("metadata.csv", "1|Number 1.|Number one.\n2|Two.|\n", ["Number one.", "Two."]),
        ("metadata.csv", "1|Number 1.\n2|Two.\n", ["Number 1.", "Two."]),
        ("metadata.csv", "\ufefffile|language|text\r\nwavs/1.wav|en|One.\r\nwavs/2.wav|ja|二。\r\n", ["One.", "二。"]),
        ("metadata.csv", 'file_name,text\nwavs/1.wav,"One, ""two""."\nwavs/2.wav,Two.\n', ['One, "two".', "Two."]),
        ("esd.list", "D:\\data\\slicer\\1.wav|ana|EN|One.\n/home/x/2.wav|ana|JP|二。\n", ["One.", "二。"]),
    ],
    ids=["ljspeech", "ljspeech without the third column", "file|language|text", "audiofolder", "gpt-sovits list"],
)
def test_every_layout_becomes_a_voice(line, voxline, recordings, file_name, content, texts):
    (recordings / file_name).write_text(content, encoding="utf-8", newline="")
    answer = voxline("import", str(recordings), "--name", "lj", "--language", "en", "--license", "CC0-1.0", *CONSENT)
    assert answer.code == 0, answer.err
    assert [row["text"] for row in rows(line.root, "lj")] == texts
    assert [row["file_name"] for row in rows(line.root, "lj")] == ["wavs/1.wav", "wavs/2.wav"]
    manifest = load_voice(line.root / "voices" / "lj").manifest
    assert (manifest.consent.speaker, manifest.license, manifest.language) == ("Linda Johnson", "CC0-1.0", "en")
    assert "voxline run lj" in answer.out


def test_a_plain_folder_takes_transcripts_beside_the_recordings(line, voxline, recordings):
    (recordings / "wavs" / "1.txt").write_text("One\n two.\n")
    (recordings / "wavs" / ".hidden.wav").write_bytes(b"x")
    (recordings / "wavs" / "link.wav").symlink_to("/etc/hostname")
    answer = voxline("import", str(recordings), "--name", "lj", "--language", "en", *CONSENT)
    assert answer.code == 0, answer.err
    assert [row["text"] for row in rows(line.root, "lj")] == ["One two.", ""]
    assert "1 without a transcript" in answer.out


def test_the_languages_of_the_rows_are_kept(line, voxline, recordings):
    (recordings / "x.list").write_text("1.wav|a|ZH|一。\n2.wav|a|ZH|二。\n")
    assert voxline("import", str(recordings), "--name", "lj", *CONSENT).code == 0
    assert [row["language"] for row in rows(line.root, "lj")] == ["zh", "zh"]
    assert load_manifest(line.root / "voices" / "lj").language == "zh"


def test_without_consent_the_folder_is_written_and_refused_later(line, voxline, recordings):
    answer = voxline("import", str(recordings), "--name", "lj", "--language", "en")
    assert answer.code == 0
    assert "exit 13" in answer.out
    with pytest.raises(ConsentError):
        load_voice(line.root / "voices" / "lj")
    answer = voxline("run", "lj")
    assert answer.code == 13
    assert "voice.yaml" in answer.err and "consent" in answer.err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--name", "../x"], 2, "'../x' is not a voice name"),
        (["--name", "Ana"], 2, "not a voice name"),
        (["--name", "lj", "--consent-speaker", "Ana"], 2, "--consent-date is missing"),
        (["--name", "lj", "--consent-date", "2026-01-01"], 2, "--consent-speaker is missing"),
        (["--name", "lj", "--consent-scope", "x"], 2, "missing"),
        (["--name", "lj", "--consent-speaker", "Ana", "--consent-date", "yesterday"], 2, "'yesterday' is not a date"),
        (["--name", "lj", "--consent-speaker", "A\x1b[2J", "--consent-date", "2026-01-01"], 13, "control character"),
        (["--name", "lj", "--license", "", *CONSENT], 2, "license"),
        (["--name", "lj", "--language", "de"], 2, "language 'de' is not one of zh"),
        (["--name", "lj", "--language", "de"], 2, "English (en)"),
        (["--name", "lj", "--encoding", "klingon"], 2, "klingon"),
    ],
)
def test_a_wrong_option_is_told_and_nothing_is_written(line, voxline, recordings, options, code, message):
    (recordings / "wavs" / "1.txt").write_text("One.")
    defaults = [] if "--language" in options else ["--language", "en"]
    answer = voxline("import", str(recordings), *options, *defaults)
    assert (answer.code, message in answer.err) == (code, True), answer.err
    assert "next:" in answer.err
    assert nothing_is_left(line.root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file|language|text\n../../secret.wav|en|One.\n", "line 2: '../../secret.wav' lies outside the folder"),
        ("file|language|text\n/etc/hostname|en|One.\n", "line 2: '/etc/hostname' lies outside the folder"),
        ("file|language|text\nwavs\\1.wav|en|One.\n", "is not inside the voice's folder"),
        ("file|language|text\nwavs/link.wav|en|One.\n", "symbolic link"),
        ("file|language|text\nlinked/1.wav|en|One.\n", "symbolic link"),
        ("file|language|text\nwavs/none.wav|en|One.\n", "'wavs/none.wav' is missing"),
        ("file|language|text\nwavs|en|One.\n", "not a regular file"),
        ("file|language|text\nwavs/1.wav|en|One.\nwavs/1.wav|en|Two.\n", "line 3: another text than line 2"),
        ("file|language|text\nwavs/1.wav|en\n", "line 2"),
        ("file|language|text\nwavs/1.wav|de|Eins.\n", "language 'de' is not one of"),
        ("file|language|text\n", "names no recordings"),
        ('file_name,text\nwavs/1.wav,"One\n', "line 2"),
        ("1|One.|One.|One.\n", "line 1"),
        ("../secret|One.\n", "no recording '../secret'"),
    ],
)
def test_a_list_that_cannot_be_trusted_is_refused_with_line_and_value(line, voxline, recordings, content, message):
    (recordings.parent / "secret.wav").write_bytes(b"secret")
    (recordings / "wavs" / "link.wav").symlink_to(recordings.parent / "secret.wav")
    (recordings / "linked").symlink_to(recordings / "wavs")
    (recordings / "metadata.csv").write_text(content)
    answer = voxline("import", str(recordings), "--name", "lj", "--language", "en", *CONSENT)
    assert (answer.code, message in answer.err) == (10, True), answer.err
    assert "metadata.csv" in answer.err
    assert nothing_is_left(line.root)


def test_all_bad_lines_are_told_at_once(line, voxline, recordings):
    (recordings / "metadata.csv").write_text(
        "file|language|text\n/etc/hostname|en|x\nwavs/1.wav|en|x\nwavs/9.wav|xx|x\n"
    )
    answer = voxline("import", str(recordings), "--name", "lj", "--language", "en")
    assert "line 2" in answer.err and "line 4" in answer.err and "line 3" not in answer.err


def test_a_foreign_encoding_is_mended_and_told_or_refused_with_its_line(line, voxline, recordings):
    (recordings / "metadata.csv").write_bytes("file|language|text\r\nwavs/1.wav|zh|你好。\r\n".encode("gb18030"))
    answer = voxline("import", str(recordings), "--name", "lj", "--language", "zh")
    assert (answer.code, "GB18030" in answer.out) == (0, True)
    assert rows(line.root, "lj")[0]["text"] == "你好。"
    shutil.rmtree(line.root / "voices" / "lj")
    (recordings / "metadata.csv").write_bytes(b"file|language|text\nwavs/1.wav|en|caf\xe9\n")
    refused = voxline("import", str(recordings), "--name", "lj", "--language", "en")
    assert (refused.code, "line 2: bytes that are not UTF-8" in refused.err) == (10, True)
    assert nothing_is_left(line.root)


@pytest.mark.parametrize("file_name", ["metadata.csv", "esd.list"])
def test_half_a_character_of_an_encoding_that_has_room_for_one_is_refused_with_its_line(
    line, voxline, recordings, file_name
):
    table = "wavs/1.wav|ana|en|One.\nwavs/2.wav|ana|en|+2AA-\n"
    if file_name == "metadata.csv":
        table = "file_name,text\nwavs/1.wav,+2AA-\n"
    (recordings / file_name).write_bytes(table.encode("ascii"))
    answer = voxline("import", str(recordings), "--name", "lj", "--language", "en", "--encoding", "utf-7")
    assert (answer.code, "line 2: half a character, U+D800" in answer.err) == (10, True), answer.err
    assert nothing_is_left(line.root)


def test_the_encoding_of_a_list_can_be_given(line, voxline, recordings):
    (recordings / "x.list").write_bytes("1.wav|a|zh|你好。\n".encode("gb18030"))
    refused = voxline("import", str(recordings), "--name", "lj")
    assert (refused.code, "line 1: byte 0xc4 is not utf-8" in refused.err) == (10, True), refused.err
    assert nothing_is_left(line.root)
    assert voxline("import", str(recordings), "--name", "lj", "--encoding", "gb18030").code == 0
    assert rows(line.root, "lj")[0]["text"] == "你好。"


def test_an_oversized_list_is_refused_unread(line, voxline, recordings):
    with (recordings / "metadata.csv").open("wb") as stream:
        stream.truncate(1 << 40)
    answer = voxline("import", str(recordings), "--name", "lj", "--language", "en")
    assert (answer.code, "at most 16777216 are read" in answer.err) == (10, True), answer.err


def test_nothing_to_import_is_usage(line, voxline, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    for source, message in (("none", "does not exist"), ("empty", "holds no recordings"), ("file.txt", "neither")):
        answer = voxline("import", str(tmp_path / source), "--name", "lj", "--language", "en")
        assert (answer.code, message in answer.err) == (2, True), answer.err


def test_awkward_file_names_are_made_plain(line, voxline, recordings):
    for name in ("-rf.wav", "with space.WAV", "quote'and;semi.wav", "日本語.wav", "x" * 240 + ".wav"):
        (recordings / "wavs" / name).write_bytes(name.encode())
    (recordings / "more").mkdir()
    (recordings / "more" / "1.wav").write_bytes(b"another one")
    assert voxline("import", str(recordings), "--name", "lj", "--language", "en", "--one-speaker").code == 0
    names = sorted(path.name for path in (line.root / "voices" / "lj" / "wavs").iterdir())
    assert names == sorted(
        [
            "1-2.wav",
            "1.wav",
            "2.wav",
            "quote_and_semi.wav",
            "rf.wav",
            "with_space.wav",
            "x" * 100 + ".wav",
            "日本語.wav",
        ]
    )


def test_an_existing_folder_is_never_touched(line, voxline, recordings):
    folder = line.write_voice("lj")
    before = sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for command in (["import", str(recordings), "--name", "lj", "--language", "en"], ["new", "lj"]):
        answer = voxline(*command)
        assert (answer.code, "exists already" in answer.err) == (2, True)
    assert sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file()) == before


def import_lj(source: Path) -> int:
    return run_command(["import", str(source), "--name", "lj", "--language", "en", *CONSENT])


@pytest.mark.slow
@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_an_import_that_is_stopped_leaves_all_or_nothing(line, recordings, strike, voxline, signal_number, code):
    voices = line.root / "voices"
    for at in range(1, 60):
        shutil.rmtree(voices, ignore_errors=True)
        answered, was_struck = strike(lambda: import_lj(recordings), signal_number, at, voices)
        if not was_struck:
            assert answered == 0
            break
        visible = [path.name for path in voices.iterdir() if not path.name.startswith(".")] if voices.exists() else []
        assert visible in ([], ["lj"])
        if visible:
            load_voice(voices / "lj")
            assert len(rows(line.root, "lj")) == 2
        else:
            assert answered == code
            if signal_number == signal.SIGINT:
                assert not list(voices.glob(".*/*")), f"interrupted at operation {at}"
            assert import_lj(recordings) == 0, "the next import clears what the dead one left"
            assert [path.name for path in voices.iterdir()] == ["lj"]
    else:
        pytest.fail("the import never came to its end")
    assert at > 5


def test_a_full_disk_leaves_nothing_and_asks_for_another_try(line, voxline, recordings):
    (recordings / "wavs" / "3.wav").write_bytes(b"x" * 400_000)
    script = f"import resource, sys\nfrom pipeline.cli.main import run_command\nresource.setrlimit(resource.RLIMIT_FSIZE, (200_000, {resource.RLIM_INFINITY}))\nsys.exit(run_command(sys.argv[1:]))"
    arguments = ["import", str(recordings), "--name", "lj", "--language", "en"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False, cwd=line.root
    )
    assert done.returncode == 75, done.stderr
    assert "free some space" in done.stderr and "Traceback" not in done.stderr
    assert nothing_is_left(line.root)


def test_a_new_voice_asks_for_what_is_missing(line, voxline):
    answer = voxline(
        "new", "ana", "--language", "ja", "--base", "nano", "--review", "--display-name", 'Dr. "Ana" Pérez', *CONSENT
    )
    assert answer.code == 0
    manifest = load_manifest(line.root / "voices" / "ana")
    assert (manifest.language, manifest.base, manifest.review, manifest.display_name) == (
        "ja",
        "nano",
        "required",
        'Dr. "Ana" Pérez',
    )
    assert voxline("new", "../ana").code == 2
    assert voxline("new", "ben").code == 0
    assert voxline("run", "ben").code == 13
    assert sorted(path.name for path in (line.root / "voices").iterdir()) == ["ana", "ben"]


def test_the_real_recordings_are_imported(line, voxline, shared):
    source = shared / "data" / "voices" / "en_lj"
    answer = voxline("import", str(source), "--name", "lj", "--language", "en", "--license", "CC0-1.0", *CONSENT)
    assert answer.code == 0, answer.err
    assert len(rows(line.root, "lj")) == 18
    refused = voxline(
        "import", str(shared / "data" / "negative" / "metadata_broken"), "--name", "broken", "--language", "en"
    )
    assert refused.code == 10
    assert [path.name for path in (line.root / "voices").iterdir()] == ["lj"]


@pytest.mark.parametrize("place", ["metadata.csv", "wavs/1.txt", "esd.list"])
def test_a_pipe_in_the_place_of_a_text_is_not_waited_for(line, voxline, recordings, place):
    os.mkfifo(recordings / place)
    answer = voxline("import", str(recordings), "--name", "lj", "--language", "en", *CONSENT)
    assert answer.code in (0, 10), answer.err  # a transcript that is no file is none; a table that is no file is told


def test_twelve_hundred_nested_folders_are_searched_all_the_same(line, voxline, recordings):
    deep = recordings
    for _ in range(1200):
        deep = deep / "d"
        os.mkdir(deep)
    try:
        assert voxline("import", str(recordings), "--name", "lj", "--language", "en", *CONSENT).code == 0
    finally:
        subprocess.run(["rm", "-rf", str(recordings / "d")], check=True)  # too deep for pytest's own cleaning


@pytest.fixture
def corpus(recordings) -> Path:
    """The wrong parent folder: a folder of people, each with recordings."""
    for speaker in ("p225", "p226"):
        (recordings / speaker).mkdir()
        (recordings / speaker / "a.wav").write_bytes(speaker.encode())
    shutil.rmtree(recordings / "wavs")
    return recordings


def test_a_folder_of_several_people_is_no_voice_and_is_told_by_its_subfolders(line, voxline, corpus):
    answer = voxline("import", str(corpus), "--name", "lj", "--language", "en")
    assert answer.code == 2
    assert "recordings of 2 subfolders: 'p225' (1), 'p226' (1)" in answer.err
    assert f"voxline import {corpus}/p225" in answer.err
    assert nothing_is_left(line.root)
    assert voxline("import", str(corpus / "p225"), "--name", "lj", "--language", "en").code == 0


def test_subfolders_of_one_person_are_imported_when_that_is_said(line, voxline, corpus):
    assert voxline("import", str(corpus), "--name", "lj", "--language", "en", "--one-speaker").code == 0
    assert len(rows(line.root, "lj")) == 2


def test_a_list_of_several_people_is_no_voice(line, voxline, recordings):
    (recordings / "esd.list").write_text("1.wav|ana|EN|One.\n2.wav|ben|EN|Two.\n")
    answer = voxline("import", str(recordings), "--name", "lj")
    assert answer.code == 2
    assert "2 speakers: 'ana' (1), 'ben' (1)" in answer.err
    assert voxline("import", str(recordings), "--name", "lj", "--one-speaker").code == 0


def test_a_latin_1_table_is_told_the_option_that_reads_it(line, voxline, recordings):
    text = "file_name,text\nwavs/1.wav,Caf\xe9 d\xe9j\xe0.\nwavs/2.wav,\xdcber.\n"
    (recordings / "metadata.csv").write_bytes(text.encode("latin-1"))
    answer = voxline("import", str(recordings), "--name", "lj", "--language", "en")
    assert (answer.code, "--encoding latin-1" in answer.err) == (10, True), answer.err
    arguments = ("import", str(recordings), "--name", "lj", "--language", "en", "--encoding", "latin-1")
    assert voxline(*arguments).code == 0
    assert [row["text"] for row in rows(line.root, "lj")] == ["Caf\xe9 d\xe9j\xe0.", "\xdcber."]


def test_scripts_are_told_what_was_written(line, voxline, recordings):
    (recordings / "wavs" / "1.txt").write_text("One.")
    told = json.loads(voxline("import", str(recordings), "--name", "lj", "--language", "en", "--json").out)
    assert (told["voice"], told["has_consent"]) == ("lj", False)
    assert told["recordings"] > told["without_transcript"]
    new = json.loads(voxline("new", "ben", "--json").out)
    assert new["folder"] == str(line.root / "voices" / "ben") and "consent" in new["next"]


@pytest.mark.parametrize("path", ["x" * 120_000, "a/" * 60_000 + "x"], ids=["one name", "deep"])
def test_an_over_long_name_in_a_list_is_quoted_in_part(line, voxline, recordings, path):
    (recordings / "esd.list").write_text(f"{path}.wav|ana|EN|One.\n")
    answer = voxline("import", str(recordings), "--name", "lj")
    assert answer.code == 10
    assert len(answer.err) < 1000


def test_recordings_without_texts_are_imported_with_lines_to_fill_in(line, voxline, recordings):
    answer = voxline("import", str(recordings), "--name", "lj", "--language", "en", *CONSENT)
    assert answer.code == 0
    assert "2 without a transcript: write what is said into metadata.csv" in answer.out
    assert [row["text"] for row in rows(line.root, "lj")] == ["", ""]
