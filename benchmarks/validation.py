"""How fast validation is, where the time goes, and how much good speech it would turn away.

    OMP_NUM_THREADS=1 python -m benchmarks.validation   # speed and profile, on $VOXLINE_SHARED/data/voices
    python -m benchmarks.validation --refusals # the share of good corpus recordings that are rejected
    python -m benchmarks.validation --rooms    # the table of falls and reverberation times in signal/reverberation.py

Medians of three runs, one thread; results go to benchmarks/results/validation.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.io.audio import Audio, read_audio, resample
from pipeline.io.recordings import Folder, list_recordings
from pipeline.records.clip import Clip
from pipeline.records.settings import ValidateSettings
from pipeline.signal import examine as parts
from pipeline.signal.examine import examine, speech_only
from pipeline.signal.frames import analyse_frames
from pipeline.signal.reverberation import measure_reverberation
from pipeline.stages.validate.stage import judge_folder, one_thread_each
from pipeline.stages.validate.tools import Terms, Tools, load_tools

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("VOXLINE_SHARED", ROOT.parent / "shared"))
RESULTS = ROOT / "benchmarks" / "results"
SETTINGS = ValidateSettings()
MEASURES = (
    "analyse_frames",
    "find_speech",
    "measure_levels",
    "measure_clipping",
    "measure_bandwidth_hz",
    "measure_noise",
    "measure_reverberation",
    "measure_dropouts",
    "measure_voicing",
    "fingerprint",
    "compare_channels",
)


def median_cpu_s(function: Callable[[], Any], rounds: int = 3) -> float:
    """Processor seconds: other programs on the machine stretch the wall clock, not these (much)."""
    times = []
    for _ in range(rounds):
        clock = time.process_time()
        function()
        times.append(time.process_time() - clock)
    return statistics.median(times)


def speed() -> dict[str, Any]:
    folder = SHARED / "data" / "voices" / "en_lj"
    files = sorted((folder / "wavs").glob("*"))
    decoded = [read_audio(path) for path in files]
    seconds = sum(audio.duration_s for audio in decoded)
    tools = load_tools(SETTINGS, Path("nowhere"))
    examine(decoded[0].samples, decoded[0].sample_rate_hz, 0.8, tools.silero)
    listed = list_recordings(folder, "en")

    def whole(asked: Any) -> Callable[[], Any]:
        return lambda: judge_folder(listed, Terms(SETTINGS, asked), spread=map)

    seen = [examine(audio.samples, audio.sample_rate_hz, 0.8, tools.silero) for audio in decoded]
    with one_thread_each():
        results = {
            "decode": median_cpu_s(lambda: [read_audio(path) for path in files]),
            "examine": median_cpu_s(lambda: examine_all(decoded, tools)),
            "all but DNSMOS, embeddings": median_cpu_s(whole(replace(tools, opinion=None, embed=None))),
            "the same without text check": median_cpu_s(
                whole(replace(tools, opinion=None, embed=None, recognise=None))
            ),
            "silero": median_cpu_s(lambda: [tools.silero(one.frames.samples) for one in seen]),
            "text by acoustic model": median_cpu_s(lambda: [tools.recognise(one.frames.power) for one in seen]),
            "speaker embeddings": median_cpu_s(lambda: [tools.embed(speech_only(one)) for one in seen]),
            "dnsmos": median_cpu_s(lambda: [tools.opinion(one.frames.samples) for one in seen], 1),
        }
        clock = time.perf_counter()
        whole(tools)()
        wall_s = time.perf_counter() - clock
    print(f"{seconds:.0f} s of speech, {len(files)} recordings; processor time, medians of 3:")
    for name, cpu_s in results.items():
        print(f"  {name:28} {cpu_s:7.3f} s  {seconds / cpu_s:8.0f} x real time")
    print(f"  whole validation, one worker, wall clock {wall_s:.2f} s")
    shares = profile(decoded, tools)
    for name, share in shares.items():
        print(f"  {share:6.1%} of examine: {name}")
    return {"speech_s": seconds, "cpu_s": results, "wall_one_worker_s": wall_s, "profile": shares}


def examine_all(decoded: list[Audio], tools: Tools) -> None:
    for audio in decoded:
        examine(audio.samples, audio.sample_rate_hz, 0.8, tools.silero)


def profile(decoded: list[Audio], tools: Tools) -> dict[str, float]:
    """Share of `examine` that each measure takes."""
    spent: Counter[str] = Counter()
    kept = {name: getattr(parts, name) for name in MEASURES}

    def timed(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            clock = time.process_time()
            try:
                return kept[name](*arguments)
            finally:
                spent[name] += time.process_time() - clock

        return call

    for name in MEASURES:
        setattr(parts, name, timed(name))
    clock = time.process_time()
    examine_all(decoded, tools)
    total = time.process_time() - clock
    for name, function in kept.items():
        setattr(parts, name, function)
    spent["resampling and the rest"] = total - sum(spent.values())
    return {name: round(cpu_s / total, 4) for name, cpu_s in spent.most_common()}


def refusals() -> dict[str, Any]:
    """Every corpus recording judged as part of its speaker's voice, DNSMOS left out."""
    corpus = SHARED / "data" / "corpus"
    speakers: dict[str, list[Clip]] = defaultdict(list)
    with (corpus / "manifest.csv").open(encoding="utf-8") as stream:
        for line in csv.DictReader(stream, delimiter="|", quoting=csv.QUOTE_NONE):
            clip = Clip(file_name=line["file"], text=line["text"] or None, language=line["language"])
            speakers[line["speaker"]].append(clip)
    tools = replace(load_tools(SETTINGS, Path("nowhere")), opinion=None)
    codes: Counter[str] = Counter()
    recordings = rejected = refused = long_enough = 0
    for speaker, clips in sorted(speakers.items()):
        folder = Folder(corpus, tuple(clips))
        report = judge_folder(folder, Terms(SETTINGS, tools, speaker), spread=map)
        recordings += len(clips)
        bad = [result for result in report.clips if result.verdict == "reject"]
        rejected += len(bad)
        codes.update(
            f"{f.code} {r.clip.file_name} {f.value}" for r in bad for f in r.findings if f.severity == "reject"
        )
        if report.speech_found_s >= SETTINGS.speech_min_s:
            long_enough += 1
            refused += not report.accepted
            print(f"  {speaker:8} {report.speech_found_s:7.1f} s  accepted {report.accepted}  {report.reasons}")
    print(f"{rejected} of {recordings} recordings rejected, {refused} of {long_enough} voices with a minute refused")
    for code, _ in codes.most_common():
        print(f"  {code}")
    return {
        "recordings": recordings,
        "rejected": rejected,
        "voices": long_enough,
        "refused": refused,
        "why": sorted(codes),
    }


