"""metadata.csv as people really write it: wrong encodings, wrong separators, missing columns. No guess is silent.

Every deviation from the convention (`file_name,text`, UTF-8, RFC 4180) is either mended, and then named in `problems`
as a repair, or refused with its line number. Paths are only compared here, never opened.
"""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pipeline.errors import NoAccessError
from pipeline.io.files import read_regular
from pipeline.records.clip import Clip, Split
from pipeline.text.scripts import script_of

MAX_BYTES = 64 << 20
MAX_ROWS = 200_000
MAX_TEXT = 4000
MAX_NAME_BYTES = 255  # of one file or folder, on every file system we know
MAX_PATH_BYTES = 1024  # inside a voice's folder; the system takes 4096 with all folders above it
SHOWN_NAME = 80  # letters of a name that a message quotes

NO_TEXT = "no text"
UNREVIEWED = "a machine heard its text, and nobody has reviewed it: correct it and write yes into 'reviewed'"
NOT_UTF_8 = "bytes that are not UTF-8; save the file as UTF-8"

ProblemSeverity = Literal["reject", "repair", "warn"]

_FILE_COLUMNS = ("file_name", "filename", "file", "path", "audio", "wav")
_TEXT_COLUMNS = ("text", "transcript", "transcription", "sentence", "normalized_text")
_LANGUAGE_COLUMNS = ("language", "lang", "locale")
_REVIEWED_COLUMNS = ("reviewed",)
_NOT_YET = ("no", "n", "false", "0", "")
SPLITS: dict[str, Split] = {"train": "train", "test": "test", "validation": "test", "dev": "test"}
_DELIMITERS = (",", "|", "\t", ";")
_LEGACY = {  # by declared language; each is checked against the script that the language is written in
    "zh": ("gb18030", "big5hkscs"),
    "yue": ("big5hkscs", "gb18030"),
    "ja": ("cp932", "euc_jp"),
    "ko": ("cp949",),
}
_CP1252_PUNCTUATION = frozenset(b"\x82\x84\x85\x91\x92\x93\x94\x95\x96\x97\xa0")
_FORMULA = re.compile(r"^\s*[=@]\s*\w|=\s*[A-Za-z_]+\s*\(")


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be: `bad_metadata`, `no_transcript`, `encoding` or `duplicate_line`."""

    code: str
    severity: ProblemSeverity
    detail: str
    line: int | None = None
    file_name: str | None = None
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class Metadata:
    """What could be read, and everything that was wrong.

    Attributes:
        rows: a clip for every usable line; `language` is empty where the line names none.
        is_hostile: a line points outside the folder.
        unreviewed: clips with a text that a machine heard; to everybody else they have none.
    """

    rows: tuple[Clip, ...]
    problems: tuple[Problem, ...]
    encoding: str = "utf-8"
    is_hostile: bool = False
    unreviewed: tuple[Clip, ...] = ()


def read_metadata(path: Path, language: str | None = None) -> Metadata:
    """Read a metadata file of at most 64 MiB. `language` helps to recognise a legacy encoding."""
    try:
        return parse_metadata(read_regular(path, MAX_BYTES), language)
    except NoAccessError as error:
        return _refused(error.message.removeprefix(f"{path}: "))


def parse_metadata(data: bytes, language: str | None = None) -> Metadata:
    """Parse the bytes of a metadata file. Never raises for what they contain."""
    if not data.strip():
        return _refused("the file is empty")
    decoded = _decode(data, language)
    if isinstance(decoded, Metadata):
        return decoded
    lines, encoding, problems = decoded
    return _parse_lines(lines, encoding, problems)


def _refused(detail: str, encoding: str = "utf-8") -> Metadata:
    return Metadata((), (Problem("bad_metadata", "reject", detail),), encoding)


def _decode(data: bytes, language: str | None) -> tuple[list[str | None], str, list[Problem]] | Metadata:
    """Physical lines, None for one that is not valid in the encoding of the rest."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                break
            problems = [] if encoding == "utf-8-sig" else [_encoding_repair("UTF-16")]
            return _split(text), encoding, problems
    if b"\0" in data:
        return _refused("holds zero bytes: this is not a text file")
    try:
        return _split(data.decode("utf-8")), "utf-8", []
    except UnicodeDecodeError:
        return _decode_damaged(data, language)


