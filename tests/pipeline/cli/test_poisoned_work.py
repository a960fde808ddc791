"""The work folder comes back from a cache: whatever somebody put into it, only what was trained here is published."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.cli.main import run_command


def weights_of(root: Path) -> Path:
    (folder,) = (root / "work" / "ana" / "finetune").glob("*/adapter/synthesizer")
    return folder / "adapter_model.safetensors"


def swap(path: Path) -> bytes:
    """Put other numbers of the same size there, as an adapter of another voice would be. Returns the trained ones."""
    trained = path.read_bytes()
    path.write_bytes(trained[:-64] + bytes.fromhex("003c") * 32)  # ones
    assert path.read_bytes() != trained
    return trained


def published_weights(root: Path) -> bytes:
    (path,) = (root / "registry" / "ana" / "releases").glob("*/adapter/synthesizer/adapter_model.safetensors")
    return path.read_bytes()


def test_the_adapter_of_another_voice_is_neither_judged_nor_published(copy, walk, open_gate, capfd) -> None:
    walk.forget(copy, "evaluate")
    weights = weights_of(copy)
    trained = swap(weights)
    assert run_command(["run", "ana"]) == 0
    told = " ".join(capfd.readouterr().err.split())
    assert "adapter_model.safetensors: is not what the stage wrote; made again" in told
    assert published_weights(copy) == weights.read_bytes() == trained  # training is deterministic


def test_an_adapter_swapped_after_its_verdict_is_not_published(copy, walk, open_gate, capfd) -> None:
    walk.forget(copy, "evaluate")
    assert run_command(["evaluate", "ana"]) == 0
    trained = swap(weights_of(copy))
    assert run_command(["publish", "ana"]) == 0
    assert "made again" in capfd.readouterr().err
    assert published_weights(copy) == trained


def test_features_cut_short_by_a_cache_are_made_again(copy, walk, capfd) -> None:
    walk.forget_from(copy, "finetune")
    (features,) = (copy / "work" / "ana" / "extract").glob("*/features.safetensors")
    whole = features.read_bytes()
    features.write_bytes(whole[: len(whole) // 2])
    assert run_command(["finetune", "ana"]) == 0
    assert "features.safetensors: is not what the stage wrote; made again" in " ".join(capfd.readouterr().err.split())
    assert features.read_bytes() == whole


def test_what_no_later_stage_reads_may_be_gone(copy, walk) -> None:
    """A pipeline hands its jobs what they read, and no recordings a second time."""
    walk.forget(copy, "evaluate")
    before = walk.results(copy)
    for clip in (copy / "work" / "ana" / "validate").glob("*/clips/*"):
        clip.unlink()
    assert run_command(["evaluate", "ana"]) == 11
    assert {stage: walk.results(copy)[stage] for stage in ("validate", "extract", "finetune")} == {
        stage: before[stage] for stage in ("validate", "extract", "finetune")
    }


def test_a_voice_that_changes_while_it_is_validated_is_not_judged_by_what_it_was(
    copy, walk, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    from pipeline.io import recordings

    walk.forget_from(copy, "validate")
    recording = sorted((copy / "voices" / "ana" / "wavs").iterdir())[0]
    read = recordings.read_audio

    def read_then_save(path, limits):
        audio = read(path, limits)
        if path.name == recording.name:
            os.utime(recording, (1, 1))
            (recording.parent / "later.txt").write_text("saved in between")
        return audio

    monkeypatch.setattr(recordings, "read_audio", read_then_save)
    assert run_command(["validate", "ana"]) == 75
    assert "changed while it was read" in capfd.readouterr().err
    assert walk.finished(copy, "validate") == []


def test_the_results_of_the_walk_name_their_files(walked) -> None:
    for stage, name in (("extract", "features.safetensors"), ("evaluate", "report/index.html")):
        (result,) = (walked / "work" / "ana" / stage).glob("*/result.json")
        told = json.loads(result.read_text())
        assert name in told["files"]
        assert told["read"]