def rooms() -> dict[str, Any]:
    """Falls over 80 ms of dry voices in synthetic rooms of decaying noise, at two direct-to-reverberant ratios."""
    random = np.random.default_rng(0)
    voices = sorted((SHARED / "data" / "voices").glob("en_*"))
    table: dict[str, float] = {}
    for rt60_s in (0.0, 0.2, 0.4, 0.6, 0.9, 1.5, 2.0):
        falls = []
        for voice in voices:
            audio = read_audio(sorted((voice / "wavs").glob("*"))[0])
            dry = resample(audio.mono, audio.sample_rate_hz, 16000)
            falls += [measure_reverberation(analyse_frames(in_room(dry, rt60_s, db, random))).fall_db for db in (0, 12)]
        table[str(rt60_s)] = round(statistics.median(falls), 2)
        print(f"  RT60 {rt60_s:.1f} s: fall {table[str(rt60_s)]:.1f} dB")
    return {"fall_db_by_rt60_s": table}


def in_room(dry: np.ndarray, rt60_s: float, wet_db: float, random: np.random.Generator) -> np.ndarray:
    if rt60_s == 0:
        return dry
    size = int(rt60_s * 16000)
    tail = random.standard_normal(size) * 10 ** (-3 * np.arange(size) / size)
    tail *= 10 ** (wet_db / 20) / np.sqrt(np.sum(tail**2))
    tail[0] += 1
    length = 1 << int(np.ceil(np.log2(len(dry) + size)))
    wet = np.fft.irfft(np.fft.rfft(dry, length) * np.fft.rfft(tail, length))[: len(dry)]
    return (0.5 * wet / np.abs(wet).max()).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refusals", action="store_true")
    parser.add_argument("--rooms", action="store_true")
    arguments = parser.parse_args()
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}"
    )
    print(machine)
    name, measure = (
        ("refusals", refusals) if arguments.refusals else ("rooms", rooms) if arguments.rooms else ("speed", speed)
    )
    path = RESULTS / "validation.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    found[name] = {"machine": machine, **measure()}
    RESULTS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
