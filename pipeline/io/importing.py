"""Reads recordings laid out in other ways: LJSpeech, GPT-SoVITS lists, AudioFolder, plain folders.

Nothing outside the given folder is opened, whatever a list says, and all problems of a list are told at once.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pipeline.errors import NoAccessError, UsageError, VoiceRefused
from pipeline.io.files import read_regular, walk_files
from pipeline.io.metadata import NOT_UTF_8, SHOWN_NAME, parse_metadata
from pipeline.io.voices import is_part_of_voice, resolve_inside
from pipeline.records.clip import Clip
from pipeline.records.voice import Language

UTF_8 = "utf-8-sig"  # with or without a byte order mark
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".aiff", ".aif")
TRANSCRIPT_SUFFIXES = (".txt", ".lab")
MAX_LIST_BYTES = 16 * 1024 * 1024
MAX_TRANSCRIPT_BYTES = 64 * 1024
MAX_CLIPS = 20_000
LANGUAGES: tuple[str, ...] = get_args(Language)
SHOWN_PROBLEMS = 8

# How other tools write the languages.
_LANGUAGE_NAMES = {"jp": "ja", "all_zh": "zh", "all_ja": "ja", "all_ko": "ko", "all_yue": "yue", "cn": "zh", "kr": "ko"}


@dataclass(frozen=True)
class FoundClip:
    """A recording to import.

    Attributes:
        path: an ordinary file inside the source folder.
        language: None default where the list names none.
    """

    path: Path
    text: str
    language: str | None


Finder = Callable[[str, str], Path]


def find_clips(
    source: Path, *, language: str | None = None, encoding: str = UTF_8, one_speaker: bool = False
) -> tuple[list[FoundClip], str]:
    """The recordings of a folder or a ``.list`` file, and the name of the layout they were found in.

    Args:
        one_speaker: several subfolders, or names in a list, are the same person all the same.

    Raises:
        UsageError: there is nothing to import at ``source``, its layout is not known, or it looks like several voices.
        VoiceRefused: lines that name no usable file; the first few are listed with their numbers.
    """
    if source.is_symlink() and not source.exists():
        raise UsageError(f"{source}: points nowhere")
    if source.is_file():
        if source.suffix != ".list":
            raise UsageError(
                f"{source}: is neither a folder nor a .list file", hint="give the folder that holds the recordings"
            )
        return _from_list(source, encoding, one_speaker), "GPT-SoVITS list"
    if not source.is_dir():
        raise UsageError(f"{source}: does not exist", hint="give the folder that holds the recordings")
    table = source / "metadata.csv"
    if table.exists() or table.is_symlink():
        return _from_table(table, language, encoding)
    lists = sorted(source.glob("*.list"))
    if len(lists) == 1:
        return _from_list(lists[0], encoding, one_speaker), "GPT-SoVITS list"
    if lists:
        names = ", ".join(path.name for path in lists)
        raise UsageError(f"{source}: holds several lists: {names}", hint=f"voxline import {lists[0]}")
    return _from_folder(source, encoding, one_speaker), "plain folder"


def _from_table(table: Path, language: str | None, encoding: str) -> tuple[list[FoundClip], str]:
    """``metadata.csv`` with a header, read as every voice's is; or without one, LJSpeech's lines."""
    content = _read_bytes(table, MAX_LIST_BYTES)
    if encoding != UTF_8:
        content = _decode(content, encoding, table).encode()
    metadata = parse_metadata(content, language)
    rejected = [problem for problem in metadata.problems if problem.severity == "reject"]
    first = content.partition(b"\n")[0].decode(errors="replace").strip()
    if any(problem.line == 1 for problem in rejected):
        if "|" not in first:
            raise UsageError(
                f"{table}: the first line {first[:60]!r} is not a known header",
                hint="known: 'file_name,text', 'file|language|text', or LJSpeech lines 'id|text|normalised'",
            )
        by_stem = _index(table.parent, lambda path: path.stem)
        rows = _ljspeech_rows(_decode(content, UTF_8, table), table)
        return _collect(rows, table, lambda name, where: _unique(by_stem, name, where)), "LJSpeech metadata.csv"
    told = [f"line {problem.line}: {problem.detail}" if problem.line else problem.detail for problem in rejected]
    clips = _collect(metadata.rows, table, lambda name, where: resolve_inside(table.parent, name, where), told)
    mended = "; ".join(problem.detail for problem in metadata.problems if problem.severity == "repair")
    return clips, f"metadata.csv{f' ({mended})' if mended else ''}"


def _from_list(listing: Path, encoding: str, one_speaker: bool) -> list[FoundClip]:
    """``path|speaker|language|text``. The paths are those of the machine that wrote it, so only file names are used."""
    by_name = _index(listing.parent, lambda path: path.name)
    problems: list[str] = []
    rows, speakers = [], Counter[str]()
    for line, fields in _split_pipes(_decode(_read_bytes(listing, MAX_LIST_BYTES), encoding, listing)):
        if len(fields) != 4:
            problems.append(f"line {line}: {len(fields)} fields instead of path|speaker|language|text")
        else:
            name = fields[0].replace("\\", "/").rpartition("/")[2]
            speakers[fields[1].strip()] += 1
            rows.append(Clip(file_name=name, text=fields[3], language=fields[2], line=line))
    if not one_speaker:
        _require_one(listing, "speakers", speakers, "import a list of one of them")
    return _collect(rows, listing, lambda name, where: _unique(by_name, name, where), problems)


def _require_one(source: Path, what: str, found: Mapping[str, int], advice: str) -> None:
    """A corpus of many people is easily taken for a folder of one: its voice would be nobody's."""
    if len(found) < 2:
        return
    listed = [f"{name[:SHOWN_NAME]!r} ({count})" for name, count in sorted(found.items())]
    more = f" and {len(listed) - SHOWN_PROBLEMS} more" if len(listed) > SHOWN_PROBLEMS else ""
    raise UsageError(
        f"{source}: recordings of {len(found)} {what}: {', '.join(listed[:SHOWN_PROBLEMS])}{more}",
        hint=f"a voice is one person: {advice}, or say --one-speaker if it is one all the same",
    )


