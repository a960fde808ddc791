"""A voice folder is a stranger's: everything in it is checked before it is used."""

from __future__ import annotations

import os
import subprocess
import time
from datetime import date
from pathlib import Path

import pytest

from pipeline.errors import ConsentError, SettingsError, VoiceRefused
from pipeline.io.voices import content_digest, find_uncounted, load_manifest, load_voice, resolve_inside
from pipeline.io.yaml import MAX_YAML_BYTES, parse_table

TODAY = date(2026, 3, 1)


@pytest.fixture
def folder(line) -> Path:
    return line.write_voice("ana")


def test_a_complete_folder_is_loaded(folder):
    voice = load_voice(folder, today=TODAY)
    assert (voice.name, voice.manifest.language, voice.manifest.consent.granted_on) == ("ana", "en", date(2026, 1, 9))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("language: en\nlicense: x\n", "key 'consent' is missing"),
        ("language: en\nlicense: x\nconsent:\n", "key 'consent' is missing"),
        ("language: en\nlicense: x\nconsent: {speaker: Ana}\n", "key 'consent.granted_on' is missing"),
        ("language: en\nlicense: x\nconsent: {speaker: '', granted_on: 2026-01-01}\n", "consent.speaker"),
        ("language: en\nlicense: x\nconsent: yes\n", "consent"),
        ("language: en\nlicense: x\nconsent: {speaker: Ana, granted_on: 0}\n", r"granted_on: write .* YYYY-MM-DD"),
        ("language: en\nlicense: x\nconsent: {speaker: Ana, granted_on: '0'}\n", r"granted_on: write .* YYYY-MM-DD"),
        ("language: en\nlicense: x\nconsent: {speaker: Ana, granted_on: 1767225600}\n", "granted_on"),
        ("language: en\nlicense: x\nconsent: {speaker: Ana, granted_on: true}\n", "granted_on"),
        ("language: en\nlicense: x\nconsent: {speaker: Ana, granted_on: 2026-01-01 10:00:00}\n", "granted_on"),
        ("language: en\nlicense: x\nconsent: {speaker: Ana, granted_on: 2026-01-01, expires_on: 0}\n", "expires_on"),
        ("language: en\nlicense: x\nconsent: {speaker: Ana, granted_on: 2027-01-01}\n", "lies in the future"),
        (
            "language: en\nlicense: x\nconsent: {speaker: A, granted_on: 2026-01-01, expires_on: 2026-03-01}\n",
            "expired on 2026-03-01",
        ),
    ],
)
def test_a_voice_without_valid_consent_is_refused_with_its_own_code(folder, broken, message):
    (folder / "voice.yaml").write_text(broken)
    with pytest.raises(ConsentError, match=message) as caught:
        load_voice(folder, today=TODAY)
    assert "voice.yaml" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ("colour: red\n", r"voice\.yaml: unknown key 'colour'"),
        ("review: maybe\n", "review"),
        ("base: ''\n", "base"),
        ("gate: 3\n", "gate"),
        ('display_name: "a\\eb"\n', "(?i)U\\+001B"),
        ('copyright_notice: "a\\u202eb"\n', "(?i)U\\+202E"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_file(folder, addition, message):
    path = folder / "voice.yaml"
    path.write_text(
        path.read_text().replace("display_name: Somebody\nlanguage", "language").replace("base: gpt-sovits-v2\n", "")
        + addition
    )
    with pytest.raises(SettingsError, match=message):
        load_manifest(folder)


def test_an_unknown_language_is_named(folder):
    path = folder / "voice.yaml"
    path.write_text(path.read_text().replace("language: en", "language: de"))
    with pytest.raises(SettingsError, match=r"language.*'de'"):
        load_manifest(folder)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 8)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LAUGHS.encode(), "alias"),
        (b"[" * 60_000, "nested"),
        (b"? " * 30_000, "nested"),
        (b"a: " + b"x" * MAX_YAML_BYTES, "the limit is"),
        (b"a: 1\na: 2\n", "line 2: key 'a' is given twice"),
        (b"a: {b: 1, b: 2}\n", "key 'b' is given twice"),
        (b"!!python/object/apply:os.system ['true']\n", "not valid YAML"),
        (b"a: \xff\n", "not UTF-8 at byte 3"),
        (b"a: 2026-13-45\n", "month"),
        (b"n: " + b"9" * 6000 + b"\n", "integer"),
        (b"- a\n", "holds no"),
        (b"", "holds no"),
        (b"1: 2\n", "key 1 is not a word"),
        (b"x: y\na: b: c\n", "voice.yaml, line 2: not valid YAML: mapping values are not allowed"),
    ],
)
def test_hostile_yaml_is_refused_quickly(content, message):
    started = time.monotonic()
    with pytest.raises(SettingsError, match=message):
        parse_table(content, "voices/ana/voice.yaml")
    assert time.monotonic() - started < 30, "bounded, even on a busy machine"


