from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pipeline.errors import NoAccessError, TransientError
from pipeline.io.files import explain, write_atomically, write_cache


def refused(code: int, path: str | None = "voices/ana/voice.yaml") -> OSError:
    return OSError(code, os.strerror(code), path)


def test_what_the_system_refuses_is_told_with_the_file_and_the_reason() -> None:
    told = explain(refused(errno.EACCES))
    assert isinstance(told, NoAccessError)
    assert told.message == "voices/ana/voice.yaml: permission denied"
    assert told.hint


def test_our_own_staging_files_are_told_by_their_folder() -> None:
    told = explain(refused(errno.EROFS, "/srv/voices/.ana.partial"))
    assert told is not None
    assert told.message == "/srv/voices: read-only file system"
    told = explain(refused(errno.EACCES, ".out.wav.1.tmp"))
    assert told is not None
    assert told.message == f"{Path.cwd()}: permission denied"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE])
def test_a_full_or_silent_disk_is_worth_another_try(code: int) -> None:
    assert isinstance(explain(refused(code)), TransientError)


@pytest.mark.parametrize("error", [refused(errno.ENOENT), refused(errno.EACCES, None), OSError("no number")])
def test_what_may_be_a_bug_is_not_explained_away(error: OSError) -> None:
    assert explain(error) is None


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    write_cache(tmp_path / "file" / "cache.json", b"{}")
    with pytest.raises(OSError, match="file"):
        write_atomically(tmp_path / "file" / "cache.json", b"{}")
