"""How soon and how much a server speaks: users in a closed loop over 1, 8 and 64 voices, beside the way of upstream.

    .venv/bin/voxline run sample --registry file:registry
    .venv/bin/python benchmarks/serve.py --registry file:registry --voice sample

Copies a published voice to many names in a temporary registry, so that every name is a voice of its own to the server,
starts `voxline serve` there and asks it over HTTP. Upstream's way, one voice at a time with its weights swapped in for
every request, speaks the same sentences with the same weights in this process, before and after. Prints rows, writes
JSON with the load of the machine: figures of a busy machine are only good for ratios within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # models.py beside this file would hide the package `models`

import httpx  # noqa: E402

from pipeline.io.registry.registry import Registry, open_registry  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "serve.json"
REPOSITORY = Path(__file__).resolve().parent.parent
SENTENCES = (
    "The morning train to the coast leaves at seven today.",
    "Please keep your luggage with you at all times here.",
    "A light rain is expected in the hills this evening.",
    "Nobody could say where the old map had gone since.",
)
RATE_HZ = 24_000  # of pcm


@dataclass(frozen=True)
class Row:
    """One setting. Seconds; audio_s_per_s: seconds of speech made in a second."""

    way: str
    users: int
    voices: int
    answers: int
    first_p50_s: float
    first_p95_s: float
    audio_s_per_s: float


def copy_voice(source: Registry, voice: str, target: Registry, count: int) -> list[str]:
    """The same release under many names."""
    release, folder = source.verified(voice)
    files = {name: folder / name for name in release.files}
    names = [f"voice-{number:04}" for number in range(count)]
    for name in names:
        target.publish(name, release.model_copy(update={"voice": name, "signature": None}), files, actor="benchmark")
    return names


class Server:
    """`voxline serve` in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "pipeline.toml").write_text("[serve]\nport = 0\nqueue = 256\nadapter_mb = 1024\n")
        log = (root / "log").open("wb")
        command = [sys.executable, "-m", "pipeline.cli.main", "serve"]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "VOXLINE_CACHE": str(root / "cache")}
        clock = time.monotonic()
        self.process = subprocess.Popen(command, cwd=root, stdout=log, stderr=log, env=environment)
        while not (found := re.search(r"http://\S+", (root / "log").read_text())):
            time.sleep(0.02)
        self.url = found[0]
        while httpx.get(f"{self.url}/readyz").status_code != 200:
            time.sleep(0.02)
        self.ready_s = time.monotonic() - clock

    def metric(self, name: str) -> float:
        return float(re.search(rf"^voxline_{name} (\S+)", httpx.get(f"{self.url}/metrics").text, re.M)[1])

    def resident_mb(self) -> float:
        """Of the worker."""
        worker = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=True)
        status = Path(f"/proc/{worker.stdout.split()[0]}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


async def closed_loop(url: str, users: int, voices: list[str], seconds: float) -> Row:
    """Every user asks again as soon as it was answered; voices take turns."""
    first, made, turn = list[float](), [0.0], [0]
    end = time.monotonic() + seconds

    async def user(client: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            turn[0] += 1
            number = turn[0]
            body = {"voice": voices[number % len(voices)], "input": SENTENCES[number % len(SENTENCES)], "seed": number}
            clock, size = time.monotonic(), 0
            async with client.stream(
                "POST", f"{url}/v1/audio/speech", json={**body, "response_format": "pcm"}
            ) as answer:
                answer.raise_for_status()
                async for piece in answer.aiter_raw():
                    if not size:
                        first.append(time.monotonic() - clock)
                    size += len(piece)
            made[0] += size / 2 / RATE_HZ

    began = time.monotonic()
    async with httpx.AsyncClient(timeout=300) as client:
        await asyncio.gather(*(user(client) for _ in range(users)))
    rate = made[0] / (time.monotonic() - began)
    return Row("voxline serve", users, len(voices), len(first), *_quantiles(first), round(rate, 3))


def _quantiles(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return round(statistics.median(ordered), 3), round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 3)


def soak(server: Server, voices: list[str], seconds: float) -> list[float]:
    """Memory of the worker, ten times while four users speak with all voices."""
    found = []
    for _ in range(10):
        asyncio.run(closed_loop(server.url, 4, voices, seconds / 10))
        found.append(round(server.resident_mb(), 1))
        print(f"soak: {found[-1]} MB", flush=True)
    return found


def upstreams_way(registry: Registry, voices: list[str], requests: int) -> Row:
    """One voice at a time: the base, the voice's weights merged into it, then the sentence; on all cores."""
    import torch

    from models.loading.bases import find_base
    from models.loading.voices import AdapterFolders, load_voice
    from models.speaking.voice import Manner
    from pipeline.jobs.speak import read_reference, read_sentences

    release, folder = registry.verified(voices[0])
    base = find_base(release.base, REPOSITORY / "bases", ())
    reference = read_reference(folder / "reference", base.text.symbols)
    adapters = AdapterFolders.inside(folder / "adapter")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    first, made, began = [], 0.0, time.monotonic()
    for number in range(requests):
        clock = time.monotonic()
        voice = load_voice(base, folder, torch.device("cpu"), adapters)
        sentences, _ = read_sentences(SENTENCES[number % len(SENTENCES)], "en", base.text.symbols)
        speech = voice.speak(sentences, reference, Manner(number))
        first.append(time.monotonic() - clock)
        made += len(speech.wave) / speech.sample_rate_hz
    rate = made / (time.monotonic() - began)
    return Row("swapped for every request", 1, len(voices), requests, *_quantiles(first), round(rate, 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--registry", default="file:registry")
    parser.add_argument("--voice", default="sample")
    parser.add_argument("--seconds", type=float, default=20, help="of each setting")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 4, 16, 32])
    parser.add_argument("--voices", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--swaps", type=int, default=8, help="requests in upstream's way, before and after")
    parser.add_argument(
        "--registered", type=int, default=0, help="voices that are published besides and never asked for"
    )
    parser.add_argument("--soak", type=float, default=0, help="seconds of four users over all voices, memory noted")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="voxline-serve-"))
    try:
        source, target = open_registry(given.registry, root=Path.cwd()), open_registry("file:registry", root=root)
        count = max(given.voices)
        names = copy_voice(source, given.voice, target, count + given.registered)[:count]
        load_before = os.getloadavg()
        rows = [upstreams_way(target, names[:8], given.swaps)]
        server = Server(root)
        told = {"ready_s": round(server.ready_s, 2), "worker_mb_begun": round(server.resident_mb(), 1)}
        for users in given.users:
            for voices in given.voices:
                rows.append(asyncio.run(closed_loop(server.url, users, names[:voices], given.seconds)))
                print(rows[-1], flush=True)
        if given.soak:
            told["soak_mb"] = soak(server, names, given.soak)
        told |= {
            "registered": count + given.registered,
            "worker_mb_ended": round(server.resident_mb(), 1),
            "resident_voices": server.metric("resident_voices"),
            "mb_per_voice": round(server.metric("resident_bytes") / 2**20 / server.metric("resident_voices"), 3),
        }
        server.stop()
        rows.append(upstreams_way(target, names[:8], given.swaps))
        print(rows[0], rows[-1], told, sep="\n")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    machine = {
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load": [load_before, os.getloadavg()],
    }
    base = source.resolve(given.voice).base
    found = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "base": base, **machine, **told}
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps({**found, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
