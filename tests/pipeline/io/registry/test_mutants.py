"""A thousand damaged registries: each damage is named, nothing hangs, and nothing but what was published is believed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from releases import BASE_DIGEST, CONTENTS, OURS, RECIPE_DIGEST, THEIRS, trusting, version_of

from pipeline.errors import PipelineError
from pipeline.io.registry.events import Mover
from pipeline.io.registry.registry import open_registry
from pipeline.records.base import Record
from pipeline.records.release import ChannelPointer, Event, Refusal, Release

pytestmark = pytest.mark.slow

MUTANTS = 500  # of a signed registry, and as many of one that is not
LIMIT_S = 5.0

Mutate = Callable[[random.Random, Path, Path], None]


def at_random(content: Any, chance: random.Random) -> tuple[Any, Any]:
    """A table or list somewhere inside, and one of its keys."""
    place = content
    while True:
        key = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or chance.random() < 0.3:
            return place, key
        place = place[key]


def in_json(change: Callable[[random.Random, Any, Any], None]) -> Mutate:
    def mutate(chance: random.Random, path: Path, other: Path) -> None:
        content = json.loads(path.read_bytes())
        change(chance, *at_random(content, chance))
        path.write_text(json.dumps(content))

    return mutate


def put(value: Callable[[random.Random], Any]) -> Mutate:
    return in_json(lambda chance, place, key: place.__setitem__(key, value(chance)))


def in_bytes(change: Callable[[random.Random, bytearray], bytes | bytearray]) -> Mutate:
    def mutate(chance: random.Random, path: Path, other: Path) -> None:
        path.write_bytes(change(chance, bytearray(path.read_bytes())))

    return mutate


def flip_bits(chance: random.Random, data: bytearray) -> bytearray:
    for _ in range(chance.randint(1, 3)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def swap_values(chance: random.Random, place: Any, key: Any) -> None:
    other = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
    place[key], place[other] = place[other], place[key]


def rename_key(chance: random.Random, place: Any, key: Any) -> None:
    if isinstance(place, dict):
        place[chance.choice(["../../etc/passwd", "/etc/passwd", "__class__", "\u202e", f"{key} ", ""])] = place.pop(key)
    else:
        place.reverse()


def repeat_key(chance: random.Random, data: bytearray) -> bytes:
    """Two of the same: readers differ in which they take."""
    return bytes(data).replace(b"{", b'{"voice": "ben", "version": "' + b"0" * 12 + b'", ', 1)


def replaced(by: Callable[[Path, Path], None]) -> Mutate:
    def mutate(chance: random.Random, path: Path, other: Path) -> None:
        copy = path.with_name(".copy")
        shutil.copy(path, copy)
        path.unlink()
        by(path, copy)

    return mutate


def endless(path: Path, copy: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 40)


HUGE = "9" * 10_000
MUTATIONS: dict[str, Mutate] = {
    "bits": in_bytes(flip_bits),
    "cut": in_bytes(lambda chance, data: data[: chance.randrange(len(data))]),
    "insert": in_bytes(
        lambda chance, data: data[: (at := chance.randrange(len(data)))] + chance.randbytes(4) + data[at:]
    ),
    "nan": in_bytes(lambda chance, data: bytes(data).replace(b"1", b"NaN", 1)),
    "huge number": in_bytes(lambda chance, data: bytes(data).replace(b"1", HUGE.encode(), 1)),
    "deep": in_bytes(lambda chance, data: b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "deep inside": in_bytes(lambda chance, data: bytes(data).replace(b": {", b": " + b"[" * 20_000 + b"{", 1)),
    "key twice": in_bytes(repeat_key),
    "other bytes": in_bytes(lambda chance, data: chance.randbytes(len(data))),
    "swap": in_json(swap_values),
    "drop": in_json(lambda chance, place, key: place.pop(key)),
    "rename": in_json(rename_key),
    "type": put(lambda chance: chance.choice([None, True, 0, -1, 1.5, "", "x", [], {}, [[]], 2**70, 1e308])),
    "words": put(lambda chance: chance.choice(["\u202eevil", "\x1b[2J", "../../x", "a" * 100_000, "\ud800", "\0"])),
    "version": put(lambda chance: version_of(chance.randint(1, 4))),
    "pipe": replaced(lambda path, copy: os.mkfifo(path)),
    "link": replaced(lambda path, copy: path.symlink_to(copy.rename(copy.with_name(".outside")))),
    "endless link": replaced(lambda path, copy: path.symlink_to("/dev/zero")),
    "loop": replaced(lambda path, copy: path.symlink_to(path)),
    "folder": replaced(lambda path, copy: path.mkdir()),
    "endless": replaced(endless),
    "empty": replaced(lambda path, copy: path.touch()),
    "gone": replaced(lambda path, copy: None),
    "replayed": lambda chance, path, other: shutil.copy(other, path),
}


@pytest.fixture(scope="module", params=["signed", "unsigned"])
def sound(request, tmp_path_factory):
    """A registry with a history on both channels, and files of the same voice that others published and signed."""
    root = tmp_path_factory.mktemp(request.param)
    keys = {"signed": (OURS, THEIRS), "unsigned": (None, None)}[request.param]
    weights = root / "w.safetensors"
    weights.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    for place, signer in zip(("registry", "others"), keys, strict=True):
        opened = open_registry(f"file:{place}", root=root, trust=trusting(signer=signer))
        for take, channel in ((1, "production"), (2, "candidate"), (2, "production"), (3, "production")):
            release = a_release(version_of(take))
            opened.publish("ana", release, {"adapter/s/a.safetensors": weights}, channel=channel, actor="Ana Perez")
        opened.rollback("ana", None, Mover("Ben"))
    return root, trusting(*(keys[:1] if keys[0] else ()))


def a_release(version: str) -> Release:
    return Release.model_validate(
        {
            "voice": "ana",
            "version": version,
            "created_at": "2026-01-10T00:00:00Z",
            "base": "nano",
            "content_digest": CONTENTS[version],
            "base_digest": BASE_DIGEST,
            "recipe_digest": RECIPE_DIGEST,
            "language": "en",
            "license": "CC-BY-4.0",
            "consent": {"speaker": "Somebody", "granted_on": "2026-01-09", "scope": ["tests"]},
            "provenance": {"git_revision": "f" * 40, "author": "Ana Perez"},
            "metrics": {"copy_synthesis.pesq_wb": 3.5},
        }
    )


@contextmanager
def time_limit():
    def give_up(*_: object) -> None:
        raise TimeoutError("a mutant took too long")

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def meaning(path: Path, otherwise: type[Record] = Event) -> object:
    """The record in a file, as every reader of ours takes it; None where there is none."""
    kind = {"release.json": Release, "production.json": ChannelPointer, "candidate.json": ChannelPointer}
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 1 << 30:
        return None
    try:
        return kind.get(path.name, otherwise).model_validate_json(path.read_bytes())
    except ValidationError:
        return None


def test_every_damage_is_named_and_nothing_else_is_believed(sound, tmp_path):
    root, trust = sound
    whole, damaged = root / "registry", tmp_path / "registry"
    shutil.copytree(whole, damaged)
    targets = sorted(path.relative_to(whole) for path in whole.glob("ana/**/*.json") if "adapter" not in path.parts)
    registry = open_registry("file:registry", root=tmp_path, trust=trust)
    published = {name: registry.verified("ana", name)[0] for name in ("production", version_of(2), version_of(3))}
    heads = {f"{json.loads(path.read_bytes())['event']['id']}.json" for path in whole.glob("ana/channels/*")}
    tried = Counter()
    for seed in range(MUTANTS):
        chance = random.Random(seed)
        name = list(MUTATIONS)[seed % len(MUTATIONS)]
        target = chance.choice(targets)
        path = damaged / target
        others = [
            root / place / one for place in ("registry", "others") for one in targets if one.parts[1] == target.parts[1]
        ]
        other = next((one for one in chance.sample(others, len(others)) if one.exists()), whole / target)
        MUTATIONS[name](chance, path, other)
        told = f"mutant {seed}: {name} of {target}"
        with time_limit():
            damages = registry.verify("ana")
            for asked, original in published.items():
                try:
                    assert registry.verified("ana", asked)[0] == original, told
                except PipelineError as error:
                    assert error.exit_code in (2, 3), told  # 2: nothing on that channel
        is_same = name != "key twice" and meaning(path) == meaning(whole / target)
        is_unwritten = name == "gone" and path.name in heads  # as a killed publisher leaves it
        assert damages or is_same or is_unwritten, told
        assert not damages or not is_same or path.is_symlink(), told
        tried[name] += bool(damages)
        for left in (path.with_name(".copy"), path.with_name(".outside")):
            left.unlink(missing_ok=True)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        shutil.copy(whole / target, path)
    assert registry.verify("ana") == []
    assert all(tried[name] > MUTANTS / len(MUTATIONS) / 4 for name in MUTATIONS), tried


def test_a_damaged_note_of_a_refusal_is_named_and_never_believed(tmp_path):
    told = {"judges": "5" * 64, "exit_code": 10, "reason": "too short", "at": "2026-01-10T00:00:00Z", "actor": "CI"}
    for voice in ("ana", "ben"):
        signed = open_registry("file:registry", root=tmp_path, trust=trusting(OURS, signer=OURS))
        signed.refuse(Refusal.model_validate({"voice": voice, "version": version_of(1), **told}))
    path, other = (tmp_path / "registry" / ".refusals" / f"{name}.json" for name in ("ana", "ben"))
    whole, registry = path.read_bytes(), open_registry("file:registry", root=tmp_path, trust=trusting(OURS))
    original, damaged = registry.refusals()["ana"], 0
    for seed in range(len(MUTATIONS) * 4):
        name = list(MUTATIONS)[seed % len(MUTATIONS)]
        MUTATIONS[name](random.Random(seed), path, other)
        with time_limit():
            findings = registry.examine_refusals()
            try:
                assert registry.refusals().get("ana") in (None, original), f"mutant {seed}: {name}"
            except PipelineError as error:
                assert error.exit_code == 3
        is_same = name != "key twice" and meaning(path, Refusal) == original
        assert findings or is_same or name == "gone", f"mutant {seed}: {name}"
        damaged += bool(findings)
        for left in (path.with_name(".copy"), path.with_name(".outside")):
            left.unlink(missing_ok=True)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
    assert damaged > len(MUTATIONS) * 3