def _from_folder(folder: Path, encoding: str, one_speaker: bool) -> list[FoundClip]:
    """Every audio file, with the text of a ``.txt`` or ``.lab`` of the same name beside it where there is one."""
    clips, files = [], list(_audio_files(folder))
    places = Counter(str(path.parent.relative_to(folder)) for path in files if path.parent != folder)
    if not one_speaker:
        _require_one(folder, "subfolders", places, f"voxline import {folder / min(places, default='')}")
    for path in files:
        transcripts = [path.with_suffix(suffix) for suffix in TRANSCRIPT_SUFFIXES]
        transcript = next((one for one in transcripts if one.is_file() and not one.is_symlink()), None)
        text = _read_transcript(transcript, encoding) if transcript else ""
        clips.append(FoundClip(path, text, None))
    if not clips:
        raise UsageError(f"{folder}: holds no recordings", hint=f"known kinds: {' '.join(AUDIO_SUFFIXES)}")
    return clips


def _read_transcript(path: Path, encoding: str) -> str:
    return " ".join(_decode(_read_bytes(path, MAX_TRANSCRIPT_BYTES), encoding, path).split())


def _read_bytes(path: Path, max_bytes: int) -> bytes:
    """Raises VoiceRefused: a link, a folder, a pipe, or larger than ``max_bytes``."""
    try:
        return read_regular(path, max_bytes, follow_links=False)
    except NoAccessError as error:
        raise VoiceRefused(error.message, hint=error.hint) from None


def _decode(content: bytes, encoding: str, path: Path) -> str:
    """Raises VoiceRefused with the line of the first byte that is not in the encoding, or stands for no character."""
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        bad = content[error.start]
        raise VoiceRefused(
            f"{path}, line {line}: byte 0x{bad:02x} is not {encoding.removesuffix('-sig')}",
            hint="convert the file to UTF-8, or name its encoding: --encoding gb18030",
        ) from None
    except LookupError:
        raise UsageError(
            f"--encoding {encoding!r} is not known", hint="for example utf-8, gb18030, shift_jis, cp949"
        ) from None
    half = re.search("[\ud800-\udfff]", text)  # UTF-7 has room for halves of characters
    if half:
        line = text.count("\n", 0, half.start()) + 1
        raise VoiceRefused(
            f"{path}, line {line}: half a character, U+{ord(half[0]):04X}", hint="convert the file to UTF-8"
        )
    return text