def _decode_damaged(data: bytes, language: str | None) -> tuple[list[str | None], str, list[Problem]]:
    """Not UTF-8 as a whole: another encoding throughout, or single damaged lines."""
    raw = data.splitlines()
    foreign = [line for line in raw if not line.isascii()]
    valid = sum(_is_utf8(line) for line in foreign)
    declared = _declared_languages(raw) or ([language] if language else [])
    if valid * 2 < len(foreign):
        for encoding in dict.fromkeys(name for one in declared for name in _LEGACY.get(one, ())):
            text = _decode_as(data, encoding, declared)
            if text is not None:
                return _split(text), encoding, [_encoding_repair(encoding.upper())]
    lines: list[str | None] = []
    mended = False
    for line in raw:
        if _is_utf8(line):
            lines.append(line.decode("utf-8"))
        elif {byte for byte in line if byte > 127} <= _CP1252_PUNCTUATION:  # typographic quotes and dashes from Windows
            lines.append(line.decode("cp1252"))
            mended = True
        else:
            lines.append(None)
    return lines, "utf-8", [_encoding_repair("Windows-1252")] if mended else []


def _decode_as(data: bytes, encoding: str, languages: list[str]) -> str | None:
    """The text, if it is valid and its letters are those of one of the languages."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    foreign = [letter for letter in text if not letter.isascii() and unicodedata.category(letter)[0] in "LMN"]
    fitting = sum("\u4e00" <= letter <= "\u9fff" or script_of(letter) in ("kana", "hangul") for letter in foreign)
    if not foreign or fitting < 0.9 * len(foreign):
        return None
    if "ja" in languages and not any(script_of(letter) == "kana" for letter in foreign):
        return None
    return text


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _declared_languages(raw: list[bytes]) -> list[str]:
    """Language codes in the ASCII part of a file that cannot be decoded yet, most frequent first."""
    counts = dict.fromkeys(_LEGACY, 0)
    for line in raw[1:1000]:
        for field in re.split(rb"[,|\t;]", line):
            name = field.strip().decode("ascii", "replace").lower()
            if name in counts:
                counts[name] += 1
    return [name for name, count in sorted(counts.items(), key=lambda item: -item[1]) if count]


def _encoding_repair(encoding: str) -> Problem:
    return Problem("encoding", "repair", f"metadata.csv is {encoding}", before=encoding, after="UTF-8")


def _split(text: str) -> list[str | None]:
    """Lines at CR, LF and CRLF only: str.splitlines also cuts at characters that belong to a sentence."""
    return list(re.split(r"\r\n|\n|\r", text))


def _parse_lines(lines: list[str | None], encoding: str, problems: list[Problem]) -> Metadata:
    while lines and lines[-1] is not None and not lines[-1].strip():
        lines.pop()
    header = lines[0] if lines else None
    if header is None:
        return _refused("the header line cannot be read", encoding)
    delimiter = _delimiter(header)
    names = [name.strip().lower() for name in _fields(header, delimiter) or []]
    columns = _columns(names)
    if columns is None:
        detail = f"no header with file_name and text, but {header[:60]!r}"
        return Metadata((), (*problems, Problem("bad_metadata", "reject", detail, 1)), encoding)
    records, broken = _records(lines, delimiter)
    problems += [Problem("bad_metadata", "reject", detail, line) for line, detail in broken]
    if len(records) > MAX_ROWS:
        return _refused(f"more than {MAX_ROWS} lines", encoding)
    return _rows(records, len(names), columns, encoding, problems)


def _delimiter(header: str) -> str:
    return max(_DELIMITERS, key=header.count)


def _columns(names: list[str]) -> dict[str, int] | None:
    found = {}
    wanted = {"file": _FILE_COLUMNS, "text": _TEXT_COLUMNS, "language": _LANGUAGE_COLUMNS, "split": ("split",)}
    wanted["reviewed"] = _REVIEWED_COLUMNS
    for key, accepted in wanted.items():
        match = next((name for name in accepted if name in names), None)
        if match is not None:
            found[key] = names.index(match)
    return found if "file" in found and "text" in found else None


def _fields(text: str, delimiter: str) -> list[str] | None:
    """One record, None where its quoting is broken. Only `,` and `;` files quote; in `|` files a quote is text."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if delimiter in ",;" else csv.QUOTE_NONE
    try:
        parsed = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True))
    except csv.Error:
        return None
    return parsed[0] if len(parsed) == 1 else None


