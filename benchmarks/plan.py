"""How long `voxline plan` takes over 2,000 published voices of which one was changed. Target: at most 2 s.

    python benchmarks/plan.py [--voices 2000] [--repeats 5]

Makes a repository and a registry in a temporary folder, then times the command as a user calls it, with its own
start-up. "cold" remembers nothing, as on a fresh CI runner; "warm" is the second call.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # models.py beside this file would hide the package `models`

from pipeline.config import resolve  # noqa: E402
from pipeline.io.git import find_repository  # noqa: E402
from pipeline.io.registry.registry import open_registry  # noqa: E402
from pipeline.io.voices import content_digest  # noqa: E402
from pipeline.records.release import Provenance, Release, recipe_digest, release_version  # noqa: E402
from pipeline.records.voice import Consent  # noqa: E402
from pipeline.stages.plan import load_known_base  # noqa: E402

BASE = "gpt-sovits-v2"
RESULTS = Path(__file__).parent / "results" / "plan.json"


def make_voices(root: Path, count: int) -> None:
    for number in range(count):
        folder = root / "voices" / f"voice-{number:04d}"
        (folder / "wavs").mkdir(parents=True)
        (folder / "voice.yaml").write_text(
            f"display_name: Voice {number}\nlanguage: en\nbase: {BASE}\n"
            "consent:\n  speaker: Somebody\n  granted_on: 2026-01-09\nlicense: CC-BY-4.0\n"
        )
        (folder / "metadata.csv").write_text(
            "file_name,text\n" + "".join(f"wavs/{clip}.wav,text {clip}\n" for clip in range(8))
        )
        for clip in range(8):
            (folder / "wavs" / f"{clip}.wav").write_bytes(struct.pack("<II", number, clip) * 64)


def commit(root: Path, message: str) -> str:
    git = ["git", "-c", "user.name=bench", "-c", "user.email=bench@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run([*git, "add", "-A"], cwd=root, check=True)
    subprocess.run([*git, "commit", "-q", "-m", message], cwd=root, check=True)
    return subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=root, text=True).strip()


def publish_all(root: Path, revision: str) -> float:
    """Publish every voice through the registry's own API; returns seconds."""
    registry = open_registry("file:registry", root=root)
    settings = resolve(root=root, environment={}, flags={"voxline.base": BASE}).settings
    base, recipe = load_known_base(BASE, root, settings.voxline).digest, recipe_digest(settings)
    repository = find_repository(root)
    assert repository is not None
    trees = repository.folders(revision, "voices")
    weights = root / "adapter_model.safetensors"
    weights.write_bytes(struct.pack("<Q", 2) + b"{}")
    started = time.perf_counter()
    for name, tree in trees.items():
        content = content_digest(root / "voices" / name)
        release = Release(
            voice=name,
            version=release_version(content, base, recipe),
            created_at=datetime.now(UTC),
            base=BASE,
            content_digest=content,
            base_digest=base,
            recipe_digest=recipe,
            language="en",
            license="CC-BY-4.0",
            consent=Consent(speaker="Somebody", granted_on=date(2026, 1, 9)),
            provenance=Provenance(git_revision=revision, git_tree=tree),
        )
        registry.publish(name, release, {"adapter/synthesizer/adapter_model.safetensors": weights}, actor="bench")
    weights.unlink()
    return time.perf_counter() - started


def timed_plan(root: Path, arguments: list[str]) -> tuple[float, dict[str, int]]:
    started = time.perf_counter()
    command = [str(Path(sys.executable).with_name("voxline")), "plan", "--json", *arguments]
    done = subprocess.run(
        command,
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "VOXLINE_BASE": BASE, "XDG_CACHE_HOME": str(root / ".git" / "cache")},
    )
    seconds = time.perf_counter() - started
    actions = [entry["action"] for entry in json.loads(done.stdout)["entries"]]
    return seconds, {action: actions.count(action) for action in sorted(set(actions))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voices", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        subprocess.run(["git", "init", "-q", "-b", "main"], cwd=root, check=True)
        (root / ".gitignore").write_text("/work/\n/registry/\n")
        make_voices(root, options.voices)
        before = commit(root, "voices")
        publishing_s = publish_all(root, before)
        (root / "voices" / "voice-0007" / "wavs" / "0.wav").write_bytes(b"new take" * 64)
        commit(root, "one changed")
        results: dict[str, object] = {}
        cases = {"base and head": ["--base", before], "first push": ["--base", "0" * 40], "worktree": ["--worktree"]}
        for case, arguments in cases.items():
            for state in ("cold", "warm"):
                times, actions = [], {}
                for _ in range(options.repeats):
                    if state == "cold":
                        shutil.rmtree(root / ".git" / "cache", ignore_errors=True)
                    seconds, actions = timed_plan(root, arguments)
                    times.append(seconds)
                assert actions == {"skip": options.voices - 1, "train": 1}, actions
                results[f"{case}, {state}"] = round(statistics.median(times), 3)
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "git": subprocess.check_output(["git", "--version"], text=True).split()[-1],
        "voices": options.voices,
        "repeats": options.repeats,
        "median_s": results,
        "publishing_s_per_voice": round(publishing_s / options.voices, 4),
        "target_s": 2.0,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
