"""Downloads files of pretrained bases from the Hugging Face Hub, a mirror of it, or a folder, and checks them.

Which commit and which bytes were taken is written into ``bases.lock`` beside ``bases/``; commit that file, and every
machine takes the same bytes or refuses. What the files mean is not known here.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from pipeline.errors import MissingExtraError, SettingsError, TransientError
from pipeline.io.files import disk_full_is_transient, write_atomically
from pipeline.records.base import Record

if TYPE_CHECKING:
    from huggingface_hub import HfApi

DEFAULT_ENDPOINT = "https://huggingface.co"
COMMIT = re.compile(r"[0-9a-f]{40}")
MD5_BYTES = 8192
MAX_LOCK_BYTES = 4 * 2**20

Log = Callable[[str], None]


@dataclass(frozen=True)
class WantedFile:
    """One file, or one folder, of a repository on the hub.

    Attributes:
        role: what it is for; comes back in ``PulledFile``.
        revision: branch, tag or commit; anything but a commit is resolved once and locked.
        sha256: of the file, where the base states it. ``md5_first_8192``: of its first 8192 bytes.
        files: of a folder, sha256 of each file that is needed, where the base states them.
    """

    role: str
    repository: str
    path: str
    revision: str = "main"
    is_folder: bool = False
    sha256: str | None = None
    md5_first_8192: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    def promised(self, path: str) -> str | None:
        """The sha256 that the base states for a path of the repository."""
        return self.files.get(PurePosixPath(path).name) if self.is_folder else self.sha256

    @property
    def paths(self) -> list[str]:
        """Every file by its path on the hub, as far as the base says; else the path of the folder."""
        return [f"{self.path}/{name}" for name in sorted(self.files)] if self.is_folder and self.files else [self.path]


@dataclass(frozen=True)
class PulledFile:
    """One file that is here, and whose bytes were checked.

    Attributes:
        revision: the commit, or "" where the file came out of a folder.
    """

    role: str
    repository: str
    revision: str
    path: str
    local: Path
    sha256: str
    size_bytes: int


class LockedRepository(Record):
    """One commit of one repository and the files taken from it: path -> sha256."""

    commit: str
    files: dict[str, str] = Field(default_factory=dict)


class BasesLock(Record):
    """The content of ``bases.lock``."""

    repositories: dict[str, LockedRepository] = Field(default_factory=dict)


def read_lock(path: Path) -> BasesLock:
    """The lock, or an empty one where there is no file."""
    if not path.exists():
        return BasesLock()
    if path.stat().st_size > MAX_LOCK_BYTES:
        raise SettingsError(f"{path}: larger than {MAX_LOCK_BYTES} bytes, so it is not a bases.lock")
    try:
        return BasesLock.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise SettingsError(f"{path}: {where}: {problem['msg']}", hint="restore it from git, or remove it") from None


def write_lock(path: Path, lock: BasesLock, pulled: Sequence[PulledFile]) -> BasesLock:
    """Add what was pulled from the hub to the lock; writes only if that changes it."""
    repositories = dict(lock.repositories)
    for file in pulled:
        if file.revision:
            held = repositories.get(file.repository)
            files = dict(held.files) if held is not None and held.commit == file.revision else {}
            repositories[file.repository] = LockedRepository(
                commit=file.revision, files={**files, file.path: file.sha256}
            )
    updated = BasesLock(repositories=repositories)
    if updated != lock:
        text = json.dumps(updated.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
        write_atomically(path, text.encode())
    return updated


@dataclass(frozen=True)
class From:
    """Where to take files from. ``folder``: this one and nothing else; ``endpoint``: a mirror of the hub."""

    folder: Path | None = None
    endpoint: str | None = None


HUB = From()


def pull(
    base: str,
    wanted: Sequence[WantedFile],
    *,
    lock: BasesLock,
    downloads: Path,
    source: From = HUB,
    log: Log = lambda line: None,
) -> list[PulledFile]:
    """Bring the wanted files here and check them.

    Args:
        base: named in messages.
        downloads: folder for downloaded files; an interrupted download continues there.

    Raises:
        TransientError: the hub cannot be reached; the message says which files to put where.
        SettingsError: a file is not there, or not the one that was locked or that the base names.
    """
    if source.folder is not None:
        return [_checked(file, lock) for file in _from_folder(base, wanted, source.folder)]
    hub = _Hub(base, wanted, downloads, source.endpoint)
    pulled = []
    for number, want in enumerate(wanted, 1):
        commit = hub.commit(want, lock)
        for path in hub.list_files(want, commit):
            log(f"[{number}/{len(wanted)}] {want.role}: {want.repository} {path} @ {commit[:12]}")
            pulled.append(hub.download(want, commit, path, lock))
    return pulled


# -- a folder -----------------------------------------------------------------------------------------------------


def _from_folder(base: str, wanted: Sequence[WantedFile], source: Path) -> list[tuple[WantedFile, PulledFile]]:
    if not source.is_dir():
        raise SettingsError(f"{source}: no such folder", hint=f"voxline bases pull {base} --from FOLDER")
    found: list[tuple[WantedFile, PulledFile]] = []
    missing = []
    for want in wanted:
        places = [place for place in _places(want, source) if (place.is_dir() if want.is_folder else place.is_file())]
        if not places:
            missing.append(want)
            continue
        absent = [name for name in want.files if want.is_folder and not (places[0] / name).is_file()]
        if absent:
            missing.append(replace(want, files={name: want.files[name] for name in absent}))
            continue
        for local in _folder_files(want, places[0]) if want.is_folder else [places[0]]:
            path = f"{want.path}/{local.name}" if want.is_folder else want.path
            found.append((want, _measured(want, "", path, local)))
    if missing:
        raise SettingsError(
            f"{source}: {_count(missing)} of {_count(wanted)} files of {base} are not there:\n"
            + _instructions(missing, source),
            hint=f"voxline bases pull {base} --from {source}",
        )
    return found


def _count(wanted: Sequence[WantedFile]) -> int:
    return sum(max(1, len(want.files)) if want.is_folder else 1 for want in wanted)


def _folder_files(want: WantedFile, folder: Path) -> list[Path]:
    return [folder / name for name in sorted(want.files)] or _useful(sorted(folder.iterdir()))


def _places(want: WantedFile, source: Path) -> list[Path]:
    """Where a file may lie in a folder somebody filled: as on the hub, below the repository's name, or just so."""
    name = PurePosixPath(want.path).name
    return [source / want.repository / want.path, source / want.path, source / name]


