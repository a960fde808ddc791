"""How long it takes to check a release before it is used: a signed voice of nano's size, and one of GPT-SoVITS's.

    .venv/bin/python benchmarks/trust.py

Publishes to a signed registry in a temporary folder and asks for the release as ``say`` does: in a new process each
time, with nothing remembered (cold) and with the digests of the last time (warm). Prints medians, writes JSON.
Each is given on the clock and in time of the processor, which a busy machine changes less; its load is written down.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # models.py beside this file would hide the package `models`

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from pipeline.io.registry.registry import open_registry  # noqa: E402
from pipeline.io.registry.trust import Trust  # noqa: E402
from pipeline.io.signing import Signer, new_secret  # noqa: E402
from pipeline.records.release import Release, release_version  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "trust.json"
ADAPTERS_MB = {"nano": 0.3, "gpt-sovits": 60.0}
BELOW = ("adapter", "reference")

ASK = """
import sys, time
from pathlib import Path
from pipeline.io.registry.registry import open_registry
from pipeline.io.memory import Memory
from pipeline.io.registry.trust import Trust
root, key, remembers = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "yes"
memories = (Memory(root / "digests.json"), Memory(root / "seen.json")) if remembers else (None, None)
registry = open_registry("file:registry", root=root, trust=Trust(frozenset({key}), None, *memories))
started, used = time.perf_counter(), time.process_time()
if sys.argv[4] == "yes":
    registry.verified("ana", below=("adapter", "reference"))
else:
    registry.resolve("ana")
print(time.perf_counter() - started, time.process_time() - used)
"""


def publish(root: Path, signer: Signer, adapter_mb: float) -> None:
    """One voice with ten moves behind it."""
    trust = Trust(frozenset({signer.public_key}), signer)
    registry = open_registry("file:registry", root=root, trust=trust)
    half = int(adapter_mb * 1e6 / 2 / 4)
    for part in ("text2semantic", "synthesizer"):
        save_file({"lora": torch.randn(half)}, root / f"{part}.safetensors")
    (root / "reference.flac").write_bytes(bytes(300_000))
    (root / "report.html").write_bytes(bytes(3_000_000))
    files = {
        "adapter/text2semantic/adapter_model.safetensors": root / "text2semantic.safetensors",
        "adapter/synthesizer/adapter_model.safetensors": root / "synthesizer.safetensors",
        "reference/reference.flac": root / "reference.flac",
        "report/index.html": root / "report.html",
    }
    for take in range(5):
        content = f"{take:064x}"
        release = Release(
            voice="ana",
            version=release_version(content, "b" * 64, "c" * 64),
            created_at=datetime.now(UTC),
            base="nano",
            content_digest=content,
            base_digest="b" * 64,
            recipe_digest="c" * 64,
            language="en",
            license="CC-BY-4.0",
            consent={"speaker": "Somebody", "granted_on": "2026-01-09"},
        )
        for channel in ("candidate", "production"):
            registry.publish("ana", release, files, channel=channel, actor="bench")


def ask(root: Path, key: str, *, remembers: bool, checks: bool = True) -> tuple[float, float]:
    """Milliseconds of one question in a process of its own: on the clock, and of the processor."""
    told = ["yes" if remembers else "no", "yes" if checks else "no"]
    command = [sys.executable, "-c", ASK, str(root), key, *told]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=sys.path[0])
    wall_s, processor_s = map(float, done.stdout.split())
    return wall_s * 1000, processor_s * 1000


def measure(adapter_mb: float, repeats: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        root, signer = Path(folder), Signer(new_secret(), "the benchmark")
        publish(root, signer, adapter_mb)
        time.sleep(2.5)  # younger files are not remembered
        key = signer.public_key
        plain = [ask(root, key, remembers=False, checks=False) for _ in range(repeats)]
        cold = [ask(root, key, remembers=False) for _ in range(repeats)]
        ask(root, key, remembers=True)
        warm = [ask(root, key, remembers=True) for _ in range(repeats)]
        told = {}
        for name, rows in (("unchecked", plain), ("cold", cold), ("warm", warm)):
            wall, used = zip(*rows, strict=True)
            told |= {
                f"{name}_ms": round(statistics.median(wall), 2),
                f"{name}_cpu_ms": round(statistics.median(used), 2),
            }
        return told


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    result = {"machine": processor(), "python": platform.python_version(), "load": round(os.getloadavg()[0], 1)}
    for name, size in ADAPTERS_MB.items():
        result[name] = {"adapters_mb": size, **measure(size, options.repeats)}
        print(f"{name}, {size} MB of adapters: {result[name]}")
    print(f"machine: {result['machine']}, medians of {options.repeats}")
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
