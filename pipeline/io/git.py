"""Reading a Git repository with a handful of processes, however many voices it holds.

Blob contents come from one ``git cat-file --batch``,
the trees of all voices from one ``git ls-tree``. Nothing here writes.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shutil import which
from typing import IO

from pipeline.errors import UsageError
from pipeline.io.processes import child_environment

SYMLINK_MODE = "120000"
SUBMODULE_MODE = "160000"
MAX_POINTER_BYTES = 1024  # the LFS specification: a pointer file is smaller than this
_POINTER = re.compile(rb"\Aversion https?://[^\n]*\n(?:[a-z0-9.-]+ [^\n]*\n)*?oid sha256:([0-9a-f]{64})\n")
_CHUNK_BYTES = 1 << 20
_PATIENCE_S = 600.0
_SHOWN_LETTERS = 60
_SETTINGS = (
    "core.fsmonitor=false",
    f"core.hooksPath={os.devnull}",
    "core.quotePath=true",
    "core.pager=cat",
    "core.askPass=",
    "core.sshCommand=false",
    "core.alternateRefsCommand=",
    "credential.helper=",
    "diff.external=",
    "log.showSignature=false",
    "safe.bareRepository=explicit",  # a folder of the tree that looks like a bare repository is none
    "status.submoduleSummary=false",
)
_GIT_BOOLEANS = frozenset({"", "true", "false", "yes", "no", "on", "off", "1", "0"})
# What `git lfs install` writes, now, in earlier versions and with --skip-smudge; another filter is somebody's own.
_LFS_FILTER = re.compile(r"git[ -]lfs (clean|smudge|filter-process)( --skip)?( --)?( %f)?")
_LFS_COMMANDS = {
    "filter.lfs.clean": "git-lfs clean -- %f",
    "filter.lfs.smudge": "git-lfs smudge -- %f",
    "filter.lfs.process": "git-lfs filter-process",
}
_OBEYED_WHEN_READING = re.compile(
    r"core\.(worktree|alternaterefscommand|gitproxy)|filter\..*\.(clean|smudge|process)|lfs\.extension\..*"
    r"|diff\.external|diff\..*\.(textconv|command)|gpg\.(.*\.)?program|remote\..*\.(uploadpack|receivepack|vcs)",
    re.DOTALL,
)
CONVERTING = ("text", "eol", "working-tree-encoding", "ident", "filter")  # attributes by which bytes differ
_ASKED_AT_ONCE = 100  # requests have to fit into a pipe, or both sides wait for ever


def lfs_object_id(content: bytes) -> str | None:
    """sha256 of the file that a Git LFS pointer stands for, or None when the content is no pointer."""
    found = _POINTER.match(content) if len(content) < MAX_POINTER_BYTES else None
    return found.group(1).decode() if found else None


@dataclass(frozen=True)
class TreeEntry:
    """One line of ``git ls-tree``: a path with its mode and object id."""

    path: str
    mode: str
    kind: str
    object_id: str


@dataclass(frozen=True)
class Repository:
    """A Git work tree.

    Attributes:
        root: top folder of the work tree.
    """

    root: Path

    def commit(self, revision: str) -> str | None:
        """Full id of a commit, or None: all zeros (first push), unknown, or not in this shallow clone."""
        if not revision or not revision.strip("0"):
            return None
        found = self._run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}", check=False)
        return found.decode().strip() or None

    def is_shallow(self) -> bool:
        return self._run("rev-parse", "--is-shallow-repository").strip() == b"true"

    def folders(self, commit: str, prefix: str) -> dict[str, str]:
        """Names and tree ids of the folders directly inside ``prefix``; empty when the commit has no such folder."""
        place = [] if prefix == "." else ["--", f"{prefix}/"]
        listing = self._run("ls-tree", "-z", "--full-tree", commit, *place)
        entries = _parse_tree(listing)
        return {entry.path.rpartition("/")[2]: entry.object_id for entry in entries if entry.kind == "tree"}

    def files(self, commit: str, prefixes: Iterable[str]) -> list[TreeEntry]:
        """All files below the prefixes, with their paths from the top of the repository."""
        wanted = sorted(prefixes)
        if not wanted:
            return []
        return _parse_tree(
            self._run("ls-tree", "-r", "-z", "--full-tree", commit, "--", *(f"{name}/" for name in wanted))
        )

    def changed_paths(self, prefix: str) -> list[str]:
        """Paths below ``prefix`` that differ from HEAD on disk or in the index, with untracked and ignored files."""
        listing = self._run(
            "status",
            "--porcelain=v1",
            "-z",
            "--untracked-files=all",
            "--ignored=matching",
            "--no-renames",
            "--ignore-submodules=dirty",  # else a `git status` runs inside each, by that one's configuration
            "--",
            prefix,
        )
        return [os.fsdecode(line[3:]) for line in listing.split(b"\0") if line]

    def tracked(self, path: Path) -> list[str]:
        """Files at or below a path of the work tree that the index holds; none where it lies elsewhere."""
        place = path.parent.resolve() / path.name
        if not place.is_relative_to(self.root.resolve()):
            return []
        inside = place.relative_to(self.root.resolve()).as_posix()
        return [os.fsdecode(name) for name in self._run("ls-files", "-z", "--", inside).split(b"\0") if name]

    def attributes(self, path: str) -> dict[str, str]:
        """What .gitattributes says of how a file is written to disk."""
        told = self._run("check-attr", "-z", *CONVERTING, "--", path).split(b"\0")
        values = zip(told[1::3], told[2::3], strict=False)
        return {name.decode(): value.decode(errors="replace") for name, value in values if value != b"unspecified"}

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether ``newer`` was built on ``older``; False where either commit is unknown here."""
        base = self._run("merge-base", "--end-of-options", older, newer, check=False).decode().strip()
        return bool(base) and base == self.commit(older)

    def author(self, commit: str) -> str:
        """Name of the person who wrote the commit."""
        return self._run("log", "-1", "--format=%an", commit).decode(errors="replace").strip()

    def config(self, key: str) -> str:
        """A value of the configuration, or an empty string."""
        return self._run("config", "--get", key, check=False).decode(errors="replace").strip()

    @contextmanager
    def blobs(self) -> Iterator[BlobReader]:
        """Read any number of objects through one process."""
        process = subprocess.Popen(
            [*_command(), "cat-file", "--batch"],
            cwd=self.root,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            yield BlobReader(process.stdin, process.stdout)
        finally:
            process.stdin.close()
            process.stdout.close()
            process.wait()

    def _run(self, *arguments: str, check: bool = True) -> bytes:
        return _git(self.root, *arguments, check=check)


@dataclass(frozen=True)
class BlobReader:
    """The two ends of a running ``git cat-file --batch``."""

    requests: IO[bytes]
    answers: IO[bytes]

    def read(self, name: str) -> bytes | None:
        """Content of an object, by id or as ``commit:path``; None when there is none."""
        return self.read_all([name])[0]

    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        """Contents of small objects. Asks for many at a time, so that the two processes do not wait for each other."""
        contents = []
        for start in range(0, len(names), _ASKED_AT_ONCE):
            asked = names[start : start + _ASKED_AT_ONCE]
            self._ask(asked)
            for _ in asked:
                size = self._answered_size()
                contents.append(None if size is None else self._take(size))
        return contents

    def digest(self, name: str) -> str | None:
        """sha256 of an object's content in constant memory, an LFS pointer resolved to what it stands for."""
        self._ask([name])
        size = self._answered_size()
        if size is None:
            return None
        if size < MAX_POINTER_BYTES:
            content = self._take(size)
            return lfs_object_id(content) or hashlib.sha256(content).hexdigest()
        hasher = hashlib.sha256()
        left = size
        while left:
            chunk = self.answers.read(min(_CHUNK_BYTES, left))
            hasher.update(chunk)
            left -= len(chunk)
        self.answers.read(1)
        return hasher.hexdigest()

    def _ask(self, names: Sequence[str]) -> None:
        assert not any("\n" in name for name in names)
        self.requests.write(b"".join(os.fsencode(name) + b"\n" for name in names))
        self.requests.flush()

    def _answered_size(self) -> int | None:
        header = self.answers.readline().split()
        if len(header) != 3 or not header[2].isdigit():
            return None
        return int(header[2])

    def _take(self, size: int) -> bytes:
        content = self.answers.read(size)
        self.answers.read(1)  # the newline after every object
        return content


def find_repository(folder: Path) -> Repository | None:
    """The repository whose work tree holds ``folder``, or None.

    Raises:
        UsageError: it is not a clone that a user of this machine made, or git is not installed.
    """
    _refuse_foreign(folder)
    found = _git(folder, "rev-parse", "--show-toplevel", check=False)
    return Repository(Path(os.fsdecode(found.rstrip(b"\n")))) if found else None


def _refuse_foreign(folder: Path) -> None:
    """A clone of ours belongs to this user, which git itself checks, and its configuration starts no programs.

    An unpacked archive brings a .git/config that its sender wrote, and git obeys it. What only fetching, committing and
    editors obey may stand there, people and CI engines put it there, and nothing of ours does these.
    """
    listed = _git(folder, "config", "--list", "--show-scope", "--includes", "-z", check=False).split(b"\0")
    for scope, told in zip(listed[::2], listed[1::2], strict=False):
        key, _, value = told.decode(errors="replace").partition("\n")
        if scope in (b"local", b"worktree") and _starts_a_program(key, value):
            raise UsageError(
                f"{folder}: not read as a repository: its .git/config sets {_quoted(key)} to {_quoted(value)}",
                hint=f"clone the repository anew, or if you trust it: git config --unset {_quoted(key)}",
            )


def _starts_a_program(key: str, value: str) -> bool:
    """Whether reading a work tree with this in the configuration runs something, or reads another folder."""
    if key == "core.fsmonitor":
        return value.lower() not in _GIT_BOOLEANS
    if key in _LFS_COMMANDS and _LFS_FILTER.fullmatch(value):
        return False
    return _OBEYED_WHEN_READING.fullmatch(key) is not None


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_LETTERS else text[:_SHOWN_LETTERS] + "...")


