"""How long a registry of 5,000 voices with 10 releases each takes on another machine. Target of a list: at most 3 s.

    .venv/bin/python benchmarks/registry.py [--voices 5000] [--kinds git,s3,hf] [--repeats 3]

Git over HTTP, moto's S3, and the tests' double of the Hub on this machine, behind a proxy that holds each request back
by 0, 1 and 50 ms. Heads are written there directly, with an index; then a list (whole command's reading, nothing
remembered), a list after 16 rollbacks, a publishing, a rollback and a first use are measured through the registry's own
door. Requests are counted beside. Medians; writes JSON. The figures are those of the server on this machine, too.
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
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # models.py beside this file would hide the package `models`
sys.path.append(str(HERE.parent / "tests" / "helpers"))

from places import FAULTY, Elsewhere  # noqa: E402

from pipeline.io.registry.events import Mover  # noqa: E402
from pipeline.io.registry.listing import Index, IndexEntry, state_of  # noqa: E402
from pipeline.io.registry.registry import open_registry  # noqa: E402
from pipeline.io.registry.remote import Head  # noqa: E402
from pipeline.io.registry.shelf import INDEX_KEY, dumped  # noqa: E402
from pipeline.records.release import Release, release_version  # noqa: E402
from pipeline.records.voice import Consent  # noqa: E402

RESULTS = HERE / "results" / "registry.json"
RELEASES = 10
LATENCIES_S = (0.0, 0.001, 0.05)
TEMPLATE = "voice-0000"
FILES = 8


def release_of(voice: str, take: int) -> Release:
    content = f"{take:064x}"
    return Release(
        voice=voice,
        version=release_version(content, "b" * 64, "c" * 64),
        created_at=datetime.now(UTC),
        base="nano",
        content_digest=content,
        base_digest="b" * 64,
        recipe_digest="c" * 64,
        language="en",
        license="CC-BY-4.0",
        consent=Consent(speaker="Somebody", granted_on=date(2026, 1, 9)),
        metrics={f"free_speech.m{number}": 0.5 for number in range(20)},
    )


def files_in(folder: Path) -> dict[str, Path]:
    weights = folder / "adapter_model.safetensors"
    header = b'{"x":{"dtype":"U8","shape":[20000],"data_offsets":[0,20000]}}'
    weights.write_bytes(struct.pack("<Q", len(header)) + header + bytes(20_000))
    return {f"adapter/part-{number}/adapter_model.safetensors": weights for number in range(FILES)}


def template(folder: Path) -> tuple[dict[str, str], IndexEntry]:
    """The records of one voice with all its releases, as a head holds them, and its entry in the index."""
    registry = open_registry("file:template", root=folder)
    for take in range(RELEASES):
        registry.publish(TEMPLATE, release_of(TEMPLATE, take), files_in(folder), actor="bench")
    root = folder / "template" / TEMPLATE
    records = {
        path.relative_to(root).as_posix(): path.read_text()
        for pattern in ("releases/*/release.json", "channels/*", "events/*")
        for path in root.glob(pattern)
    }
    state = state_of(registry._channels, TEMPLATE)
    versions = tuple(sorted(state.versions))
    return records, IndexEntry(tag="", production=state.production, candidate=None, versions=versions)


def renamed(text: str, voice: str) -> str:
    return text.replace(TEMPLATE, voice)


def fill(place: Elsewhere, folder: Path, count: int) -> None:
    """Heads of many voices, and an index of them. The chains of all but the first do not fit; nothing here asks."""
    records, entry = template(folder)
    places = {name.split("/")[1]: "0" * 40 for name in records if name.startswith("releases/")}
    heads = {}
    for number in range(count):
        voice = f"voice-{number:04d}"
        own = {name: renamed(text, voice) for name, text in records.items()}
        heads[voice] = (Head(voice=voice, records=own, places=places).model_dump_json() + "\n").encode()
    {"git": fill_git, "s3": fill_bucket, "hf": fill_hub}[place.kind](place, heads)
    registry = place.open()
    tags = registry.backend.tags() or {}
    assert len(tags) == count, (len(tags), count)
    told = entry.model_dump_json()
    entries = {
        voice: IndexEntry.model_validate_json(renamed(told, voice)).model_copy(update={"tag": tag})
        for voice, tag in tags.items()
    }
    assert registry._shelf.swap(INDEX_KEY, Index(voices=entries), None)
    print(f"{place.kind}: {count} voices, index {len(dumped(Index(voices=entries))) / 1e6:.1f} MB", flush=True)


def fill_git(place: Elsewhere, heads: dict[str, bytes]) -> None:
    bare = place.home / "served" / "voices.git"
    with subprocess.Popen(["git", "-C", bare, "fast-import", "--quiet"], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for voice, head in heads.items():
            process.stdin.write(
                f"commit refs/voxline/{voice}/head\ncommitter x <x@example.org> 0 +0000\ndata 0\n"
                f"M 100644 inline head.json\ndata {len(head)}\n".encode()
                + head
                + b"\n"
            )
    refs = subprocess.check_output(["git", "-C", bare, "for-each-ref", "--format=%(objectname) %(refname)"], text=True)
    lines = [
        f"{commit} {ref.removesuffix('head')}releases/{take:012x}\n"
        for commit, ref in (line.split() for line in refs.splitlines())
        for take in range(RELEASES)
    ]
    lines += [f"{line}\n" for line in refs.splitlines()]
    told = "# pack-refs with: peeled fully-peeled sorted \n"
    (bare / "packed-refs").write_text(told + "".join(sorted(lines, key=lambda line: line.split()[1])))
    shutil.rmtree(bare / "refs" / "voxline")


def fill_bucket(place: Elsewhere, heads: dict[str, bytes]) -> None:
    store = place.open().backend.place
    for voice, head in heads.items():
        store._put_if(f"heads/{voice}.json", head, None)


def fill_hub(place: Elsewhere, heads: dict[str, bytes]) -> None:
    from hub_server import Repository

    for voice, head in heads.items():
        kept = Repository(private=True)
        kept.commit({"head.json": head, "README.md": b"---\ntags: [voxline]\n---\n"})
        place.server.repositories[f"us/{voice}"] = kept


def measured(place: Elsewhere, act: Callable[[], object]) -> tuple[float, int]:
    place.faults.begin()
    started = time.perf_counter()
    act()
    return time.perf_counter() - started, len(place.faults.requests)


def measure(place: Elsewhere, folder: Path, repeats: int) -> dict[str, dict[str, float]]:
    told: dict[str, dict[str, float]] = {}
    files, mover = files_in(folder), Mover("bench")
    writer = place.open()
    take = 0
    for latency_s in LATENCIES_S:
        place.faults.latency_s = latency_s
        found: dict[str, list[tuple[float, int]]] = {}
        for _ in range(repeats):
            take += 2
            voice = f"bench-{take}"
            writer.publish(voice, release_of(voice, 0), files, actor="bench")
            acts: dict[str, Callable[[], object]] = {
                "list": lambda: place.open().states(),
                "publish": partial(writer.publish, voice, release_of(voice, 1), files, actor="bench"),
                "rollback": partial(writer.rollback, voice, None, mover),
                "use": partial(place.open().verified, voice),
            }
            for name, act in acts.items():
                found.setdefault(name, []).append(measured(place, act))
        told[f"{latency_s * 1000:.0f} ms"] = {
            f"{name}_{unit}": round(statistics.median(values), 3) if unit == "s" else statistics.median(values)
            for name, rows in found.items()
            for unit, values in zip(("s", "requests"), zip(*rows, strict=True), strict=True)
        }
        print(place.kind, f"{latency_s * 1000:.0f} ms", told[f"{latency_s * 1000:.0f} ms"], flush=True)
    place.faults.latency_s = 0.0
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voices", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kinds", default="git,s3,hf")
    options = parser.parse_args()
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": round(os.getloadavg()[0], 1)}
    result = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for kind in options.kinds.split(","):
        with tempfile.TemporaryDirectory() as folder, FAULTY[kind](Path(folder)) as place:
            fill(place, Path(folder), options.voices)
            told = measure(place, Path(folder), options.repeats)
        result[kind] = {"machine": machine, "voices": options.voices, "releases": RELEASES, "files": FILES, **told}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
