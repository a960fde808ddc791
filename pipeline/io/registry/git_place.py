"""``git:``: a registry on refs of its own in any Git repository, over whatever transport and rights that one has.

```
refs/voxline/<voice>/head                  a commit for each change; its tree holds head.json
refs/voxline/<voice>/releases/<version>    a commit without a parent; its tree is the release's folder
```
A change is one atomic push, which the server refuses when the head is not what it was (``--force-with-lease``). Files go
as ordinary blobs. Everything is done in a bare repository of the user's cache, which nobody else configures.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pipeline.errors import NoAccessError, PipelineError, SettingsError, TransientError, UsageError
from pipeline.io.processes import child_environment
from pipeline.io.registry.backend import Staged
from pipeline.io.registry.place_names import is_loopback, is_root, outer_name, root_of
from pipeline.io.registry.remote import Busy
from pipeline.io.registry.trust import NotTrusted

HEAD_FILE = "head.json"
TOKENS = ("VOXLINE_REGISTRY_TOKEN", "CI_JOB_TOKEN")
BASE = "refs/voxline"
PATIENCE_S = 1800.0  # for all files of a release over a slow line
CHUNK_BYTES = 1 << 20
SETTINGS = (
    f"core.hooksPath={os.devnull}",
    "core.fsmonitor=false",
    "core.askPass=",
    "gc.auto=0",
    "maintenance.auto=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    "push.gpgSign=false",
    "push.recurseSubmodules=no",
    "transfer.fsckObjects=true",
)
PASSED = (
    "GIT_CONFIG_GLOBAL",
    "GIT_SSH_COMMAND",
    "GIT_SSL_CAINFO",
    "GIT_SSL_NO_VERIFY",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "XDG_CONFIG_HOME",
    *(form for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for form in (name, name.upper())),
)
# What git says, in the order in which it is looked for: the first that fits decides.
TOO_LATE = re.compile(r"stale info|fetch first|failed to update ref|cannot lock ref|reference already exists|non-fast")
BUSY = re.compile(
    r"could not resolve host|couldn't connect|failed to connect|connection (refused|reset|timed out|closed)|timed? ?out"
    r"|early eof|rpc failed|unexpected disconnect|hung up unexpectedly|returned error: (5\d\d|429|408)|empty reply"
    r"|transfer closed|bytes of body|invalid index-pack|unpack failed|http/2 stream|operation too slow|bad pack header"
)
NO_RIGHTS = re.compile(
    r"authentication failed|could not read (username|password)|returned error: 40[13]|permission denied|access denied"
    r"|not allowed|denied to|unauthori[sz]ed|forbidden|host key verification|terminal prompts disabled|publickey"
)
NOT_THERE = re.compile(r"not found|does not appear to be a git repository|does not exist|no such file|not a git repo")


class GitPlace:
    """A Git repository somewhere."""

    def __init__(self, remote: str, base: str, cache: Path, environment: Mapping[str, str]) -> None:
        """Args: remote: as git takes it; base: below which the refs lie; environment: where tokens may be."""
        self.remote = remote
        self.base = base
        self.url = f"git:{without_secrets(remote)}" + ("" if base == BASE else f"#{base}")
        self.identity = self.url
        self.cache = cache / hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self._environment = _environment(remote, environment)
        self._prepared: dict[str, str] = {}
        self._secrets = [secret for name in TOKENS if (secret := environment.get(name))]

    # What a place does

    def load(self, root: str) -> tuple[bytes, str] | None:
        prepared = self._prepared.pop(root, None)
        if prepared is not None:
            return self._read_head(prepared)
        with self._one_at_a_time(root):
            commit = self._fetch([self._head(root)])
            return None if commit is None else self._read_head(commit[0])

    def save(self, root: str, head: bytes, tag: str | None, staged: Staged | None, removed: str | None) -> str | None:
        commit = self._head_commit(root, head, tag)
        told = [f"{commit}:{self._head(root)}"]
        leases = [f"--force-with-lease={self._head(root)}:{tag or ''}"]
        if staged is not None:
            version = staged.prefix.rpartition("/")[2]
            told.append(f"+{staged.place}:{self._release(root, version)}")
        if removed is not None:
            told.append(f":{self._release(root, removed)}")
        try:
            self._git("push", "--atomic", "--quiet", *leases, self.remote, *told, network=True)
        except _TooLate:
            return None
        return commit

    def check(self) -> None:
        self.tags()

    def tags(self) -> dict[str, str]:
        listed = self._git("ls-remote", "--refs", self.remote, f"{self.base}/*/head", network=True).decode().split("\n")
        found = {}
        for line in listed:
            commit, _, ref = line.partition("\t")
            name = ref.removeprefix(f"{self.base}/").removesuffix("/head")
            if ref.startswith(f"{self.base}/") and is_root(root_of(name)):
                found[root_of(name)] = commit
        return found

    def prepare(self, roots: list[str]) -> None:
        for start in range(0, len(roots), 500):  # each is a word of the command
            chosen = roots[start : start + 500]
            commits = self._fetch([self._head(root) for root in chosen])
            self._prepared.update(zip(chosen, commits or [], strict=False))

    def upload(self, root: str, version: str, files: Mapping[str, tuple[Path, str]]) -> str:
        with tempfile.TemporaryDirectory() as folder:
            index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            listed = b"".join(
                f"100644 {self._hashed(*source)}\t{name}\0".encode() for name, source in sorted(files.items())
            )
            self._git("update-index", "--add", "-z", "--index-info", told=listed, also=index)
            tree = self._git("write-tree", also=index).decode().strip()
        return self._git("commit-tree", tree, "-m", f"{root} {version}").decode().strip()

    def prepare_download(self, root: str, version: str, place: str) -> None:
        with self._one_at_a_time(root):
            found = self._fetch([self._release(root, version)])
        if found is None or found[0] != place:
            raise NotTrusted(
                f"{self.url}: {self._release(root, version)} is {found[0][:12] if found else 'gone'},"
                f" and the head names {place[:12]}",
                hint=f"voxline registry verify {root}",
            )

    def download(self, root: str, version: str, place: str, name: str, offset: int) -> Iterator[bytes]:
        process = subprocess.Popen(
            [*self._command(), "cat-file", "blob", f"{place}:{name}"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        with process, process.stdout as stream:
            stream.read(offset)
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
        if process.returncode:
            raise NotTrusted(f"{self.url}: {root} {version} has no {name}", hint=f"voxline registry verify {root}")

    def remove(self, root: str, version: str, place: str) -> None:
        """Nothing is left: the push that changed the head removed the release's ref, and the server collects."""

    def sweep(self, root: str, known: set[str]) -> None:
        """Nothing is left there either: a push brings objects and refs at once."""

    # Objects and refs

    def _head(self, root: str) -> str:
        return f"{self.base}/{outer_name(root)}/head"

    def _release(self, root: str, version: str) -> str:
        return f"{self.base}/{outer_name(root)}/releases/{version}"

    def _head_commit(self, root: str, head: bytes, parent: str | None) -> str:
        blob = self._git("hash-object", "-w", "--stdin", told=head).decode().strip()
        tree = self._git("mktree", told=f"100644 blob {blob}\t{HEAD_FILE}\n".encode()).decode().strip()
        parents = ["-p", parent] if parent else []
        return self._git("commit-tree", tree, *parents, "-m", f"voxline: {root}").decode().strip()

    def _hashed(self, path: Path, digest: str) -> str:
        """The object of a file, which must still be the one that was announced."""
        hasher = hashlib.sha256()
        with path.open("rb") as stream, tempfile.TemporaryFile() as copy:
            while chunk := stream.read(CHUNK_BYTES):
                hasher.update(chunk)
                copy.write(chunk)
            if hasher.hexdigest() != digest:
                raise TransientError(f"{path}: changed while it was published", hint="run publish again")
            copy.seek(0)
            return self._git("hash-object", "-w", "--stdin", stdin=copy).decode().strip()

    def _fetch(self, refs: Sequence[str]) -> list[str] | None:
        """Bring refs here under the same names; their commits, or None where one is not there."""
        wanted = [f"+{ref}:{ref}" for ref in refs]
        try:
            self._git("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", self.remote, *wanted, network=True)
        except _NoSuchRef:
            return None
        return self._git("rev-parse", *refs).decode().split()

    def _read_head(self, commit: str) -> tuple[bytes, str]:
        return self._git("cat-file", "blob", f"{commit}:{HEAD_FILE}"), commit

    @contextmanager
    def _one_at_a_time(self, root: str) -> Iterator[None]:
        """Of this machine's processes, one fetches a voice's refs at a time."""
        self._make()
        with (self.cache / f"voxline-{outer_name(root)}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # Running git

    def _make(self) -> None:
        """The repository in the cache; nobody sees it before it is whole."""
        if self.cache.exists():
            return
        self.cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache.parent) as folder:
            made = Path(folder) / "made"
            self._run(["git", "init", "--quiet", "--bare", "--template=", str(made)])
            with suppress(OSError):  # another process was faster
                made.rename(self.cache)

    def _command(self) -> list[str]:
        return ["git", f"--git-dir={self.cache}", *(word for setting in SETTINGS for word in ("-c", setting))]

    def _git(
        self,
        *arguments: str,
        told: bytes | None = None,
        stdin: Any = None,
        also: Mapping[str, str] | None = None,
        network: bool = False,
    ) -> bytes:
        self._make()
        return self._run([*self._command(), *arguments], told=told, stdin=stdin, also=also, network=network)

    def _run(
        self,
        command: list[str],
        *,
        told: bytes | None = None,
        stdin: Any = None,
        also: Mapping[str, str] | None = None,
        network: bool = False,
    ) -> bytes:
        given: dict[str, Any] = {"input": told} if told is not None else {"stdin": stdin or subprocess.DEVNULL}
        environment = {**self._environment, **(also or {})}
        try:
            done: subprocess.CompletedProcess[bytes] = subprocess.run(
                command, env=environment, capture_output=True, check=False, timeout=PATIENCE_S, **given
            )
        except FileNotFoundError:
            raise UsageError("git is not installed", hint="install git and run again") from None
        except subprocess.TimeoutExpired:
            raise Busy(f"{self.url}: no end after {PATIENCE_S:.0f} s") from None
        if done.returncode == 0:
            return done.stdout
        raise self._error(done.stderr.decode(errors="replace"), network=network)

    def _error(self, said: str, *, network: bool) -> PipelineError:
        for secret in self._secrets:
            said = said.replace(secret, "***")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        told = next((line for line in lines if re.match(r"fatal|error|remote: |!", line)), lines[0] if lines else "?")
        low = said.lower()
        if network and "couldn't find remote ref" in low:
            return _NoSuchRef(told)
        if network and TOO_LATE.search(low) and not NO_RIGHTS.search(low):
            return _TooLate(told)
        if network and BUSY.search(low):
            return Busy(f"{self.url}: {told}")
        if network and NO_RIGHTS.search(low):
            hint = "a token with the right to read, and to push where you publish: docs/registry.md, git:"
            return NoAccessError(f"{self.url}: {told}", hint=hint)
        if network and NOT_THERE.search(low):
            return SettingsError(f"{self.url}: {told}", hint="check the registry's address, and that you may see it")
        if "no space left" in low or "disk quota" in low:
            return TransientError(f"{self.cache}: {told}", hint="free some space and run again")
        return SettingsError(f"{self.url}: {told}", hint="what git says; it pushes refs below " + self.base)


