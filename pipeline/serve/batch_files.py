"""What many lines are read from and what is written beside their sound. Computes nothing."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UsageError
from pipeline.io.files import read_regular
from pipeline.records.serving import SaidSentence

AudioKind = Literal["wav", "flac", "ogg"]
TimingKind = Literal["json", "srt", "vtt"]
MAX_FILE_BYTES, MAX_LINES = 16 * 2**20, 100_000
COLUMNS = ("text", "voice", "name", "seed", "speed", "language")
_NAME = re.compile(r"[\w-][\w.-]{0,99}")


@dataclass(frozen=True)
class Line:
    """One text, and how it is said. name: of its files, without an ending."""

    name: str
    text: str
    voice: str
    seed: int = 0
    speed: float = 1.0
    language: str | None = None


@dataclass(frozen=True)
class Manner:
    """What holds for lines that do not say otherwise."""

    voice: str
    seed: int = 0
    speed: float = 1.0
    language: str | None = None


@dataclass(frozen=True)
class Written:
    """What is written for every line."""

    folder: Path
    kind: AudioKind = "wav"
    timings: tuple[TimingKind, ...] = ()


def read_lines(path: Path, manner: Manner) -> list[Line]:
    """The lines of a text file, or of a table with a column `text` and any of voice, name, seed, speed, language.

    Raises:
        UsageError: the file cannot be read so, naming the line.
    """
    try:
        content = read_regular(path, MAX_FILE_BYTES).decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"--lines: no file at {path}", hint="check the path") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 (byte {error.start})", hint="save it as UTF-8") from None
    if path.suffix.lower() in (".csv", ".tsv"):
        rows = _table(content, path)
    else:
        rows = [(number, {"text": line}) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
    if not rows:
        raise UsageError(f"{path}: no line in it", hint="write a text on each line")
    if len(rows) > MAX_LINES:
        raise UsageError(f"{path}: {len(rows)} lines, at most {MAX_LINES}", hint="say it in parts")
    width = max(4, len(str(len(rows))))
    lines = [_line(f"{count:0{width}}", row, manner, f"{path}:{at}") for count, (at, row) in enumerate(rows, 1)]
    names = [line.name for line in lines]
    if twice := next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None:
        raise UsageError(f"{path}: two lines are called {twice}", hint="each name makes a file")
    return lines


def _table(content: str, path: Path) -> list[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(StringIO(content), delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    try:
        header = list(reader.fieldnames or ())
        unknown = [name for name in header if name not in COLUMNS]
        if "text" not in header or unknown or len(set(header)) < len(header):
            raise UsageError(
                f"{path}: columns {', '.join(header)[:100]}", hint=f"text, and any of {', '.join(COLUMNS[1:])}"
            )
        rows = []
        for row in reader:
            if None in row or None in row.values():
                raise UsageError(f"{path}:{reader.line_num}: not {len(header)} columns", hint="quote texts with commas")
            rows.append((reader.line_num, {name: value for name, value in row.items() if value}))
    except csv.Error as error:
        raise UsageError(f"{path}:{reader.line_num}: {error}", hint="RFC 4180: quotes are doubled") from None
    return rows


def _line(number: str, row: Mapping[str, str], manner: Manner, place: str) -> Line:
    told: dict[str, Any] = {"name": number, **asdict(manner), **row}
    if not _NAME.fullmatch(told["name"]):
        raise UsageError(f"{place}: name {told['name'][:40]!r}", hint="letters, digits, '_', '-' and '.'")
    try:
        told["seed"], told["speed"] = int(told["seed"]), float(told["speed"])
    except ValueError:
        raise UsageError(f"{place}: seed or speed is no number", hint="seed from 0, speed 0.5 to 2") from None
    if told["seed"] < 0 or not 0.5 <= told["speed"] <= 2.0:
        raise UsageError(f"{place}: seed {told['seed']}, speed {told['speed']}", hint="seed from 0, speed 0.5 to 2")
    return Line(**{"text": "", **told})


def _json(line: Line, said: Sequence[SaidSentence]) -> str:
    sentences = [
        {
            "text": one.text,
            "start": one.part.start_s,
            "end": round(one.part.start_s + one.part.duration_s, 3),
            "words": [word.model_dump() for word in one.words],
        }
        for one in said
    ]
    return json.dumps({"text": line.text, "sentences": sentences}, ensure_ascii=False, indent=1) + "\n"


def _srt(line: Line, said: Sequence[SaidSentence]) -> str:
    return "\n".join(f"{number}\n{_cue(one, ',')}\n{_plain(one.text)}\n" for number, one in enumerate(said, 1))


def _vtt(line: Line, said: Sequence[SaidSentence]) -> str:
    cues = (f"{_cue(one, '.')}\n{_plain(one.text).replace('&', '&amp;').replace('<', '&lt;')}\n" for one in said)
    return "WEBVTT\n\n" + "\n".join(cues)


def _cue(said: SaidSentence, mark: str) -> str:
    ends = (said.part.start_s, said.part.start_s + said.part.duration_s)
    return " --> ".join(_clock(at, mark) for at in ends)


def _clock(at_s: float, mark: str) -> str:
    minutes, milliseconds = divmod(round(at_s * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{mark}{milliseconds % 1000:03}"


def _plain(text: str) -> str:
    """A cue is one line, and an arrow in it would be taken for a time."""
    return " ".join(text.split()).replace("-->", "->")


TIMINGS: Mapping[str, Callable[[Line, Sequence[SaidSentence]], str]] = {"json": _json, "srt": _srt, "vtt": _vtt}
TIMING_KINDS = tuple(TIMINGS)
