"""Many lines at once: a file with a line for each, spoken side by side as a server speaks them, and resumable.

A line that was spoken before with the same text, version and manner is left as it is: `lines.jsonl` in the folder says
what each file holds.
"""

from __future__ import annotations

import hashlib
import json
import queue
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import NoAccessError
from pipeline.io.audio import encode_audio
from pipeline.io.files import read_regular, write_atomically
from pipeline.records.job import Reporter
from pipeline.records.serving import Asked, SaidSentence, ServedVoice, WorkerSettings
from pipeline.serve.batch_files import TIMINGS, Line, Written
from pipeline.serve.engine import Engine

MAX_RECORD_BYTES = 64 * 2**20
AT_ONCE = 16  # lines that are under way
RECORDS = "lines.jsonl"


@dataclass
class Outcome:
    """How it went, by the names of the lines."""

    spoken: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def speak_lines(
    lines: Sequence[Line],
    voices: Mapping[str, ServedVoice],
    written: Written,
    settings: WorkerSettings,
    reporter: Reporter,
) -> Outcome:
    """Say the lines that are not there yet. voices: by the names that the lines use.

    Raises:
        NoAccessError: the folder cannot be written to.
    """
    written.folder.mkdir(parents=True, exist_ok=True)
    known = _known(written.folder)
    digests = {line.name: _digest(line, voices[line.voice], written) for line in lines}

    def is_there(line: Line) -> bool:
        return known.get(line.name) == digests[line.name] and all(path.is_file() for path in _paths(line, written))

    wanted = [line for line in lines if not is_there(line)]
    outcome = Outcome(known=sorted(digests.keys() - {line.name for line in wanted}))
    if wanted:
        with (written.folder / RECORDS).open("a", encoding="utf-8") as records:
            found = _spoken(wanted, voices, settings, bool(written.timings))
            for line, sound, said, problem in reporter.track(found, description="lines", total=len(wanted)):
                if problem:
                    outcome.refused[line.name] = problem
                    continue
                outcome.seconds += sound.duration_s
                _write(line, sound, said, written)
                outcome.spoken.append(line.name)
                record = {"name": line.name, "digest": digests[line.name], "seconds": round(sound.duration_s, 3)}
                records.write(json.dumps(record) + "\n")
                records.flush()
    return outcome


@dataclass
class _Sound:
    pieces: list[bytes] = field(default_factory=list)
    rate_hz: int = 0

    @property
    def samples(self) -> Any:
        return np.frombuffer(b"".join(self.pieces), "<i2").astype(np.float32) / 32767

    @property
    def duration_s(self) -> float:
        return sum(map(len, self.pieces)) / 2 / max(1, self.rate_hz)


def _spoken(
    lines: Sequence[Line], voices: Mapping[str, ServedVoice], settings: WorkerSettings, wants_words: bool
) -> Iterator[tuple[Line, _Sound, list[SaidSentence], str]]:
    """Lines as they are done, in no order; why not, where one cannot be said."""
    events: queue.SimpleQueue[tuple[int, str, dict[str, Any], bytes]] = queue.SimpleQueue()
    engine = Engine(settings, lambda *event: events.put(event))
    engine.start()
    waiting = list(enumerate(lines))[::-1]
    under_way: dict[int, tuple[Line, _Sound, list[SaidSentence]]] = {}
    while waiting or under_way:
        while waiting and len(under_way) < AT_ONCE:
            number, line = waiting.pop()
            under_way[number] = (line, _Sound(), [])
            manner = {"seed": line.seed, "speed": line.speed, "language": line.language, "wants_words": wants_words}
            engine.ask(Asked(id=number, voice=voices[line.voice], text=line.text, **manner))
        number, kind, told, sound = events.get()
        line, made, said = under_way[number]
        if kind == "sound":
            made.pieces.append(sound)
            made.rate_hz = told["rate_hz"]
        elif kind == "sentence":
            said.append(SaidSentence.model_validate(told))
            engine.heard(number, said[-1].index + 1)
        else:
            del under_way[number]
            yield line, made, said, told["message"] if kind == "failed" else ""


def _digest(line: Line, voice: ServedVoice, written: Written) -> str:
    told = [asdict(line), voice.version, written.kind, sorted(written.timings)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _known(folder: Path) -> dict[str, str]:
    """What earlier runs wrote; a line that was cut short by a kill counts as nothing."""
    try:
        content = read_regular(folder / RECORDS, MAX_RECORD_BYTES).decode("utf-8", "replace")
    except (FileNotFoundError, NoAccessError):
        return {}
    found = {}
    for one in content.splitlines():
        try:
            record = json.loads(one)
            found[str(record["name"])] = str(record["digest"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _paths(line: Line, written: Written) -> list[Path]:
    return [written.folder / f"{line.name}.{kind}" for kind in (written.kind, *written.timings)]


def _write(line: Line, sound: _Sound, said: Sequence[SaidSentence], written: Written) -> None:
    container = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG"}[written.kind]
    data = encode_audio(sound.samples, sound.rate_hz, container, "VORBIS" if container == "OGG" else "PCM_16")
    write_atomically(written.folder / f"{line.name}.{written.kind}", data)
    for kind in written.timings:
        write_atomically(written.folder / f"{line.name}.{kind}", TIMINGS[kind](line, said).encode())
