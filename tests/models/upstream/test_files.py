"""GPT-SoVITS files that we write: what its loaders ask for is in them, and what comes back is what went in."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import DIT, PRO, SYNTHESIZER, TEXT2SEMANTIC
from torch import Tensor, nn

from models.configs.cfm import CfmSynthesizerConfig, DiTConfig
from models.configs.synthesizer import MelConfig, SynthesizerConfig
from models.configs.text2semantic import Text2SemanticConfig
from models.errors import WeightsError
from models.loading.bases import list_bases, load_base
from models.synthesizer.cfm_synthesizer import CfmSynthesizer
from models.synthesizer.vits import Synthesizer
from models.text2semantic.network import Text2Semantic
from models.upstream.files import (
    UpstreamFile,
    read_upstream,
    synthesizer_config,
    text2semantic_config,
    version_of,
    write_synthesizer,
    write_text2semantic,
)
from models.upstream.lora import upstream_lora_merge, upstream_lora_split, upstream_lora_weights
from models.weights import load_weights

V2 = SynthesizerConfig(**SYNTHESIZER)
V2PRO = SynthesizerConfig(**PRO)
V4 = CfmSynthesizerConfig(
    encoder=V2,
    mel=MelConfig(n_mels=6),
    bridge_channels=8,
    dit=DiTConfig(**DIT),
)
GPT = Text2SemanticConfig(**TEXT2SEMANTIC, feedforward_dim=32)


def loaded_as_upstream_does(path: Path) -> dict[str, Any]:
    """Put PK back and load; with weights_only, so that nothing but plain data can be in the file."""
    content = path.read_bytes()
    return torch.load(io.BytesIO(b"PK" + content[2:]), weights_only=True)


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_rounded(read: dict[str, Tensor], written: dict[str, Tensor]) -> None:
    assert read.keys() == written.keys()
    assert all(torch.equal(read[name], value.half()) for name, value in written.items())


@pytest.mark.parametrize(("config", "version", "header"), [(V2, "v2", b"PK"), (V2PRO, "v2Pro", b"05")])
def test_a_merged_synthesizer_survives_the_round_trip(tmp_path: Path, config: Any, version: Any, header: bytes) -> None:
    weights = weights_of(Synthesizer(config))
    path = tmp_path / "voice_e8_s64.pth"
    write_synthesizer(path, weights, synthesizer_config(config, version), "8epoch_64iteration", version)
    assert path.read_bytes()[:2] == header
    file = read_upstream(path)
    assert (file.kind, file.version, file.lora_rank, file.info) == ("synthesizer", version, None, "8epoch_64iteration")
    assert_rounded(file.weights, {name: value for name, value in weights.items() if "enc_q" not in name})
    load_weights(Synthesizer(config), file.weights, str(path), absent=("enc_q.",))


def test_a_text_to_semantic_file_survives_the_round_trip(tmp_path: Path) -> None:
    weights = weights_of(Text2Semantic(GPT))
    path = tmp_path / "voice-e15.ckpt"
    write_text2semantic(path, weights, text2semantic_config(GPT), "GPT-e15")
    file = read_upstream(path)
    assert (file.kind, file.version, file.info) == ("text2semantic", None, "GPT-e15")
    assert_rounded(file.weights, weights)
    load_weights(Text2Semantic(GPT), file.weights, str(path))
    loaded = loaded_as_upstream_does(path)
    assert all(name.startswith("model.") for name in loaded["weight"])
    assert loaded["config"]["data"]["max_sec"] == 54
    assert loaded["config"]["model"]["EOS"] == loaded["config"]["model"]["vocab_size"] - 1


def adapter(network: CfmSynthesizer, rank: int) -> dict[str, tuple[Tensor, Tensor]]:
    targets = re.compile(r"cfm\.estimator\.transformer_blocks\.\d+\.attn\.(to_[qkv]|to_out\.0)")
    return {
        name: (torch.randn(rank, module.in_features), torch.randn(module.out_features, rank))
        for name, module in network.named_modules()
        if targets.fullmatch(name) and isinstance(module, nn.Linear)
    }


@pytest.mark.parametrize(("version", "header"), [("v3", b"03"), ("v4", b"04")])
def test_a_lora_file_survives_the_round_trip_and_merges_to_the_same_weights(
    tmp_path: Path, version: Any, header: bytes
) -> None:
    network = CfmSynthesizer(V4)
    state = weights_of(network)
    pairs = {name: (a.half().float(), b.half().float()) for name, (a, b) in adapter(network, rank=3).items()}
    layers = {name: value.half().float() for name, value in state.items() if name.startswith("wns1.")}
    path = tmp_path / "voice_e2_s16_l3.pth"
    weights = upstream_lora_weights(pairs, layers, {})
    write_synthesizer(
        path, weights, synthesizer_config(V4.encoder, version), "2epoch_16iteration", version, lora_rank=3
    )
    assert path.read_bytes()[:2] == header
    assert loaded_as_upstream_does(path)["lora_rank"] == 3

    file = read_upstream(path)
    assert (file.kind, file.version, file.lora_rank) == ("synthesizer-lora", version, 3)
    lora = upstream_lora_split(file)
    merged = upstream_lora_merge(state, lora)
    changed = {name for name, value in merged.items() if not torch.equal(value, state[name])}
    assert {f"{name}.weight" for name in pairs} <= changed
    for name, (a, b) in pairs.items():
        assert torch.allclose(merged[f"{name}.weight"], state[f"{name}.weight"] + b @ a, atol=1e-6)


def test_the_half_precision_codebook_of_a_lora_file_does_not_replace_the_exact_one() -> None:
    network = CfmSynthesizer(V4)
    state = weights_of(network)
    buffers = {name: value.half() for name, value in state.items() if name.startswith("quantizer.")}
    weights = upstream_lora_weights(adapter(network, 2), {}, buffers)
    lora = upstream_lora_split(UpstreamFile(Path("x.pth"), "synthesizer-lora", weights, lora_rank=2))
    name = "quantizer.vq.layers.0._codebook.embed"
    assert torch.equal(upstream_lora_merge(state, lora)[name], state[name])
    assert torch.equal(upstream_lora_merge(state, lora, rounded_buffers=True)[name], state[name].half().float())


def test_what_upstream_has_no_file_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no file layout for merged weights of v4"):
        write_synthesizer(tmp_path / "x.pth", {}, {}, "", "v4")
    with pytest.raises(WeightsError, match="no file layout for a LoRA file of v2Pro"):
        write_synthesizer(tmp_path / "x.pth", {}, {}, "", "v2Pro", lora_rank=8)
    with pytest.raises(WeightsError, match="cannot hold an adapter of enc_p"):
        upstream_lora_weights({"enc_p.proj": (torch.zeros(1, 1), torch.zeros(1, 1))}, {}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name in list_bases() if name.startswith("gpt-sovits")])
def test_the_config_of_every_base_holds_what_upstreams_loader_reads(name: str) -> None:
    base = load_base(name)
    assert base.upstream_version is not None
    config = synthesizer_config(base.cfm.encoder if base.cfm else base.synthesizer, base.upstream_version)
    data = config["data"]
    # SynthesizerTrn(filter_length // 2 + 1, segment_size // hop_length, n_speakers=..., **model)
    assert data["filter_length"] // 2 + 1 == 1025
    assert config["train"]["segment_size"] // data["hop_length"] == 32
    assert {"sampling_rate", "win_length", "n_speakers"} <= data.keys()
    assert config["model"]["version"] == base.upstream_version
    assert len(config["model"]) == 19


def test_a_file_for_another_network_is_named_with_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    write_synthesizer(path, weights_of(Synthesizer(V2PRO)), synthesizer_config(V2PRO, "v2Pro"), "", "v2Pro")
    file = read_upstream(path)
    with pytest.raises(WeightsError, match=r"other\.pth.*missing: none; unexpected: ge_to512"):
        load_weights(Synthesizer(V2), file.weights, str(path), absent=("enc_q.",))
    with pytest.raises(WeightsError, match=r"other\.pth.*missing: ar_audio_embedding.*unexpected: dec\."):
        load_weights(Text2Semantic(GPT), file.weights, str(path))
    with pytest.raises(WeightsError, match=r"other\.pth: enc_p\.text_embedding\.weight has shape \[732, 8\]"):
        smaller = V2PRO.model_copy(update={"n_symbols": 322})
        load_weights(Synthesizer(smaller), file.weights, str(path), absent=("enc_q.",))


def test_a_lora_file_for_another_base_is_named_with_its_keys() -> None:
    network = CfmSynthesizer(V4)
    weights = upstream_lora_weights(adapter(network, 2), {}, {})
    deeper = {**weights, **{n.replace("blocks.1.", "blocks.7."): v for n, v in weights.items() if "blocks.1." in n}}

    def split(entries: dict[str, Tensor], rank: int = 2) -> Any:
        return upstream_lora_split(UpstreamFile(Path("x.pth"), "synthesizer-lora", entries, lora_rank=rank))

    with pytest.raises(WeightsError, match=r"unexpected: cfm\.estimator\.transformer_blocks\.7"):
        upstream_lora_merge(network.state_dict(), split(deeper))
    with pytest.raises(WeightsError, match=r"missing: cfm\.estimator.*lora_B"):
        split({name: value for name, value in weights.items() if "lora_B" not in name})
    with pytest.raises(WeightsError, match=r"unexpected: dec\.conv_pre\.weight"):
        split({**weights, "dec.conv_pre.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"says rank 5, but .* has rank 2"):
        split(weights, rank=5)
    wider = V4.model_copy(update={"dit": V4.dit.model_copy(update={"dim": 24})})
    with pytest.raises(WeightsError, match=r"is \[16, 16\], not \[16, 24\]"):
        upstream_lora_merge(CfmSynthesizer(wider).state_dict(), split(weights))


def test_the_version_is_read_from_the_parts_where_the_file_does_not_say() -> None:
    assert version_of(Synthesizer(V2).state_dict()) == "v2"
    assert version_of(Synthesizer(V2PRO).state_dict()) == "v2Pro"
    assert version_of(CfmSynthesizer(V4).state_dict()) == "v3"
    assert version_of({"enc_p.text_embedding.weight": torch.empty(322, 1)}) == "v1"
    plus = {"sv_emb.weight": torch.empty(1), "dec.conv_pre.weight": torch.empty(768, 1)}
    assert version_of(plus) == "v2ProPlus"


@pytest.mark.parametrize("content", [{"generator": {"w": torch.ones(2)}}, {"w": torch.ones(2)}])
def test_vocoder_and_speaker_files_are_read_as_plain_weights(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "vocoder.pth"
    torch.save(content, path)
    file = read_upstream(path)
    assert file.kind == "weights"
    assert list(file.weights) == ["w"]


def test_a_training_state_gives_its_model(tmp_path: Path) -> None:
    path = tmp_path / "G_100.pth"
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"model": {"w": torch.ones(2)}, "iteration": 3, "optimizer": optimizer, "learning_rate": 0.1}, path)
    assert (read_upstream(path).kind, list(read_upstream(path).weights)) == ("training", ["w"])


def test_a_lora_header_without_a_rank_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"weight": {"w": torch.ones(2)}, "config": {}}, path)
    path.write_bytes(b"04" + path.read_bytes()[2:])
    with pytest.raises(WeightsError, match="names no lora_rank"):
        read_upstream(path)


def test_numbers_beyond_half_precision_are_refused_instead_of_becoming_infinite(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="h: 70000 does not fit half precision"):
        write_text2semantic(tmp_path / "x.ckpt", {"h": torch.tensor([1.0, 7e4])}, {}, "")


def test_writing_leaves_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "voice.ckpt"
    path.write_text("old")
    with pytest.raises(AttributeError):
        write_text2semantic(path, {"w": "not a tensor"}, {}, "")  # type: ignore[dict-item]
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["voice.ckpt"]
