"""How long a person waits: help, a run with nothing to do, the demo, validation of ten minutes.

    python benchmarks/line.py                 everything
    python benchmarks/line.py --only help again

Prints medians beside their goals and writes benchmarks/results/line.json. Figures of a machine that others use at the
same time are too high; `processor` (seconds of all threads) is less disturbed.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from report import REPOSITORY, Measurement, show, write

VOICE = "sample"
TEN_MINUTES_S = 600.0


def voxline(root: Path, *arguments: str) -> int:
    command = [sys.executable, "-m", "pipeline.cli.main", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.run(command, cwd=root, env=environment, check=False, **quiet).returncode


def timed(work: Callable[[], object], repeats: int, warm_ups: int = 1) -> tuple[float, dict[str, Any]]:
    """Median wall time of a child process, and the median of its processor time."""
    for _ in range(warm_ups):
        work()
    times, processor = [], []
    for _ in range(repeats):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        work()
        times.append(round(time.perf_counter() - started, 3))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return statistics.median(times), {"times_s": times, "processor_s": round(statistics.median(processor), 3)}


def measure_help(root: Path, repeats: int) -> Measurement:
    value, detail = timed(lambda: voxline(root, "--help"), repeats)
    return Measurement("voxline --help", round(value, 3), "s", goal="<= 0.25 s", detail=detail)


def measure_demo(root: Path, repeats: int) -> Measurement:
    """The line on the sample voice with nothing done yet, as after an installation."""

    def fresh() -> None:
        shutil.rmtree(root / "work", ignore_errors=True)
        shutil.rmtree(root / "registry", ignore_errors=True)
        voxline(root, "run", VOICE)

    value, detail = timed(fresh, repeats, warm_ups=0)
    return Measurement("the line on the sample voice", round(value, 1), "s", goal="<= 120 s", detail=detail)


def measure_again(root: Path, repeats: int) -> Measurement:
    voxline(root, "run", VOICE)
    value, detail = timed(lambda: voxline(root, "run", VOICE), repeats)
    return Measurement("a second identical voxline run", round(value, 3), "s", goal="<= 1.5 s", detail=detail)


def measure_validation(root: Path, repeats: int) -> Measurement:
    """The sample voice again and again, each time cut and quieter, so that nothing is a duplicate, to ten minutes."""
    folder = root / "voices" / "long"
    write_long_voice(root / "voices" / VOICE, folder)

    def fresh() -> None:
        shutil.rmtree(root / "work" / "long", ignore_errors=True)
        voxline(root, "run", "long", "--until", "validate")

    value, detail = timed(fresh, repeats, warm_ups=0)
    return Measurement("validation of 10 minutes", round(value, 1), "s", goal="<= 10 s", detail=detail)


def write_long_voice(source: Path, folder: Path) -> None:
    from pipeline.io.audio import read_audio, write_audio

    (folder / "wavs").mkdir(parents=True)
    shutil.copy(source / "voice.yaml", folder / "voice.yaml")
    header, *lines = (source / "metadata.csv").read_text(encoding="utf-8").splitlines()
    written, seconds, number = [header], 0.0, 0
    while seconds < TEN_MINUTES_S:
        recording, _, text = lines[number % len(lines)].partition(",")
        audio = read_audio(source / recording)
        name = f"wavs/{number:04d}.flac"
        shift = 1 + 37 * (number // len(lines))  # samples dropped, so that no two files are the same recording
        write_audio(folder / name, audio.mono[shift:] * (0.97 ** (number // len(lines))), audio.sample_rate_hz)
        written.append(f"{name},{text}")
        seconds += audio.duration_s
        number += 1
    (folder / "metadata.csv").write_text("\n".join(written) + "\n", encoding="utf-8")


MEASURES: dict[str, tuple[Callable[[Path, int], Measurement], int]] = {
    "help": (measure_help, 9),
    "demo": (measure_demo, 1),
    "again": (measure_again, 9),
    "validation": (measure_validation, 3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(MEASURES), default=list(MEASURES))
    parser.add_argument("--repeats", type=int, default=0, help="instead of each measure's own number")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "pipeline.toml").write_text("")
        shutil.copytree(REPOSITORY / "voices" / VOICE, root / "voices" / VOICE)
        found = [
            MEASURES[name][0](root, chosen.repeats or MEASURES[name][1]) for name in MEASURES if name in chosen.only
        ]
    warning = "" if os.getloadavg()[0] < 1.5 else "measured while other work ran on this machine: too high"
    print(show("the line", found))
    if warning:
        print(warning)
    print(write("line", {measurement.name: [measurement] for measurement in found}, warning))


if __name__ == "__main__":
    main()