def short_repository_name(url: str) -> str:
    """``group/name`` of a remote's address; the same for https, ssh and CI variables. Empty for an empty address."""
    path = url.strip().removesuffix("/").removesuffix(".git")
    parts = [part for part in re.split(r"[/:\\]", path) if part]
    return "/".join(parts[-2:])


def _parse_tree(listing: bytes) -> list[TreeEntry]:
    entries = []
    for line in listing.split(b"\0"):
        if line:
            told, _, path = line.partition(b"\t")
            mode, kind, object_id = told.decode().split()
            entries.append(TreeEntry(os.fsdecode(path), mode, kind, object_id))
    return entries


def _environment() -> dict[str, str]:
    return {
        **child_environment(os.environ, also=("GIT_CONFIG_GLOBAL",)),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",  # the same answer on every machine
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "none",  # reading never reaches for a network, nor for a helper that a remote names
        "GIT_NO_LAZY_FETCH": "1",
    }


def _command() -> list[str]:
    """git with every setting that starts programs, or changes what is printed, set by us: the command line wins."""
    settings = [*_SETTINGS, *(f"safe.directory={folder}" for folder in _safe_directories())]
    if which("git-lfs"):  # where it is set up for the whole system, which is not read, recordings would look changed
        settings += [f"{key}={command}" for key, command in _LFS_COMMANDS.items()]
    return ["git", *(part for setting in settings for part in ("-c", setting))]