class _NoSuchRef(PipelineError):
    """The other side has no such ref."""


class _TooLate(PipelineError):
    """The other side's ref is not what it was."""


def open_git(rest: str, cache: Path, environment: Mapping[str, str], root: Path) -> GitPlace:
    """``REMOTE[#ref]`` behind ``git:``; the ref is ``refs/voxline`` where none is named, a path counts from ``root``.

    Raises:
        SettingsError: not an address that git reaches by https, ssh, a path, or http on this machine itself.
    """
    remote, _, name = rest.partition("#")
    base = name.strip("/") or BASE
    base = base if base.startswith("refs/") else f"refs/{base}"
    if not re.fullmatch(r"refs(/[A-Za-z0-9][A-Za-z0-9_-]*)+", base):
        raise SettingsError(f"registry 'git:...#{name}': not a name for refs", hint="letters, digits, '-', '_' and '/'")
    told = urlsplit(remote)
    if not remote or remote.startswith("-") or "::" in remote:
        raise SettingsError(f"registry 'git:{remote}': not the address of a repository", hint="git:https://HOST/GROUP/NAME")
    if told.password:
        raise SettingsError(
            f"registry 'git:{without_secrets(remote)}': a password stood in the address, where lists and logs show it",
            hint="put it into VOXLINE_REGISTRY_TOKEN, and the name before it into VOXLINE_REGISTRY_USER",
        )
    if told.scheme == "http" and not is_loopback(told.hostname):
        raise SettingsError(f"registry 'git:{without_secrets(remote)}': http sends voices in the clear", hint="https")
    if "://" in remote and told.scheme not in ("http", "https", "ssh", "file"):
        raise SettingsError(f"registry 'git:{without_secrets(remote)}': {told.scheme} is not used", hint="https or ssh")
    is_path = "://" not in remote and not re.match(r"[^/]+:", remote)
    return GitPlace(str((root / remote).absolute()) if is_path else remote, base, cache, environment)


