"""What is kept of releases on other machines: by digest, compared, bounded."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import TransientError
from pipeline.io.registry import downloads as module
from pipeline.io.registry.downloads import Downloads
from pipeline.io.registry.trust import NotTrusted
from pipeline.records.release import ReleaseFile

SOUND = bytes(range(256)) * 100


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_S", 0.0)


@pytest.fixture
def kept(tmp_path):
    return Downloads(tmp_path / "cache")


def told(data: bytes) -> ReleaseFile:
    return ReleaseFile(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def parts_of(data: bytes, asked: list | None = None):
    def read(name, offset):
        if asked is not None:
            asked.append(offset)
        yield from (data[start : start + 1000] for start in range(offset, len(data), 1000))

    return read


def fetch(kept, data, read, *, name="a.ogg", anew=False):
    return kept.folder("here/ana", {name: told(data)}, lambda: None, read, anew=anew) / name


def test_a_file_is_fetched_once_whatever_it_is_called(kept):
    asked = []
    first = fetch(kept, SOUND, parts_of(SOUND, asked))
    second = fetch(kept, SOUND, parts_of(SOUND, asked), name="b/c.ogg")
    assert first.read_bytes() == second.read_bytes() == SOUND
    assert first.stat().st_ino == second.stat().st_ino
    assert asked == [0]


def test_a_download_goes_on_where_it_broke_off(kept):
    asked = []

    def breaks(name, offset):
        asked.append(offset)
        yield SOUND[offset : offset + 5000]
        if len(asked) < 3:
            raise TransientError("the line broke")
        yield SOUND[offset + 5000 :]

    assert fetch(kept, SOUND, breaks).read_bytes() == SOUND
    assert asked == [0, 5000, 10000]


def test_one_that_always_breaks_off_is_a_temporary_failure_and_the_next_run_goes_on(kept):
    def stops(name, offset):
        yield SOUND[offset : offset + 100]

    with pytest.raises(TransientError, match="bytes came"):
        fetch(kept, SOUND, stops)
    asked = []
    assert fetch(kept, SOUND, parts_of(SOUND, asked)).read_bytes() == SOUND
    assert asked == [400]


@pytest.mark.parametrize("lie", [b"\1" * len(SOUND), SOUND + b"more", SOUND[:-1] + b"\0"])
def test_other_bytes_are_not_believed_and_not_kept(kept, lie):
    with pytest.raises(NotTrusted, match="other bytes"):
        fetch(kept, SOUND, parts_of(lie))
    assert not [path for path in (kept.root / "files").glob("*/*") if path.suffix != ".lock"]
    assert fetch(kept, SOUND, parts_of(SOUND)).read_bytes() == SOUND


def test_an_endless_answer_is_not_written_to_the_disk(kept, tmp_path):
    def endless(name, offset):
        while True:
            yield bytes(1 << 16)

    with pytest.raises(NotTrusted):
        fetch(kept, SOUND, endless)
    assert sum(path.stat().st_size for path in kept.root.rglob("*") if path.is_file()) == 0


def test_anew_asks_for_every_byte_and_finds_a_lie(kept):
    fetch(kept, SOUND, parts_of(SOUND))
    with pytest.raises(NotTrusted):
        fetch(kept, SOUND, parts_of(b"\1" * len(SOUND)), anew=True)
    assert fetch(kept, SOUND, parts_of(b"")).read_bytes() == SOUND


def test_many_at_once_fetch_it_once(kept):
    asked = []
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: fetch(kept, SOUND, parts_of(SOUND, asked)), range(8)))
    assert asked == [0]
    assert all(path.read_bytes() == SOUND for path in found)


def test_what_was_not_used_for_longest_goes_first(kept):
    old, new = SOUND, SOUND[::-1]
    folders = [fetch(kept, data, parts_of(data), name=f"{at}.ogg").parent for at, data in enumerate((old, new))]
    for folder, hours in zip(folders, (9, 5), strict=True):
        then = time.time() - hours * 3600
        os.utime(folder.with_suffix(".used"), (then, then))
        for path in folder.iterdir():
            os.utime(path, (then, then))
    assert kept.collect(10**9) == (0, 2 * len(SOUND))
    assert kept.collect(len(SOUND)) == (len(SOUND), len(SOUND))
    assert [folder.exists() for folder in folders] == [False, True]
    assert fetch(kept, old, parts_of(old)).read_bytes() == old


def test_where_a_disk_has_no_hard_links_files_are_copied(kept, monkeypatch):
    def refused(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(module.os, "link", refused)
    assert fetch(kept, SOUND, parts_of(SOUND)).read_bytes() == SOUND