@cache
def _safe_directories() -> tuple[str, ...]:
    """Folders of other users that this machine's administrator trusts, as our images do; git asks for no other part."""
    environment = {**_environment(), "GIT_CONFIG_NOSYSTEM": "0"}
    with suppress(OSError):
        done = subprocess.run(
            ["git", "config", "--system", "--get-all", "-z", "safe.directory"],
            cwd="/",
            env=environment,
            capture_output=True,
            check=False,
        )
        return tuple(folder for folder in os.fsdecode(done.stdout).split("\0") if folder)
    return ()


def _git(folder: Path, *arguments: str, check: bool = True) -> bytes:
    try:
        done = subprocess.run(
            [*_command(), *arguments],
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_PATIENCE_S,
        )
    except FileNotFoundError:
        raise UsageError("git is not installed", hint="install git and run again") from None
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"{folder}: git {arguments[0]} did not answer within {_PATIENCE_S:.0f} s", hint="run git status there"
        ) from None
    if done.returncode == 0:
        return done.stdout
    message = done.stderr.decode(errors="replace").strip()
    if "dubious ownership" in message:
        raise UsageError(
            f"{folder}: git does not trust this folder, another user owns it",
            hint=f"git config --global --add safe.directory {folder}",
        )
    if check:
        first_line = message.splitlines()[0] if message else f"exit {done.returncode}"
        raise UsageError(
            f"{folder}: git {arguments[0]}: {first_line}", hint="run this inside a Git repository with a commit"
        )
    return b""
