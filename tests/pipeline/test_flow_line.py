"""Voices on bases of the families v3 and v4, from recordings to GPT-SoVITS's own LoRA file and back.

The bases are small and hold random numbers, so the gate must stop every voice; all stages before and after it are real.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from stopped import Stopped, describe_base, walk

from models.families.flow_matching import load_synthesizer, load_vocoder
from models.loading.bases import load_base
from models.loading.networks import build_network
from models.loading.voices import AdapterFolders, load_resynthesizer, load_voice
from models.sound.spectrogram import unscale_mel
from models.speaking.voice import Manner, Reference, Sentence
from models.upstream.files import read_upstream
from pipeline.jobs.exchange import export_release, import_files
from pipeline.records.quality import QualityReport
from pipeline.records.release import Release

pytestmark = pytest.mark.slow

ENCODER = {
    "spectrogram": {"sample_rate_hz": 32000, "n_fft": 2048, "win_samples": 2048, "hop_samples": 640},
    "ssl_dim": 43, "codebook_size": 32, "inter_channels": 16, "hidden_channels": 16, "filter_channels": 32,
    "n_heads": 2, "n_layers": 2, "mrte_hidden": 16, "mrte_heads": 2, "style_hidden": 16, "gin_channels": 16,
}  # fmt: skip
DIT = {"mel_channels": 20, "condition_channels": 16, "dim": 32, "depth": 2, "heads": 2, "head_dim": 16,
       "condition_layers": 1, "position_groups": 4}  # fmt: skip
FLOW = {"encoder": ENCODER, "bridge_channels": 16, "condition_layers": 2, "sampling_steps": 2, "dit": DIT}
FAMILIES: dict[str, dict[str, Any]] = {
    "v3": {
        "sample_rate_hz": 24000,
        "cfm": {
            **FLOW,
            "mel": {"sample_rate_hz": 24000, "n_fft": 1024, "win_samples": 1024, "hop_samples": 256, "n_mels": 20},
            "frames_ratio": 1.875, "mask_frames_per_token": 3.875, "prompt_frames": 468, "chunk_frames": 934,
        },
        "vocoder": {
            "kind": "bigvgan", "mel_channels": 20, "upsample_initial_channel": 32, "resblock_kernel_sizes": [3],
            "resblock_dilation_sizes": [[1]], "upsample_rates": [16, 16], "upsample_kernel_sizes": [32, 32],
        },
    },
    "v4": {
        "sample_rate_hz": 48000,
        "cfm": {
            **FLOW,
            "mel": {"sample_rate_hz": 32000, "n_fft": 1280, "win_samples": 1280, "hop_samples": 320, "n_mels": 20},
        },
        "vocoder": {
            "kind": "hifigan", "mel_channels": 20,
            "decoder": {"kind": "hifigan", "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3, 5]],
                        "upsample_rates": [10, 6, 8], "upsample_initial_channel": 16,
                        "upsample_kernel_sizes": [20, 12, 16], "conv_post_bias": True},
        },
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def stopped(request, tmp_path_factory, walked_once, write_tiny_base, write_tiny_voice) -> Stopped:
    """`voxline run` on the sample voice with a small base of the family; the recordings were judged for another."""
    family, root = request.param, tmp_path_factory.mktemp(request.param)
    folder = write_tiny_base(root)
    describe_base(folder, {"family": family, "upstream_version": family, "hop_samples": 640, **FAMILIES[family]})
    write_weights(folder)
    write_tiny_voice(root)
    return walk(root, walked_once)


def write_weights(folder: Path) -> None:
    """A synthesizer file beside base.yaml, so that an adapter has something exact to sit on."""
    described = yaml.safe_load((folder / "base.yaml").read_text())
    torch.manual_seed(0)
    network = build_network(load_base("tiny", folder.parent), "synthesizer")
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "s.safetensors")
    described["weights"] = {"synthesizer": {"path": "s.safetensors"}}
    (folder / "base.yaml").write_text(yaml.safe_dump(described))


def test_the_gate_stops_random_numbers_and_says_that_they_are(stopped: Stopped) -> None:
    assert stopped.exit_code == 11
    report = QualityReport.model_validate(stopped.record("evaluate"))
    assert not report.passed
    (trained,) = [check for check in report.checks if check.id == "base.trained"]
    assert trained.status == "failed"
    assert "text2semantic, content, vocoder" in trained.explanation


def test_every_clip_has_a_mel_at_the_rate_of_the_flow(stopped: Stopped) -> None:
    config = stopped.base.cfm
    assert config is not None
    for index, clip in enumerate(stopped.record("extract")["clips"]):
        said = stopped.clip(index)
        assert said.mel is not None
        assert said.mel.shape == (20, int(clip["frames"] * config.frames_ratio))
        assert said.mel.abs().max() < 1.5
        assert len(said.wave) == clip["frames"] * stopped.base.sample_rate_hz // 50
        assert said.speaker is None


def test_only_the_attention_of_the_flow_is_adapted_and_it_learns(stopped: Stopped) -> None:
    (part,) = [one for one in stopped.record("finetune")["parts"] if one["part"] == "synthesizer"]
    (group,) = part["groups"]
    assert group["heldout_loss"] < group["heldout_loss_before"]
    config, state = read(stopped, "synthesizer")
    assert config["target_modules"] == sorted(
        f"cfm.estimator.transformer_blocks.{block}.attn.{name}"
        for block in (0, 1)
        for name in ("to_q", "to_k", "to_v", "to_out.0")
    )
    assert any(value.abs().max() > 0 for name, value in state.items() if "lora_B" in name)


def read(stopped: Stopped, part: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    folder = stopped.folder("finetune") / "adapter" / part
    return json.loads((folder / "adapter_config.json").read_text()), load_file(folder / "adapter_model.safetensors")


def test_it_speaks_with_its_adapters_at_any_speed_whole_or_in_pieces(stopped: Stopped) -> None:
    folder = stopped.folder("finetune") / "adapter"
    voice = load_voice(
        stopped.base,
        stopped.work,
        torch.device("cpu"),
        AdapterFolders.inside(folder),
    )
    clips = [stopped.clip(index) for index in range(3)]
    reference = Reference(clips[0].wave, stopped.base.sample_rate_hz, clips[0].phones.long())
    said = [Sentence(clips[1].phones[:12].long()), Sentence(clips[2].phones[:9].long())]
    first, again = (voice.speak(said, reference, Manner(seed=3)) for _ in range(2))
    assert first.sample_rate_hz == stopped.base.sample_rate_hz
    assert torch.equal(first.wave, again.wave)
    alone = voice.speak(said[1:], reference, Manner(seed=3)).wave
    assert torch.equal(first.wave[-len(alone) :], alone)
    faster = voice.speak(said, reference, Manner(seed=3, speed=1.5))
    assert sum(s.duration_s for s in faster.sentences) < 0.8 * sum(s.duration_s for s in first.sentences)
    streamed = list(voice.stream(said, reference, Manner(seed=3)))
    assert sum(len(chunk.wave) for chunk in streamed) > 0
    assert [chunk.sentence_index for chunk in streamed if chunk.sentence] == [0, 1]


def test_a_vocoder_copies_the_mel_of_a_recording(stopped: Stopped) -> None:
    again = load_resynthesizer(
        stopped.base, stopped.work, torch.device("cpu"), stopped.folder("finetune") / "adapter" / "synthesizer"
    )
    clip = stopped.clip(0)
    with torch.no_grad():
        expected = load_vocoder(stopped.base, stopped.work)(unscale_mel(clip.mel[None]))[0, 0]
    assert torch.equal(again.copy(clip), expected)


def test_it_leaves_as_a_lora_file_and_comes_back_to_half_precision(
    stopped: Stopped, tmp_path: Path, make_release
) -> None:
    base = stopped.base
    release: Release = make_release(base=base.name, base_digest=base.digest)
    written = export_release(
        release, stopped.folder("finetune"), base, tmp_path / "out", cache=stopped.work, today=date(2026, 2, 1)
    )
    files = [path for path in written if path.suffix in {".ckpt", ".pth"}]
    assert [path.suffix for path in files] == [".ckpt", ".pth"]
    lora = read_upstream(files[1])
    assert (lora.kind, lora.version, lora.lora_rank) == ("synthesizer-lora", base.upstream_version, 2)
    assert files[1].read_bytes()[:2] == {"v3": b"03", "v4": b"04"}[str(base.upstream_version)]

    made = import_files(files[1:], base, "back", own_bases=tmp_path / "bases", cache=stopped.work)
    config, state = read(stopped, "synthesizer")
    own, returned = load_file(base.folder / "s.safetensors"), load_file(made / "synthesizer.safetensors")
    for module in config["target_modules"]:
        a, b = (state.pop(f"base_model.model.{module}.lora_{half}.weight") for half in "AB")
        stem = module.replace("cfm.", "cfm.base_model.model.")
        b = b * config["lora_alpha"] / config["r"]  # GPT-SoVITS knows no scale
        assert torch.equal(lora.weights[f"{stem}.lora_A.default.weight"], a.half())
        assert torch.equal(lora.weights[f"{stem}.lora_B.default.weight"], b.half())
        merged = own.pop(f"{module}.weight") + b.half().float() @ a.half().float()
        assert torch.equal(returned[f"{module}.weight"], merged)
    assert not state
    assert all(torch.equal(returned[name], value) for name, value in own.items())
    load_synthesizer(load_base("back", tmp_path / "bases"), stopped.work)
