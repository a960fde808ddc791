"""Files that upstream's own code wrote: read exactly, loaded strictly, written back; and its LoRA numbers."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.configs.cfm import CfmSynthesizerConfig, DiTConfig
from models.configs.synthesizer import HifiGanDecoderConfig, MelConfig, SynthesizerConfig
from models.configs.text2semantic import Text2SemanticConfig
from models.synthesizer.cfm import FlowPath
from models.synthesizer.cfm_synthesizer import CfmSynthesizer
from models.synthesizer.vits import Synthesizer
from models.text2semantic.network import Text2Semantic
from models.upstream.files import TRAINING_ONLY, UpstreamFile, read_upstream, write_synthesizer, write_text2semantic
from models.upstream.lora import upstream_lora_merge, upstream_lora_split, upstream_lora_weights
from models.weights import load_weights

LORA_TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def described(shared: Path) -> list[tuple[UpstreamFile, dict[str, Any]]]:
    """Every file of `files/` with what files.json says about it."""
    folder = shared / "reference" / "gpt-sovits" / "parity" / "files"
    listed = json.loads((folder / "files.json").read_text(encoding="utf-8"))
    assert listed
    return [(read_upstream(folder / name), told) for name, told in listed.items()]


def stored_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a fixture; those of a LoRA fixture with the untouched entries of its base beside them."""
    weights = {name[2:]: value for name, value in load_file(path).items() if name.startswith("w.")}
    meta = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if "lora_file_keys" not in meta:
        return weights
    base = stored_weights(path.with_stem(meta["config"]["base_fixture"]))
    untouched = {name: name.replace("cfm.base_model.model.", "cfm.") for name in meta["lora_file_keys"]}
    return {name: weights[name] if name in weights else base[ours] for name, ours in untouched.items()}


def small_weights(shared: Path) -> dict[str, dict[str, Tensor]]:
    """The weights of every small fixture, by its name."""
    found = {path.stem: stored_weights(path) for path in (shared / "reference/gpt-sovits/parity").glob("s[12]_*s")}
    return {name: weights for name, weights in found.items() if weights}


def test_files_are_recognised_for_what_they_are(described: list[tuple[UpstreamFile, dict[str, Any]]]) -> None:
    for file, told in described:
        assert hashlib.sha256(file.path.read_bytes()).hexdigest() == told["sha256"]
        assert file.info == told["info"]
        assert file.version == told.get("version")
        assert file.lora_rank == told.get("rank")
        assert len(file.weights) == told["n_weights"]
        assert {str(value.dtype) for value in file.weights.values()} == set(told["dtypes"])
        kind = "text2semantic" if file.path.suffix == ".ckpt" else "synthesizer"
        assert file.kind == (kind + "-lora" if "rank" in told else kind)
        assert type(file.config) is dict and type(file.config["model"]) is dict  # no utils.HParams is left


def test_files_hold_exactly_the_weights_of_a_small_fixture_rounded_to_half(
    described: list[tuple[UpstreamFile, dict[str, Any]]], shared: Path
) -> None:
    fixtures = small_weights(shared)
    for file, _ in described:
        prefix = "" if any(set(file.weights) <= set(weights) for weights in fixtures.values()) else "model."
        stored = {prefix + name: value for name, value in file.weights.items()}
        equal = [name for name, weights in fixtures.items() if _is_rounded(stored, weights)]
        assert equal, f"{file.path.name} equals no fixture"


def _is_rounded(stored: dict[str, Tensor], weights: dict[str, Tensor]) -> bool:
    names = {name for name in weights if TRAINING_ONLY not in name}
    return names == set(stored) and all(torch.equal(stored[name], weights[name].half()) for name in names)


def network_of(file: UpstreamFile, told: dict[str, Any]) -> torch.nn.Module:
    """Our network in the sizes the file names; what upstream hard-codes comes from files.json."""
    model, swapped = file.config["model"], told.get("swapped_constants", {})
    if file.kind == "text2semantic":
        renamed = {"heads": model["head"], "layers": model["n_layer"], "feedforward_dim": 4 * model["hidden_dim"]}
        same = {key: model[key] for key in Text2SemanticConfig.model_fields if key in model and key != "dropout"}
        bert_dim = file.weights["bert_proj.weight"].shape[1]
        return Text2Semantic(Text2SemanticConfig(**same, **renamed, bert_dim=bert_dim))
    same = {key: model[key] for key in SynthesizerConfig.model_fields if key in model}
    constants = {key: swapped[key] for key in ("ssl_dim", "codebook_size", "mrte_hidden", "style_hidden")}
    if file.kind == "synthesizer":
        decoder = HifiGanDecoderConfig(**{key: model[key] for key in HifiGanDecoderConfig.model_fields if key in model})
        return Synthesizer(SynthesizerConfig(**same, **constants, decoder=decoder, speaker_dim=swapped.get("sv_dim")))
    dit = swapped["dit"]
    return CfmSynthesizer(
        CfmSynthesizerConfig(
            encoder=SynthesizerConfig(**same, **constants),
            mel=MelConfig(n_mels=swapped["n_mels"]),
            bridge_channels=swapped["bridge_channels"],
            dit=DiTConfig(
                mel_channels=dit["mel_dim"],
                condition_channels=dit["text_dim"],
                dim=dit["dim"],
                depth=dit["depth"],
                heads=dit["heads"],
                head_dim=dit["dim_head"],
                ff_mult=dit["ff_mult"],
                condition_layers=dit["conv_layers"],
            ),
        )
    )


