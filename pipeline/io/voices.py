"""Reading a voice folder written by a stranger, and its digest.

Nothing outside the folder is ever opened: links, absolute paths and ``..`` are refused before a file is touched.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from pipeline.config import describe
from pipeline.errors import ConsentError, SettingsError, VoiceRefused
from pipeline.io.files import open_regular, walk_files, write_cache
from pipeline.io.git import MAX_POINTER_BYTES, lfs_object_id
from pipeline.io.metadata import MAX_NAME_BYTES, MAX_PATH_BYTES, read_metadata
from pipeline.io.yaml import read_table
from pipeline.records.clip import Clip
from pipeline.records.voice import NAME_RULE, VoiceManifest, is_voice_name

MANIFEST_FILE = "voice.yaml"
METADATA_FILE = "metadata.csv"

UNCOUNTED = "a hidden file or an editor's copy, which the voice's version does not cover"
UNCOUNTED_HINT = "give it a plain name such as wavs/001.wav, in metadata.csv too"

# Left by desktops and editors; never part of a voice.
_IGNORED_NAMES = frozenset({"Thumbs.db", "desktop.ini"})

# A file changed right after it was read may keep its time stamps: digests of such young files are not cached.
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class Voice:
    """A voice folder whose manifest, consent and paths are in order."""

    name: str
    folder: Path
    manifest: VoiceManifest


def check_name(name: str, source: str = "voice name") -> str:
    """Raises SettingsError unless ``name`` may be a voice's name."""
    if not is_voice_name(name):
        raise SettingsError(f"{source}: {name!r} is not a voice name", hint=NAME_RULE)
    return name


def load_voice(folder: Path, *, today: date | None = None) -> Voice:
    """Read a voice folder and check what must hold before any audio is decoded.

    Raises:
        SettingsError: the name, or a key or value of voice.yaml.
        ConsentError: consent is missing, incomplete, not yet given or expired.
        VoiceRefused: the folder is a link, holds links or undownloaded LFS pointers, or names a file that its version
            would not cover.
    """
    check_name(folder.name, str(folder))
    if folder.is_symlink():
        raise VoiceRefused(f"{folder}: is a symbolic link", hint="copy the folder itself into voices/")
    manifest = load_manifest(folder)
    check_consent(manifest, f"{folder / MANIFEST_FILE}", today=today)
    _check_files(folder)
    if manifest.consent.statement:
        resolve_inside(folder, manifest.consent.statement, f"{folder / MANIFEST_FILE}: consent.statement")
    _refuse_uncounted(folder, manifest)
    return Voice(folder.name, folder, manifest)


def load_manifest(folder: Path) -> VoiceManifest:
    """Read ``voice.yaml``.

    Raises:
        SettingsError: with the file, the key and the value.
        ConsentError: there is no such file, or no complete ``consent`` in it.
    """
    path = folder / MANIFEST_FILE
    if path.is_symlink():
        raise SettingsError(f"{path}: is a symbolic link", hint="put the file itself there")
    if not path.is_file():
        raise ConsentError(
            f"{path}: is missing, and with it the speaker's consent",
            hint="voxline new NAME writes one to fill in and copy",
        )
    return parse_manifest(read_table(path), str(path))


def parse_manifest(content: Mapping[str, Any], source: str) -> VoiceManifest:
    """Check the content of a voice.yaml; ``source`` is the file to name in errors. Raises as ``load_manifest``."""
    if not content.get("consent"):
        raise ConsentError(
            f"{source}: key 'consent' is missing",
            hint="add to it: consent: {speaker: Full Name, granted_on: 2026-01-31}",
        )
    try:
        return VoiceManifest.model_validate(content)
    except ValidationError as error:
        message = describe(error, source)
        if all(problem["loc"][:1] == ("consent",) for problem in error.errors(include_url=False)):
            raise ConsentError(message, hint="consent needs speaker and granted_on (YYYY-MM-DD)") from None
        raise SettingsError(message, hint="voxline schema voice lists the keys") from None


def check_consent(manifest: VoiceManifest, source: str, *, today: date | None = None) -> None:
    """Raises ConsentError when the consent is not in force today (UTC; a day of tolerance for time zones ahead)."""
    now = today or datetime.now(UTC).date()
    consent = manifest.consent
    if consent.granted_on > now + timedelta(days=1):
        raise ConsentError(
            f"{source}: consent.granted_on {consent.granted_on} lies in the future", hint="correct the date"
        )
    if consent.has_expired(now):
        raise ConsentError(
            f"{source}: consent expired on {consent.expires_on}",
            hint="ask the speaker for a new consent, or delete the folder to retire the voice",
        )


def resolve_inside(folder: Path, name: str, source: str) -> Path:
    """The file that a manifest or a CSV row names, which must be an ordinary file inside the folder.

    Raises:
        VoiceRefused: absolute, with a drive or backslashes, leading out, through a link, missing, or no ordinary file.
    """
    parts = PurePosixPath(name).parts
    is_foreign = "\\" in name or "\0" in name or name[1:2] == ":" or any(ord(letter) < 32 for letter in name)
    is_long = len(os.fsencode(name)) > MAX_PATH_BYTES
    is_long = is_long or any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in parts)
    if not parts or is_foreign or is_long or name.startswith(("/", "~")) or ".." in parts:
        raise VoiceRefused(
            f"{source}: {name[:80]!r} is not inside the voice's folder", hint="write it like wavs/001.wav"
        )
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise VoiceRefused(
                f"{source}: {name!r} leads through the symbolic link {path}", hint="copy the file itself there"
            )
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise VoiceRefused(f"{source}: {name!r} is missing", hint=f"add {path}, or remove the line") from None
    if not stat.S_ISREG(mode):
        raise VoiceRefused(f"{source}: {name!r} is not a regular file")
    return path


