"""Brings DeepFilterNet's weights into the cache: from the authors' repository, a zip file or a folder, when asked.

What is taken is exactly `config.ini` and the best checkpoints; `weights.json` notes their source and sha256.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from pipeline.errors import SettingsError, TransientError
from pipeline.io.files import disk_full_is_transient, write_atomically

NAME = "deepfilternet"
PUBLISHED = "https://github.com/Rikorose/DeepFilterNet/raw/main/models/DeepFilterNet3.zip"
NOTE_FILE = "weights.json"
_MAX_BYTES = 128 << 20
_PART = re.compile(r"(?:.*/)?(config\.ini|checkpoints/model_\d+\.ckpt\.best)")

Log = Callable[[str], None]


def deepfilternet_folder(cache: Path) -> Path:
    """Where the weights lie once pulled."""
    return cache.expanduser() / NAME


def pull_denoiser(cache: Path, *, source: Path | None, url: str = PUBLISHED, log: Log = lambda line: None) -> Path:
    """Put the weights into the cache, whole or not at all.

    Raises:
        SettingsError: the source does not hold them. TransientError: the network.
    """
    origin = str(source) if source is not None else url
    files = _from_path(source) if source is not None else _from_zip(_download(url), url)
    if "config.ini" not in files or len(files) < 2:
        hint = "it needs config.ini and checkpoints/model_<epoch>.ckpt.best, as the authors publish them"
        raise SettingsError(f"{origin}: no DeepFilterNet weights", hint=hint)
    target = deepfilternet_folder(cache)
    staging = target.with_name(f".{NAME}.partial")
    with disk_full_is_transient(target):
        shutil.rmtree(staging, ignore_errors=True)
        for name, data in files.items():
            write_atomically(staging / name, data)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
        note = {"source": origin, "sha256": digests}
        write_atomically(staging / NOTE_FILE, json.dumps(note, indent=1).encode())
        shutil.rmtree(target, ignore_errors=True)
        staging.replace(target)
    for name, digest in digests.items():
        log(f"{name}  sha256 {digest}")
    return target


def _from_path(source: Path) -> dict[str, bytes]:
    if source.is_file():
        return _from_zip(_bounded(source), str(source))
    if not source.is_dir():
        raise SettingsError(f"{source}: no such file or folder", hint="--from takes the published zip or its content")
    found = {}
    for path in sorted(source.rglob("*")):
        part = _PART.fullmatch(path.relative_to(source).as_posix())
        if part and path.is_file() and not path.is_symlink():
            found[part.group(1)] = _bounded(path)
    return found


def _bounded(path: Path) -> bytes:
    if path.stat().st_size > _MAX_BYTES:
        raise SettingsError(f"{path}: larger than {_MAX_BYTES} bytes")
    return path.read_bytes()


def _from_zip(data: bytes, origin: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                part = _PART.fullmatch(PurePosixPath(entry.filename).as_posix())
                if part is None:
                    continue
                if entry.file_size > _MAX_BYTES:
                    raise SettingsError(f"{origin}: {entry.filename} is larger than {_MAX_BYTES} bytes")
                with archive.open(entry) as stream:
                    found[part.group(1)] = stream.read(_MAX_BYTES)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError) as error:
        raise SettingsError(f"{origin}: not a zip file: {error}") from None
    return found


def _download(url: str) -> bytes:
    if not url.startswith("https://"):
        raise SettingsError(f"{url}: weights are fetched over https only")
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - https is checked above
            data: bytes = answer.read(_MAX_BYTES + 1)
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        hint = f"fetch it elsewhere, then: voxline bases pull {NAME} --from DeepFilterNet3.zip"
        raise TransientError(f"{url}: {error}", hint=hint) from None
    if len(data) > _MAX_BYTES:
        raise SettingsError(f"{url}: larger than {_MAX_BYTES} bytes")
    return data