def test_files_load_strictly_into_our_networks(described: list[tuple[UpstreamFile, dict[str, Any]]]) -> None:
    for file, told in described:
        network = network_of(file, told)
        if file.kind == "synthesizer-lora":
            merged = upstream_lora_merge(network.state_dict(), upstream_lora_split(file))
            load_weights(network, merged, str(file.path))
            continue
        load_weights(network, file.weights, str(file.path), absent=(TRAINING_ONLY,))
        ours = network.state_dict()
        assert all(torch.equal(ours[name].half(), value) for name, value in file.weights.items())


def test_files_written_back_are_read_as_the_same(
    described: list[tuple[UpstreamFile, dict[str, Any]]], tmp_path: Path
) -> None:
    for file, told in described:
        copy = tmp_path / file.path.name
        widened = {name: value.float() for name, value in file.weights.items()}
        if file.kind == "text2semantic":
            write_text2semantic(copy, widened, file.config, file.info)
        else:
            assert file.version is not None
            write_synthesizer(copy, widened, file.config, file.info, file.version, lora_rank=file.lora_rank)
        again = read_upstream(copy)
        assert copy.read_bytes()[:2].decode() == told["first_two_bytes"]
        assert (again.kind, again.version, again.config, again.info, again.lora_rank) == (
            (file.kind, file.version, file.config, file.info, file.lora_rank)
        )
        assert list(again.weights) == list(file.weights)
        assert all(torch.equal(again.weights[name], value) for name, value in file.weights.items())


@pytest.mark.state_dict("lora-file")
def test_lora_files_of_a_full_network_have_upstreams_names_and_shapes(described: Any) -> None:
    """A rank-32 adapter of a full-size network, taken apart and put together again."""
    rank = described.meta["rank"]
    weights = {
        name: torch.empty(shape, dtype=getattr(torch, kind), device="meta")
        for name, (shape, kind) in described.meta["state_dict"].items()
    }
    version = re.fullmatch(r"lora-file-(v[34])-r\d+", described.name)
    assert version is not None
    split = upstream_lora_split(UpstreamFile(Path("full.pth"), "synthesizer-lora", weights, lora_rank=rank))
    with torch.device("meta"):
        network = CfmSynthesizer(CfmSynthesizerConfig())
    targets = [name for name, _ in network.named_modules() if name.endswith((".to_q", ".to_k", ".to_v", ".to_out.0"))]
    assert sorted(split.pairs) == sorted(targets)
    ours = network.state_dict()
    assert all(ours[name].shape == value.shape for name, value in {**split.layers, **split.buffers}.items())
    again = upstream_lora_weights(split.pairs, split.layers, split.buffers)
    assert {name: value.shape for name, value in again.items()} == {name: v.shape for name, v in weights.items()}


@pytest.mark.reference("s2_v", suffix="_lora")
def test_a_merged_lora_file_gives_upstreams_weights_and_speech(fixture: Any) -> None:
    rank = fixture.meta["config"]["rank"]
    base = fixture.path.with_name(fixture.meta["config"]["base_fixture"])
    meta = json.loads(base.with_suffix(".json").read_text(encoding="utf-8"))
    state = {name[2:]: v for name, v in load_file(base.with_suffix(".safetensors")).items() if name.startswith("w.")}
    lora = upstream_lora_split(UpstreamFile(fixture.path, "synthesizer-lora", fixture.weights, lora_rank=rank))
    merged = upstream_lora_merge(state, lora)
    for name, expected in fixture.outputs("merged.").items():
        assert torch.allclose(merged[name], expected, atol=LORA_TOLERANCE, rtol=0)

    numbers = {"model": meta["config"]["constructor"]}
    described = {"swapped_constants": meta["config"]["swapped_constants"]}
    network = network_of(UpstreamFile(fixture.path, "synthesizer-lora", {}, config=numbers), described)
    load_weights(network, merged, fixture.name)
    assert isinstance(network, CfmSynthesizer)
    condition = fixture["cond"].transpose(1, 2)
    for name in fixture.outputs("infer."):
        steps = int(name.removeprefix("s"))
        lengths = torch.tensor([condition.shape[1]])
        mel = network.eval().cfm.sample(condition, lengths, fixture["prompt_mel"], FlowPath(steps), fixture["z0"])
        fixture.check(f"infer.{name}", mel, LORA_TOLERANCE)


@pytest.mark.reference("s2_v", suffix="_lora")
def test_lora_entries_survive_being_taken_apart(fixture: Any) -> None:
    weights = stored_weights(fixture.path.with_suffix(".safetensors"))
    rank = fixture.meta["config"]["rank"]
    lora = upstream_lora_split(UpstreamFile(fixture.path, "synthesizer-lora", weights, lora_rank=rank))
    assert lora.layers and lora.buffers
    again = upstream_lora_weights(lora.pairs, lora.layers, lora.buffers)
    assert again.keys() == weights.keys() == set(fixture.meta["lora_file_keys"])
    assert all(torch.equal(again[name], value) for name, value in weights.items())
