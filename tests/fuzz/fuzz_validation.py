"""Feed validation with damaged files: `python tests/fuzz/fuzz_validation.py 10000`, or `make fuzz`.

Mutates real headers and metadata (wav, flac, ogg, mp3, aiff, CSV, YAML) and asks every reader that meets a stranger's bytes.
Each mutant runs under an alarm and an address-space limit. Whatever ends in anything but a clear answer is kept in
`tests/fuzz/found/`, and the ordinary tests try all of those again.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pipeline.errors import PipelineError
from pipeline.io.audio import encode_audio, read_audio, resample
from pipeline.io.metadata import parse_metadata
from pipeline.io.recordings import list_recordings
from pipeline.io.voices import load_manifest
from pipeline.records.settings import ValidateSettings
from pipeline.stages.validate.stage import judge_folder
from pipeline.stages.validate.tools import Terms, Tools

FOUND = Path(__file__).resolve().parent / "found"
ALARM_S = 20  # of processor time: a machine that is busy, or a run that is paused, is no hang
WAITING_S = 600  # by the clock, for what waits and computes nothing
ADDRESS_SPACE = 6 << 30
SETTINGS = ValidateSettings(file_max_bytes=8 << 20, file_max_s=30)
INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)
VOICE = """display_name: Ana
language: en
consent: {speaker: Ana, granted_on: 2026-01-09, scope: [tests], statement: consent.flac}
license: CC0-1.0
validate: {speech_min_s: 60}
"""
TABLE = 'file_name,text,language\nwavs/a.wav,"Hello, ""you"" there.",en\nwavs/b.wav,你好，世界,zh\nwavs/c.wav,こんにちは,ja\n'


SAMPLE = Path(__file__).resolve().parents[2] / "voices" / "sample" / "wavs" / "001.flac"


def speech(seconds: float = 2.0) -> np.ndarray:
    """The beginning of the sample voice, so that mutants get as far as the last rule; 16 kHz, (n,)."""
    audio = read_audio(SAMPLE)
    return resample(audio.mono, audio.sample_rate_hz, 16000)[: int(seconds * 16000)]


def seeds() -> dict[str, bytes]:
    samples = speech()
    stereo = np.stack([samples, -samples])
    made = {
        "a.wav": encode_audio(samples, 16000, "WAV"),
        "b.wav": encode_audio(stereo, 16000, "WAV", "FLOAT"),
        "c.flac": encode_audio(samples, 16000, "FLAC"),
        "d.ogg": encode_audio(samples, 16000, "OGG", "VORBIS"),
        "e.mp3": encode_audio(samples, 16000, "MP3", "MPEG_LAYER_III"),
        "f.aiff": encode_audio(samples, 16000, "AIFF"),
        "metadata.csv": TABLE.encode(),
        "voice.yaml": VOICE.encode(),
    }
    for encoding in ("gb18030", "cp932", "utf-16"):
        made[f"{encoding}.csv"] = TABLE.encode(encoding, "replace")
    return made


def mutate(data: bytes, random_: random.Random) -> bytes:
    """One to four changes, most of them in the first bytes, where headers are."""
    changed = bytearray(data)
    for _ in range(random_.randint(1, 4)):
        if not changed:
            return bytes(changed)
        reach = len(changed) if random_.random() < 0.3 else min(len(changed), 96)
        at = random_.randrange(reach)
        kind = random_.randrange(7)
        if kind == 0:
            changed[at] ^= 1 << random_.randrange(8)
        elif kind == 1:
            changed[at] = random_.randrange(256)
        elif kind == 2:
            value = struct.pack(random_.choice("<>") + "I", random_.choice(INTERESTING))
            changed[at : at + 4] = value
        elif kind == 3:
            del changed[at : at + random_.randrange(1, 64)]
        elif kind == 4:
            changed[at:at] = bytes(random_.randrange(256) for _ in range(random_.randrange(1, 16)))
        elif kind == 5:
            del changed[random_.randrange(len(changed)) :]
        else:
            piece = changed[at : at + random_.randrange(1, 200)]
            changed[at:at] = bytes(piece) * random_.randrange(1, 4)
    return bytes(changed)


def try_one(name: str, data: bytes, folder: Path) -> str:
    """Give one file to its reader; returns what came of it. Anything but a PipelineError is a defect."""
    if name.endswith(".csv"):
        return "rows" if parse_metadata(data, "zh").rows else "no rows"
    if name.endswith(".yaml"):
        (folder / "voice.yaml").write_bytes(data)
        try:
            load_manifest(folder)
        except PipelineError as error:
            return type(error).__name__
        return "manifest"
    for old in folder.iterdir():
        old.unlink()
    (folder / name).write_bytes(data)
    listed = list_recordings(folder, "en")
    report = judge_folder(listed, Terms(SETTINGS, Tools(), "fuzz"), spread=map)  # the alarm ends what is in this thread
    report.model_dump_json()
    return report.verdict


def mutants(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    random_ = random.Random(seed)
    sources = seeds()
    names = sorted(sources)
    for index in range(count):
        name = names[index % len(names)]
        yield name, mutate(sources[name], random_)


def run(count: int, seed: int, keep: Path | None, log: Callable[[str], None] = print) -> int:
    """Try `count` mutants; returns how many ended badly."""
    warnings.simplefilter("ignore")
    outcomes: Counter[str] = Counter()
    bad, slowest = 0, 0.0
    with tempfile.TemporaryDirectory() as scratch:
        for index, (name, data) in enumerate(mutants(count, seed)):
            clock = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, ALARM_S)
            signal.alarm(WAITING_S)
            try:
                outcomes[f"{Path(name).suffix} {try_one(name, data, Path(scratch))}"] += 1
            except BaseException as error:  # noqa: BLE001 - finding these is what it is for
                bad += 1
                outcomes[f"{Path(name).suffix} DEFECT {type(error).__name__}"] += 1
                log(f"mutant {index} of {name}: {traceback.format_exc(limit=-4)}")
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{seed}-{index}-{name}").write_bytes(data)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.alarm(0)
            slowest = max(slowest, time.process_time() - clock)
            if index % 1000 == 999:
                log(f"{index + 1} mutants, {bad} defects, slowest {slowest:.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    log(f"{count} mutants, {bad} defects, slowest {slowest:.2f} s, peak memory {peak:.0f} MB")
    for outcome, number in sorted(outcomes.items()):
        log(f"  {number:6} {outcome}")
    return bad


class Hang(BaseException):
    """A mutant took longer than the alarm allows."""


def _hang(*_: object) -> None:
    raise Hang


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, _hang)
    signal.signal(signal.SIGPROF, _hang)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    sys.exit(1 if run(arguments.count, arguments.seed, FOUND) else 0)
