"""Versions of a voice that was never trained: what a manifest's digests give."""

from __future__ import annotations

from pipeline.records.release import release_version

BASE_DIGEST, RECIPE_DIGEST = "b" * 64, "c" * 64


def version_of(take: int) -> str:
    """The version of the ``take``-th content of a voice."""
    return release_version(f"{take:064x}", BASE_DIGEST, RECIPE_DIGEST)


CONTENTS = {version_of(take): f"{take:064x}" for take in range(1, 60)}
