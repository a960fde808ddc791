from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from pipeline.errors import NoAccessError, TransientError
from pipeline.io.files import explain, open_regular, read_regular, write_atomically, write_cache


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


@pytest.fixture
def silent_pipe(tmp_path: Path) -> Path:
    """A named pipe that nobody writes to: whoever opens it like a file waits for ever."""
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_a_named_pipe_is_refused_and_not_waited_for(silent_pipe: Path) -> None:
    with pytest.raises(NoAccessError, match="pipe: is a named pipe, not a file"):
        open_regular(silent_pipe)


def test_folders_sockets_and_devices_are_no_files(tmp_path: Path) -> None:
    place = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        for path, told in (
            (tmp_path, "is a folder"),
            (place, "is not a regular file"),
            (Path("/dev/zero"), "a device"),
        ):
            with pytest.raises(NoAccessError, match=told):
                read_regular(path, 10)


def test_what_is_larger_than_may_be_read_is_refused_with_both_sizes(tmp_path: Path) -> None:
    path = tmp_path / "voice.yaml"
    path.write_bytes(b"x" * 11)
    with pytest.raises(NoAccessError, match="11 bytes or more; at most 10 are read"):
        read_regular(path, 10)
    assert read_regular(path, 11) == b"x" * 11


def test_a_file_that_tells_no_size_is_bounded_all_the_same() -> None:
    with pytest.raises(NoAccessError, match="at most 5 are read"):
        read_regular(Path("/proc/self/status"), 5)


def test_a_link_is_followed_only_where_links_are_welcome(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    link = tmp_path / "link"
    link.symlink_to("file")
    assert read_regular(link, 100) == b"content"
    with pytest.raises(NoAccessError, match="link: is a symbolic link"):
        read_regular(link, 100, follow_links=False)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "absent", 100)