def read_language(name: str) -> str:
    """``ZH``, ``JP``, ``all_ja`` ... as one of our languages. Raises ValueError."""
    lower = name.strip().lower()
    language = _LANGUAGE_NAMES.get(lower, lower)
    if language not in LANGUAGES:
        raise ValueError(f"language {name[:20]!r} is not one of {', '.join(LANGUAGES)}")
    return language


def safe_file_name(name: str, taken: set[str]) -> str:
    """A file name without spaces, quotes or a leading dash, not taken yet (compared without case)."""
    stem, _, suffix = unicodedata.normalize("NFC", name).rpartition(".")
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in stem).strip("-._") or "clip"
    kept = kept.encode()[:100].decode(errors="ignore")
    chosen, number = f"{kept}.{suffix.lower()}", 2
    while chosen.casefold() in taken:
        chosen, number = f"{kept}-{number}.{suffix.lower()}", number + 1
    taken.add(chosen.casefold())
    return chosen


def _collect(rows: Sequence[Clip], table: Path, find: Finder, problems: Sequence[str] = ()) -> list[FoundClip]:
    found, told, seen = [], list(problems), dict[Path, int | None]()
    if len(rows) > MAX_CLIPS:
        raise VoiceRefused(f"{table}: {len(rows)} lines; the limit is {MAX_CLIPS}")
    for row in rows:
        try:
            path = find(row.file_name, f"line {row.line}")
            language = read_language(row.language) if row.language.strip() else None
        except VoiceRefused as error:
            told.append(error.message)
            continue
        except ValueError as error:
            told.append(f"line {row.line}: {error}")
            continue
        if path in seen:
            told.append(f"line {row.line}: {row.file_name!r} was named on line {seen[path]} already")
            continue
        seen[path] = row.line
        found.append(FoundClip(path, " ".join((row.text or "").split()), language))
    if told:
        more = f"\n... and {len(told) - SHOWN_PROBLEMS} more" if len(told) > SHOWN_PROBLEMS else ""
        shown = "\n".join(told[:SHOWN_PROBLEMS])
        hint = "correct these lines and import again"
        if any(NOT_UTF_8 in line for line in told):
            hint = "convert the file to UTF-8, or name its encoding: --encoding latin-1"
        raise VoiceRefused(f"{table}: nothing was imported\n{shown}{more}", hint=hint)
    if not found:
        raise VoiceRefused(f"{table}: names no recordings", hint="one line for each recording")
    return found


def _ljspeech_rows(text: str, table: Path) -> list[Clip]:
    rows = []
    for line, fields in _split_pipes(text):
        if len(fields) not in (2, 3):
            raise VoiceRefused(f"{table}, line {line}: {len(fields)} fields instead of id|text|normalised")
        rows.append(Clip(file_name=fields[0], text=fields[-1] or fields[1], line=line))
    return rows


def _split_pipes(text: str) -> list[tuple[int, list[str]]]:
    lines = enumerate(text.splitlines(), start=1)
    return [(number, line.split("|")) for number, line in lines if line.strip()]


def _audio_files(folder: Path) -> Iterator[Path]:
    """Audio files at any depth, sorted; links and hidden folders are passed over."""
    found = walk_files(folder, is_part_of_voice)
    names = [name for name, entry in found if entry.is_file(follow_symlinks=False)]
    return (folder / name for name in sorted(names) if name.suffix.lower() in AUDIO_SUFFIXES)


def _index(folder: Path, key: Callable[[Path], str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in _audio_files(folder):
        found.setdefault(key(path), []).append(path)
    return found


def _unique(index: dict[str, list[Path]], name: str, where: str) -> Path:
    found = index.get(name, [])
    if not found:
        raise VoiceRefused(f"{where}: no recording {name[:SHOWN_NAME]!r} in the folder")
    if len(found) > 1:
        raise VoiceRefused(
            f"{where}: {name[:SHOWN_NAME]!r} is in several folders: {', '.join(str(path) for path in found[:3])}"
        )
    return found[0]
