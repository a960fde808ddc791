"""Writes a voice folder: in a hidden folder beside its place, moved in when complete."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.io.files import disk_full_is_transient, sync_folder, write_atomically
from pipeline.io.importing import FoundClip, safe_file_name
from pipeline.io.voices import MANIFEST_FILE, METADATA_FILE, check_consent, check_name, parse_manifest
from pipeline.io.yaml import parse_table
from pipeline.records.clip import Clip


@dataclass(frozen=True)
class ConsentWords:
    """Consent as given on the command line."""

    speaker: str
    granted_on: date
    scope: Sequence[str] = ()
    expires_on: date | None = None


@dataclass(frozen=True)
class ManifestWords:
    """What a new voice.yaml says. Without consent it gets lines to fill in, and the voice is refused until then."""

    display_name: str
    language: str
    license: str
    base: str | None = None
    copyright_notice: str = ""
    review: str = "none"
    consent: ConsentWords | None = None


def render_manifest(words: ManifestWords) -> str:
    """voice.yaml with comments. Strings are written as JSON, which YAML reads as they are."""
    lines = [
        f"display_name: {_quote(words.display_name)}",
        f"language: {words.language}   # zh en ja ko yue",
        f"base: {_quote(words.base)}"
        if words.base
        else "# base: nano   # voxline bases list; pipeline.toml's where absent",
        *_consent_lines(words.consent),
        f"license: {_quote(words.license)}   # of the recordings",
        f"copyright_notice: {_quote(words.copyright_notice)}",
        f"review: {words.review}   # required: a person promotes each candidate",
    ]
    return "\n".join(lines) + "\n"


def write_voice(voices: Path, name: str, words: ManifestWords, clips: Sequence[FoundClip]) -> Path:
    """Write ``voices/<name>/`` with copies of the recordings, all or nothing.

    Raises:
        UsageError: the folder exists, or another import writes it right now.
        SettingsError, ConsentError: a value that voice.yaml cannot hold, or a consent that is not in force today.
        TransientError: the disk is full; nothing is left.
    """
    folder = voices / check_name(name)
    manifest = render_manifest(words)
    if words.consent is not None:
        check_consent(parse_manifest(parse_table(manifest.encode(), "voice.yaml"), "voice.yaml"), "voice.yaml")
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists already", hint="choose another --name, or delete the folder first")
    with disk_full_is_transient(folder), _staging(voices, name) as staging:
        (staging / MANIFEST_FILE).write_text(manifest, encoding="utf-8")
        (staging / "wavs").mkdir()
        table, taken = [], set[str]()
        for clip in clips:
            target = f"wavs/{safe_file_name(clip.path.name, taken)}"
            shutil.copyfile(clip.path, staging / target, follow_symlinks=False)
            table.append((target, clip.text, clip.language or words.language))
        (staging / METADATA_FILE).write_text(_render_table(table), encoding="utf-8", newline="")
        if not clips:
            (staging / "wavs" / ".gitkeep").touch()
        staging.rename(folder)
        sync_folder(voices)
    return folder


def write_table(folder: Path, files: Sequence[str], language: str) -> Path:
    """Write a metadata.csv that names the recordings, with room for their texts. Raises UsageError if there is one."""
    path = folder / METADATA_FILE
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists already", hint="write what is said into its column 'text'")
    with disk_full_is_transient(path):
        write_atomically(path, _render_table([(name, "", language) for name in files]).encode())
    return path


def write_reviewed_table(path: Path, rows: Sequence[tuple[Clip, bool]]) -> None:
    """Write a metadata.csv of clips and whether a person has reviewed their texts; what is there is replaced whole."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("file_name", "text", "language", "split", "reviewed"))
    for clip, is_reviewed in rows:
        writer.writerow((clip.file_name, clip.text, clip.language, clip.split, "yes" if is_reviewed else "no"))
    with disk_full_is_transient(path):
        write_atomically(path, out.getvalue().encode())


@contextmanager
def _staging(voices: Path, name: str) -> Iterator[Path]:
    """An empty hidden folder, locked, gone afterwards unless it was renamed. Leftovers of a kill are cleared."""
    voices.mkdir(parents=True, exist_ok=True)
    staging = voices / f".{name}.partial"
    staging.mkdir(exist_ok=True)
    descriptor = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{voices / name} is being written by another import", hint="wait for it") from None
        for leftover in staging.iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    finally:
        os.close(descriptor)


def _consent_lines(consent: ConsentWords | None) -> list[str]:
    if consent is None:
        return [
            "# A voice without consent is refused. Fill these in and remove the '# ':",
            "# consent:",
            "#   speaker: Full Name",
            "#   granted_on: 2026-01-31",
            "#   scope: [announcements]",
        ]
    lines = ["consent:", f"  speaker: {_quote(consent.speaker)}", f"  granted_on: {consent.granted_on}"]
    if consent.scope:
        lines.append(f"  scope: [{', '.join(_quote(one) for one in consent.scope)}]")
    if consent.expires_on:
        lines.append(f"  expires_on: {consent.expires_on}")
    return lines


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _render_table(rows: Sequence[tuple[str, str, str]]) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("file_name", "text", "language"))
    writer.writerows(rows)
    return out.getvalue()