@pytest.mark.parametrize(
    "name",
    [
        "../x.wav",
        "/etc/hostname",
        "wavs/../../x.wav",
        "..",
        "wavs\\1.wav",
        "C:/x.wav",
        "C:\\x.wav",
        "~/x.wav",
        "",
        ".",
        "wavs",
        "a\0b",
        "wavs/1\n.wav",
        "x" * 5000,
    ],
)
def test_a_path_that_is_not_an_ordinary_file_of_the_folder_is_refused(folder, name):
    (folder.parent / "x.wav").write_bytes(b"outside")
    with pytest.raises(VoiceRefused):
        resolve_inside(folder, name, "metadata.csv, line 2")


def test_a_link_is_refused_wherever_it_leads(folder):
    (folder / "wavs" / "2.wav").symlink_to(folder / "wavs" / "1.wav")
    with pytest.raises(VoiceRefused, match="symbolic link"):
        resolve_inside(folder, "wavs/2.wav", "line 3")
    with pytest.raises(VoiceRefused, match=r"wavs/2\.wav: is a symbolic link"):
        load_voice(folder, today=TODAY)
    (folder / "wavs" / "2.wav").unlink()
    (folder / "more").symlink_to("/etc")
    with pytest.raises(VoiceRefused, match="symbolic link"):
        resolve_inside(folder, "more/hostname", "line 3")
    with pytest.raises(VoiceRefused, match="symbolic link"):
        load_voice(folder, today=TODAY)


def test_a_folder_or_manifest_that_is_a_link_is_refused(folder):
    (folder.parent / "ben").symlink_to(folder)
    with pytest.raises(VoiceRefused, match="symbolic link"):
        load_voice(folder.parent / "ben", today=TODAY)
    (folder / "voice.yaml").rename(folder / "real.yaml")
    (folder / "voice.yaml").symlink_to("real.yaml")
    with pytest.raises(SettingsError, match="symbolic link"):
        load_voice(folder, today=TODAY)


def test_an_empty_folder_names_the_missing_file(line):
    folder = line.root / "voices" / "empty"
    folder.mkdir(parents=True)
    with pytest.raises(ConsentError, match=r"voice\.yaml: is missing"):
        load_voice(folder)


def test_a_pointer_of_git_lfs_says_how_to_get_the_recording(folder):
    (folder / "wavs" / "1.wav").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 9\n"
    )
    with pytest.raises(VoiceRefused, match="LFS pointer") as caught:
        load_voice(folder, today=TODAY)
    assert caught.value.hint == "git lfs pull"


def test_the_digest_depends_on_names_and_contents_alone(folder, tmp_path):
    first = content_digest(folder)
    os.utime(folder / "voice.yaml", (0, 0))
    (folder / "voice.yaml").chmod(0o600)
    (folder / ".hidden").write_text("x")
    (folder / "metadata.csv~").write_text("x")
    assert content_digest(folder) == first
    (folder / "wavs" / "1.wav").rename(folder / "wavs" / "2.wav")
    assert content_digest(folder) != first