def _records(lines: list[str | None], delimiter: str) -> tuple[list[tuple[int, list[str]]], list[tuple[int, str]]]:
    """Records with the line they begin on. A quoted field may run over lines, but not swallow the rest of the file."""
    records: list[tuple[int, list[str]]] = []
    broken: list[tuple[int, str]] = []
    index = 1
    while index < len(lines):
        number, text = index + 1, lines[index]
        index += 1
        if text is None:
            broken.append((number, NOT_UTF_8))
            continue
        if not text.strip():
            continue
        fields = _fields(text, delimiter)
        if fields is None and delimiter in ",;" and text.count('"') % 2:
            joined, after = _joined(lines, index, text)
            fields = _fields(joined, delimiter)
            index = after if fields is not None else index
        if fields is None:
            broken.append((number, "a quote that is not closed, or one inside a field"))
            continue
        records.append((number, fields))
    return records, broken


def _joined(lines: list[str | None], index: int, text: str) -> tuple[str, int]:
    """The record continued over at most ten lines, until its quotes are even."""
    joined = text
    for after in range(index, min(index + 10, len(lines))):
        following = lines[after]
        if following is None:
            break
        joined += "\n" + following
        if joined.count('"') % 2 == 0:
            return joined, after + 1
    return text, index


def _rows(
    records: list[tuple[int, list[str]]],
    width: int,
    columns: dict[str, int],
    encoding: str,
    problems: list[Problem],
) -> Metadata:
    rows: dict[str, Clip] = {}
    conflicting: set[str] = set()
    unreviewed: list[Clip] = []
    is_hostile = False
    for line, fields in records:
        name = fields[columns["file"]].strip() if len(fields) > columns["file"] else ""
        if is_outside(name):
            is_hostile = True
            detail = f"{name[:SHOWN_NAME]!r} lies outside the folder"
            problems.append(Problem("bad_metadata", "reject", detail, line, name))
            continue
        fault = _fault(fields, width, columns)
        if fault:
            code = "no_transcript" if fault == NO_TEXT else "bad_metadata"
            problems.append(Problem(code, "reject", fault, line, name or None))
            continue
        row = _row(line, name, fields, columns)
        if "reviewed" in columns and fields[columns["reviewed"]].strip().lower() in _NOT_YET:
            problems.append(Problem("no_transcript", "reject", UNREVIEWED, line, name))
            unreviewed.append(row)
            continue
        earlier = rows.get(name)
        if earlier is None:
            rows[name] = row
        elif earlier.text == row.text:
            detail = f"says the same as line {earlier.line}"
            problems.append(Problem("duplicate_line", "repair", detail, line, name, f"line {line}", "left out"))
        else:
            conflicting.add(name)
            detail = f"another text than line {earlier.line} for the same file"
            problems.append(Problem("bad_metadata", "reject", detail, line, name))
    kept = tuple(row for name, row in rows.items() if name not in conflicting)
    return Metadata(kept, tuple(problems), encoding, is_hostile, tuple(unreviewed))


def _row(line: int, name: str, fields: list[str], columns: dict[str, int]) -> Clip:
    def optional(key: str) -> str:
        return fields[columns[key]].strip() if key in columns else ""

    text = unicodedata.normalize("NFC", " ".join(fields[columns["text"]].split()))
    split = SPLITS.get(optional("split").lower())
    return Clip(file_name=name, text=text, language=optional("language"), split=split, line=line)


def _fault(fields: list[str], width: int, columns: dict[str, int]) -> str | None:
    """What makes a record unusable, None where nothing does."""
    if len(fields) != width:
        return f"{len(fields)} fields where the header has {width}"
    text = fields[columns["text"]].strip()
    name = fields[columns["file"]].strip()
    if not name:
        return "no file name"
    if len(os.fsencode(name)) > MAX_PATH_BYTES:
        return f"a file name of {len(os.fsencode(name))} bytes, at most {MAX_PATH_BYTES}: {name[:SHOWN_NAME]!r}..."
    if max(len(os.fsencode(part)) for part in name.split("/")) > MAX_NAME_BYTES or not name.isprintable():
        return "a file name that no file can have"
    if not text:
        return NO_TEXT
    if len(text) > MAX_TEXT:
        return f"a text of {len(text)} characters, at most {MAX_TEXT}"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Co", "Cn") and letter not in "\t\n" for letter in text):
        return "control characters in the text"
    if "\N{REPLACEMENT CHARACTER}" in text:
        return "characters that an earlier conversion has lost (U+FFFD)"
    if _FORMULA.search(text):
        return f"a spreadsheet formula, not speech: {text[:40]!r}"
    return None


def is_outside(name: str) -> bool:
    """Whether a path leaves its folder: absolute, with a drive, a home, a backslash, a zero byte or `..`."""
    if name.startswith(("/", "\\", "~")) or "\0" in name or name[1:2] == ":":
        return True
    return ".." in PurePosixPath(name.replace("\\", "/")).parts
