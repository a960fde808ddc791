"""What we read from Git, with names and remotes as people have them."""

from __future__ import annotations

import os

import pytest

from pipeline.errors import UsageError
from pipeline.io.git import find_repository, lfs_object_id, short_repository_name


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://gitlab.example.org/group/project.git", "group/project"),
        ("git@gitlab.example.org:group/project.git", "group/project"),
        ("ssh://git@example.org:2222/group/project/", "group/project"),
        ("group/project", "group/project"),
        ("", ""),
    ],
)
def test_a_repository_has_one_name_however_it_is_cloned(url, name):
    assert short_repository_name(url) == name


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 3\n", "a" * 64),
        (
            b"version https://git-lfs.github.com/spec/v1\next-0-x sha256:"
            + b"b" * 64
            + b"\noid sha256:"
            + b"a" * 64
            + b"\nsize 3\n",
            "a" * 64,
        ),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"A" * 64 + b"\n", None),
        (b"oid sha256:" + b"a" * 64 + b"\n", None),
        (b"", None),
    ],
)
def test_a_pointer_is_recognised_by_its_form(content, found):
    assert lfs_object_id(content) == found


def test_awkward_file_names_are_read_as_they_are(line):
    folder = line.write_voice("ana")
    names = [
        "with space.wav",
        "日本語.wav",
        "quote'and;semi.wav",
        "-rf.wav",
        "line\nbreak.wav",
        os.fsdecode(b"caf\xe9.wav"),
    ]
    for name in names:
        (folder / "wavs" / name).write_bytes(b"x")
    commit = line.commit()
    repository = find_repository(line.root)
    assert set(names) <= {
        entry.path.removeprefix("voices/ana/wavs/") for entry in repository.files(commit, ["voices/ana"])
    }
    assert line.planned()["ana"].version == line.version("ana")


def test_contents_of_any_size_come_through_one_process(line):
    contents = {"empty": b"", "small": b"x\n" * 10, "large": os.urandom(3_000_000)}
    for name, content in contents.items():
        (line.root / name).write_bytes(content)
    commit = line.commit()
    with find_repository(line.root).blobs() as blobs:
        read = blobs.read_all([f"{commit}:{name}" for name in [*contents, "missing"]] * 60)
        assert read == [*contents.values(), None] * 60
        assert blobs.digest(f"{commit}:missing") is None


def test_outside_a_repository_there_is_none(tmp_path):
    assert find_repository(tmp_path) is None


def test_a_machine_without_git_is_told(line, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UsageError, match="git is not installed"):
        find_repository(line.root)


def test_a_folder_named_like_an_option_is_a_folder(line):
    (line.root / "--help" / "ana").mkdir(parents=True)
    (line.root / "--help" / "ana" / "voice.yaml").write_text("x")
    commit = line.commit()
    assert list(find_repository(line.root).folders(commit, "--help")) == ["ana"]
