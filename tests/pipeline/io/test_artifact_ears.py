"""Which ears are here is told by the table, and nothing is read for it."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from pipeline.io.artifacts import ears
from pipeline.io.artifacts.cache import artifact_table


def test_in_an_empty_cache_nobody_listens(tmp_path) -> None:
    assert ears.ear_digests(tmp_path) == {}


def test_an_ear_that_was_pulled_is_named_by_its_digest(artifacts) -> None:
    folder = artifacts("ecapa-voxceleb")
    found = ears.ear_digests(folder.parents[1])
    assert found["speaker"] == artifact_table()["ecapa-voxceleb"].in_cache[0].sha256
    assert ears.ear_folder(folder.parents[1], "speaker") == folder


@pytest.mark.parametrize("is_installed", [True, False])
def test_whisper_is_an_ear_only_where_what_runs_it_is_installed(artifacts, monkeypatch, is_installed) -> None:
    cache = artifacts("whisper-base").parents[1]
    monkeypatch.setattr(ears, "find_spec", lambda name: find_spec("json") if is_installed else None)
    assert ("words" in ears.ear_digests(cache)) == is_installed
