"""Voices in a worker's memory: small, and there at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from serve_running import prepared_root
from served_voices import publish_voice

from pipeline.errors import SettingsError
from pipeline.io.registry.registry import open_registry
from pipeline.records.serving import ServedVoice, WorkerSettings
from pipeline.serve.local_copies import copy_release
from pipeline.serve.residents import Residents

pytestmark = pytest.mark.slow
NAMES = ("ana", "ben", "cleo")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, write_tiny_base: Callable[[Path], Path]) -> Path:
    return prepared_root(tmp_path_factory.mktemp("residents"), write_tiny_base)


@pytest.fixture(scope="module")
def voices(root: Path, repository: Path) -> list[ServedVoice]:
    registry = open_registry("file:registry", root=root)
    found = []
    for seed, name in enumerate(NAMES):
        publish_voice(registry, root, repository, name, seed)
        release, folder = registry.verified(name)
        copied = copy_release(release, folder, root / "copies")
        told = {"version": release.version, "language": "en", "base": "tiny", "base_digest": release.base_digest}
        found.append(ServedVoice(voice=name, folder=str(copied), **told))
    return found


def residents(root: Path, adapter_bytes: int) -> Residents:
    numbers = {"device": "cpu", "threads": 1, "renderers": 1, "rows": 4, "adapter_bytes": adapter_bytes}
    return Residents(WorkerSettings(cache=str(root), bases=str(root / "bases"), replaced_bases=(), **numbers))


def test_the_base_is_there_once_for_all_voices(root, voices):
    found = residents(root, 1 << 30)
    loaded = [found.of(voice) for voice in voices]
    assert len({id(one.base) for one in loaded}) == 1
    assert found.count == len(NAMES)
    assert found.of(voices[0]) is loaded[0]
    assert found.loads == len(NAMES)


def test_the_least_recently_used_voice_leaves(root, voices):
    one = residents(root, 1 << 30).of(voices[0]).size_bytes
    found = residents(root, int(2.5 * one))
    for voice in (voices[0], voices[1], voices[0], voices[2]):
        found.of(voice)
    assert [found.find(voice) is not None for voice in voices] == [True, False, True]
    assert found.evictions == 1
    assert found.size_bytes <= 2.5 * one


def test_what_was_heard_of_a_reference_clip_is_kept_beside_it(root, voices):
    first = residents(root, 1 << 30).of(voices[0])
    (kept,) = Path(voices[0].folder).glob("prepared-*.safetensors")
    again = residents(root, 1 << 30)
    again.base_of(voices[0]).voice.prepare = None  # it is not heard again
    torch.testing.assert_close(again.of(voices[0]).reference.ge, first.reference.ge, atol=0, rtol=0)
    kept.write_bytes(b"no safetensors")
    torch.testing.assert_close(residents(root, 1 << 30).of(voices[0]).reference.ge, first.reference.ge)


def test_a_voice_of_another_base_is_refused_by_name(root, voices):
    other = voices[0].model_copy(update={"base_digest": "0" * 64})
    with pytest.raises(SettingsError, match="another base tiny"):
        residents(root, 1 << 30).of(other)