def test_the_cached_digest_follows_every_change(folder, tmp_path):
    cache = tmp_path / "cache.json"
    recording = folder / "wavs" / "1.wav"
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    first = content_digest(folder, cache=cache)
    assert content_digest(folder, cache=cache) == first
    recording.write_bytes(b"take 2!!")  # same size as before
    os.utime(recording, (1, 1))  # and the same time
    assert content_digest(folder, cache=cache) == content_digest(folder) != first
    cache.write_text("[]")
    assert content_digest(folder, cache=cache) == content_digest(folder)


def test_the_cache_spares_reading_files_that_settled(folder, tmp_path, monkeypatch):
    import pipeline.io.voices as module

    cache = tmp_path / "cache.json"
    monkeypatch.setattr(module, "_SETTLED_NS", -60_000_000_000)  # as if the files were older
    first = content_digest(folder, cache=cache)
    monkeypatch.setattr(module, "counted_digest", lambda path: pytest.fail(f"{path} was read again"))
    assert content_digest(folder, cache=cache) == first


@pytest.mark.parametrize(
    "name", [".w/1.wav", "wavs/.1.wav", "wavs/1.wav~", "old~/1.wav", "wavs/Thumbs.db", "./.w/1.wav"]
)
def test_a_recording_that_the_version_does_not_cover_is_refused_by_its_name(folder, name):
    hidden = folder / name
    hidden.parent.mkdir(exist_ok=True)
    hidden.write_bytes(b"take one")
    (folder / "metadata.csv").write_text(f"file_name,text\nwavs/1.wav,Hello there.\n{name},Hello again.\n")
    with pytest.raises(VoiceRefused, match=f"{name!r}.*version does not cover") as caught:
        load_voice(folder, today=TODAY)
    assert "wavs/001.wav" in caught.value.hint


def test_a_spoken_consent_that_the_version_does_not_cover_is_refused_by_its_name(folder):
    (folder / ".consent.flac").write_bytes(b"I agree")
    manifest = folder / "voice.yaml"
    manifest.write_text(manifest.read_text().replace("  granted_on", "  statement: .consent.flac\n  granted_on"))
    with pytest.raises(VoiceRefused, match=r"'\.consent\.flac'.*version does not cover"):
        load_voice(folder, today=TODAY)


def test_only_the_name_that_the_folder_lists_is_read(folder):
    """Missing files and names that no file can have are for others to tell; here only what could be read counts."""
    (folder / "desktop.ini").write_bytes(b"take one")
    assert find_uncounted(folder, ["desktop.ini", "wavs/1.wav", "./wavs/1.wav", "wavs/none.wav", "a\0b"]) == [
        "desktop.ini"
    ]


def test_what_nobody_reads_may_be_hidden(folder):
    (folder / ".gitattributes").write_text("*.wav filter=lfs\n")
    (folder / "wavs" / "._1.wav").write_bytes(b"left by a desktop")
    assert load_voice(folder, today=TODAY).name == "ana"


def test_the_digest_of_the_sample_stays_what_published_releases_say(repository):
    assert (
        content_digest(repository / "voices" / "sample")
        == "1899e0bb5b282ea2a44dd8b9ac42ca5898e4ff4a96417076cd6029fe4e1076a4"
    )


def test_twelve_hundred_nested_folders_are_no_end_of_the_stack(folder):
    deep = folder
    for _ in range(1200):
        deep = deep / "d"
        os.mkdir(deep)
    (deep / "notes.txt").write_text("x")
    try:
        before = content_digest(folder)
        (deep / "notes.txt").write_text("y")
        assert content_digest(folder) != before
        assert load_voice(folder, today=TODAY).name == "ana"
    finally:
        subprocess.run(["rm", "-rf", str(folder / "d")], check=True)  # too deep for pytest's own cleaning


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(folder):
    for name in ("metadata.csv", "voice.yaml"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    with pytest.raises(ConsentError, match=r"voice\.yaml"):
        load_voice(folder, today=TODAY)