def without_secrets(remote: str) -> str:
    """An address as it may be shown."""
    told = urlsplit(remote)
    if "@" not in told.netloc or told.scheme == "ssh":
        return remote
    return urlunsplit(told._replace(netloc=told.netloc.rpartition("@")[2]))


def _environment(remote: str, environment: Mapping[str, str]) -> dict[str, str]:
    protocols = ["https", "ssh", "file", *(["http"] if urlsplit(remote).scheme == "http" else [])]
    return {
        **child_environment(environment, also=PASSED),
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": ":".join(protocols),
        "GIT_SSH_COMMAND": environment.get("GIT_SSH_COMMAND") or "ssh -oBatchMode=yes",
        "GIT_AUTHOR_NAME": "voxline",
        "GIT_AUTHOR_EMAIL": "voxline@localhost",
        "GIT_COMMITTER_NAME": "voxline",
        "GIT_COMMITTER_EMAIL": "voxline@localhost",
        **_login(remote, environment),
    }


def _login(remote: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The token for this host, told to git through its environment, where no list of processes shows it."""
    told = urlsplit(remote)
    if told.scheme not in ("https", "http"):
        return {}
    user, token = environment.get("VOXLINE_REGISTRY_USER") or "oauth2", environment.get("VOXLINE_REGISTRY_TOKEN")
    own = urlsplit(environment.get("CI_SERVER_URL") or "")
    if not token and environment.get("CI_JOB_TOKEN") and (own.scheme, own.netloc) == (told.scheme, told.netloc):
        user, token = "gitlab-ci-token", environment["CI_JOB_TOKEN"]
    if not token:
        return {}
    words = base64.b64encode(f"{user}:{token}".encode()).decode()
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{told.scheme}://{told.netloc}/.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: Basic {words}",
    }