def _instructions(wanted: Sequence[WantedFile], folder: Path | str, endpoint: str = DEFAULT_ENDPOINT) -> str:
    lines = []
    for want in wanted:
        is_whole = want.is_folder and not want.files
        source = f"{endpoint}/{want.repository}/{'tree' if is_whole else 'resolve'}/{want.revision}"
        for path in want.paths:
            lines.append(f"  {folder}/{path}\n      from {'the folder ' if is_whole else ''}{source}/{path}")
    return "\n".join(lines)


def _useful(files: Sequence[Path]) -> list[Path]:
    """What a network's folder needs: weights once, and its tables of text."""
    weights = [file for file in files if file.suffix == ".safetensors"]
    weights = weights or [file for file in files if re.fullmatch(r"pytorch_model.*\.bin", file.name)]
    return weights + [file for file in files if file.suffix in (".json", ".txt") and "index" not in file.name]


# -- the hub ------------------------------------------------------------------------------------------------------


class _Hub:
    """One run's conversation with the hub; every failure is one of ours."""

    def __init__(self, base: str, wanted: Sequence[WantedFile], downloads: Path, endpoint: str | None) -> None:
        if importlib.util.find_spec("huggingface_hub") is None:
            raise MissingExtraError("pulling a base needs huggingface_hub", hint="pip install 'voxline[hub]'")
        self.base, self.wanted, self.downloads, self.endpoint = base, wanted, downloads, endpoint
        self.commits: dict[tuple[str, str], str] = {}

    def _api(self) -> HfApi:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint, user_agent="voxline")

    def commit(self, want: WantedFile, lock: BasesLock) -> str:
        """The commit to take: the base's own, else the locked one, else what the revision is now.

        The hub is asked in each case, because this question fails at once where there is no network.
        """
        locked = lock.repositories.get(want.repository)
        revision = want.revision
        if locked is not None and not COMMIT.fullmatch(revision):
            revision = locked.commit
        key = (want.repository, revision)
        if key not in self.commits:
            with self._translated(want):
                found = self._api().model_info(want.repository, revision=revision, timeout=30).sha
            if found is None or not COMMIT.fullmatch(found):
                raise SettingsError(f"{want.repository}: the hub names no commit for {revision}")
            self.commits[key] = found
        return self.commits[key]

    def list_files(self, want: WantedFile, commit: str) -> list[str]:
        """The paths to download: the file itself, or what is useful in the folder."""
        if not want.is_folder or want.files:
            return want.paths
        with self._translated(want):
            entries = list(self._api().list_repo_tree(want.repository, want.path, revision=commit))
        names = [Path(entry.path).name for entry in entries if hasattr(entry, "size")]
        useful = [path.name for path in _useful([Path(name) for name in sorted(names)])]
        if not useful:
            raise SettingsError(f"{want.repository} {want.path}: no weights in this folder at {commit[:12]}")
        return [f"{want.path}/{name}" for name in useful]

    def download(self, want: WantedFile, commit: str, path: str, lock: BasesLock) -> PulledFile:
        """One file, downloaded or continued, and checked. A file that is not the right one is removed again."""
        with self._translated(want), disk_full_is_transient(self.downloads):
            local, etag = self._fetch(want, commit, path)
        file = _measured(want, commit, path, local)
        promised = etag if re.fullmatch(r"[0-9a-f]{64}", etag) else None  # the ETag of a large file is its sha256
        try:
            return _checked((want, file), lock, promised)
        except SettingsError:
            local.unlink()
            raise

    def _fetch(self, want: WantedFile, commit: str, path: str) -> tuple[Path, str]:
        """The file and its ETag.

        The client's own `hf_hub_download` starts from nothing when a process was killed; its `http_get` continues, so
        the part that is here is kept under a name of its own, and locked against a second pull.
        """
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils._headers import build_hf_headers

        url = hf_hub_url(want.repository, path, revision=commit, endpoint=self.endpoint)
        told = get_hf_file_metadata(url, endpoint=self.endpoint, user_agent="voxline")
        etag = told.etag or commit
        name = PurePosixPath(path).name
        folder = self.downloads / want.repository / hashlib.sha256(f"{path} {etag}".encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        local, part = folder / name, folder / f"{name}.part"
        with part.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not local.exists():
                with part.open("r+b") as file:
                    have = file.seek(0, 2)
                    if told.size is not None and have > told.size:
                        have = file.truncate(0) + file.seek(0)
                    headers = build_hf_headers(user_agent="voxline")
                    http_get(
                        url, file, resume_size=have, headers=headers, expected_size=told.size, displayed_filename=path
                    )
                part.replace(local)
        part.unlink(missing_ok=True)
        return local, etag

    @contextmanager
    def _translated(self, want: WantedFile) -> Iterator[None]:
        from httpx2 import HTTPError
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        where = f"{self.endpoint or DEFAULT_ENDPOINT}/{want.repository}"
        try:
            yield
        except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
            raise self._unreachable(error) from None
        except (RepositoryNotFoundError, GatedRepoError) as error:
            raise SettingsError(f"{where}: {_first_line(error)}", hint="for a gated one: hf auth login") from None
        except (EntryNotFoundError, RevisionNotFoundError) as error:
            raise SettingsError(
                f"{where}: no {want.path} at {want.revision}: {_first_line(error)}",
                hint="the repository has changed: pin its revision in base.yaml",
            ) from None
        except HfHubHTTPError as error:
            status = getattr(error.response, "status_code", 0)
            kind = TransientError if status >= 500 or status in (408, 429) else SettingsError
            raise kind(f"{where}: HTTP {status}: {_first_line(error)}") from None
        except HTTPError as error:
            raise self._unreachable(error) from None
        except OSError as error:
            if error.errno is not None:  # the disk's; everything the network raises has none
                raise
            raise TransientError(f"{where}: {_first_line(error)}", hint="run again: it continues there") from None

    def _unreachable(self, error: BaseException) -> TransientError:
        endpoint = self.endpoint or DEFAULT_ENDPOINT
        listed = _instructions(self.wanted, "FOLDER", endpoint)
        return TransientError(
            f"{endpoint} cannot be reached ({_first_line(error)}). "
            f"Without a network, put these files into a folder:\n{listed}",
            hint=f"voxline bases pull {self.base} --from FOLDER, or set HF_ENDPOINT to a mirror",
        )


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


# -- checks -------------------------------------------------------------------------------------------------------


def _measured(want: WantedFile, revision: str, path: str, local: Path) -> PulledFile:
    with local.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return PulledFile(want.role, want.repository, revision, path, local, digest, local.stat().st_size)


def _checked(pair: tuple[WantedFile, PulledFile], lock: BasesLock, hub: str | None = None) -> PulledFile:
    """The file, if its bytes are those that the lock, the base and the hub promise, as far as they promise any."""
    want, file = pair
    locked = lock.repositories.get(file.repository)
    known = locked.files.get(file.path) if locked is not None else None
    promises = {"bases.lock": known, "the base": want.promised(file.path), "the hub": hub}
    for who, promised in promises.items():
        if promised is not None and promised != file.sha256:
            raise SettingsError(
                f"{file.local}: sha256 {file.sha256}, but {who} says {promised}",
                hint=f"the download is damaged or {file.repository} was changed; remove its entry from bases.lock "
                "only if you trust the new file",
            )
    if want.md5_first_8192 is not None:
        with file.local.open("rb") as stream:
            md5 = hashlib.md5(stream.read(MD5_BYTES), usedforsecurity=False).hexdigest()
        if md5 != want.md5_first_8192:
            raise SettingsError(
                f"{file.local}: not the file this base was made from (its beginning has MD5 {md5})",
                hint=f"the right one is {file.repository} {file.path}",
            )
    return file