def is_part_of_voice(path: PurePosixPath) -> bool:
    """Whether a path inside a voice's folder counts: hidden files, editors' copies and desktop files do not."""
    return not any(part.startswith(".") or part.endswith("~") or part in _IGNORED_NAMES for part in path.parts)


def find_uncounted(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of the names that lead to a file which the folder's content digest leaves out.

    Hidden files, editors' copies and what desktops leave are not counted. Nor is a name that some file systems take for
    another one, in other letters of the same word: only the name that the folder itself lists is counted.
    """
    wanted = {name: PurePosixPath(name) for name in names}
    counted = {relative for relative, _ in _counted(folder)}
    return [name for name, path in wanted.items() if path not in counted and _is_ordinary(folder, path)]


def _counted(folder: Path) -> Iterator[tuple[PurePosixPath, os.DirEntry[str]]]:
    """The files and links that make up the content digest."""
    for relative, entry in walk_files(folder, is_part_of_voice):
        if entry.is_file(follow_symlinks=False) or entry.is_symlink():
            yield relative, entry


def _is_ordinary(folder: Path, inside: PurePosixPath) -> bool:
    """Whether there is a file that could be read; one behind a link is refused for the link."""
    try:
        modes = [(folder / part).lstat().st_mode for part in (inside, *inside.parents)]
    except (OSError, ValueError):  # missing, or no name that a file can have
        return False
    return stat.S_ISREG(modes[0]) and not any(stat.S_ISLNK(mode) for mode in modes[1:-1])


def _refuse_uncounted(folder: Path, manifest: VoiceManifest) -> None:
    """Whatever is read of a voice decides its version: else it could be swapped, and nobody would notice."""
    statement = manifest.consent.statement
    named = [row.file_name for row in _rows(folder, manifest.language)]
    uncounted = find_uncounted(folder, [*named, *([statement] if statement else [])])
    if uncounted:
        more = f" and {len(uncounted) - 3} more" if len(uncounted) > 3 else ""
        shown = ", ".join(repr(name[:80]) for name in uncounted[:3])
        raise VoiceRefused(f"{folder}: {shown}{more}: {UNCOUNTED}", hint=UNCOUNTED_HINT)


def _rows(folder: Path, language: str) -> Iterable[Clip]:
    path = folder / METADATA_FILE
    return read_metadata(path, language).rows if path.is_file() and not path.is_symlink() else ()


def digest_of(files: Iterable[tuple[str, str]]) -> str:
    """Content digest of a voice: sha256 over its sorted (path, sha256 of the content)."""
    hasher = hashlib.sha256()
    for path, digest in sorted(files):
        hasher.update(f"{path}\0{digest}\n".encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()


def link_digest(target: bytes) -> str:
    """Stands in for the content of a symbolic link, in a folder and in a Git tree alike."""
    return "link:" + hashlib.sha256(target).hexdigest()


def content_digest(folder: Path, *, cache: Path | None = None) -> str:
    """Content digest of a folder on disk, equal to that of the same files in Git; LFS pointers are resolved.

    Args:
        cache: a JSON file that remembers digests by path, size, times and inode, so a second call only stats the files.
    """
    known = _read_cache(cache)
    fresh: dict[str, list[Any]] = {}
    settled_before_ns = time.time_ns() - _SETTLED_NS
    files = []
    entries = {str(relative): entry for relative, entry in _counted(folder)}
    for relative, entry in sorted(entries.items()):
        if entry.is_symlink():
            files.append((relative, link_digest(os.fsencode(Path(entry.path).readlink()))))
            continue
        status = entry.stat(follow_symlinks=False)
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        remembered = known.get(relative)
        digest = remembered[4] if remembered and remembered[:4] == stamp else counted_digest(Path(entry.path))
        files.append((relative, digest))
        if max(status.st_mtime_ns, status.st_ctime_ns) < settled_before_ns:
            fresh[relative] = [*stamp, digest]
    if cache is not None and fresh != known:
        write_cache(cache, json.dumps(fresh).encode())
    return digest_of(files)


def _check_files(folder: Path) -> None:
    for relative, entry in _counted(folder):
        if entry.is_symlink():
            raise VoiceRefused(f"{folder / relative}: is a symbolic link", hint="copy the file itself there")
        if entry.stat().st_size < MAX_POINTER_BYTES and lfs_object_id(Path(entry.path).read_bytes()):
            raise VoiceRefused(f"{folder / relative}: is a Git LFS pointer, not the recording", hint="git lfs pull")


def counted_digest(path: Path) -> str:
    """sha256 of a file as its voice's version counts it: an LFS pointer is what it stands for."""
    with open_regular(path, follow_links=False) as stream:
        head = stream.read(MAX_POINTER_BYTES)
        pointed = lfs_object_id(head)
        if pointed:
            return pointed
        hasher = hashlib.sha256(head)
        while chunk := stream.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()


def _read_cache(cache: Path | None) -> dict[str, list[Any]]:
    """What an earlier call remembered. The cache may be damaged or gone: then everything is read again."""
    if cache is None:
        return {}
    try:
        content = json.loads(cache.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
