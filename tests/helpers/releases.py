"""A small registry with releases that were never trained, and the keys to sign them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.io.memory import Memory
from pipeline.io.registry.trust import Trust
from pipeline.io.signing import Signer
from pipeline.records.release import release_version

BASE_DIGEST, RECIPE_DIGEST = "b" * 64, "c" * 64


def version_of(take: int) -> str:
    """The version of the ``take``-th content of a voice."""
    return release_version(f"{take:064x}", BASE_DIGEST, RECIPE_DIGEST)


CONTENTS = {version_of(take): f"{take:064x}" for take in range(1, 60)}

# Two private keys that are known to everybody.
OURS = Signer("b3VycyBvdXJzIG91cnMgb3VycyBvdXJzIG91cnMgb28=", "a key of the tests")
THEIRS = Signer("dGhlaXJzIHRoZWlycyB0aGVpcnMgdGhlaXJzIHRoZWk=", "another key of the tests")


def trusting(*signers: Signer, signer: Signer | None = None, home: Path | None = None) -> Trust:
    """Belief in these keys, signing with one; with the memories of a user whose home folder it is."""
    digests, seen = (Memory(home / name) if home else None for name in ("digests.json", "seen.json"))
    return Trust(frozenset(each.public_key for each in signers), signer, digests, seen)


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file as somebody with an editor does."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
