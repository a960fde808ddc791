"""Features of Chinese text from a small random BERT in the layout that the hub holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.compat import prepare_torchaudio
from models.encoders.bert import BertFeatures
from models.errors import WeightsError

WIDTH, LETTERS = 16, "你好世界，。a"
VOCABULARY = {mark: index for index, mark in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS])}


def write_bert(folder: Path, *, table: str = "tokenizer.json", layers: int = 5) -> Path:
    """What `voxline bases pull` leaves of a published BERT: config, vocabulary, weights of the masked language model."""
    prepare_torchaudio()
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=WIDTH, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=512,
    )  # fmt: skip
    network = BertForMaskedLM(config).eval()
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    state = {
        name: value.clone() for name, value in network.state_dict().items() if name != "cls.predictions.decoder.weight"
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    if table == "tokenizer.json":
        (folder / table).write_text(json.dumps({"model": {"type": "WordPiece", "vocab": VOCABULARY}}))
    else:
        (folder / table).write_text("\n".join(VOCABULARY) + "\n")
    return folder


def expected(folder: Path, text: str) -> torch.Tensor:
    """Upstream's words: the third hidden state from the end, without the first and the last position."""
    from transformers import BertForMaskedLM

    network = BertForMaskedLM.from_pretrained(folder, local_files_only=True).eval()
    ids = [VOCABULARY["[CLS]"], *(VOCABULARY.get(letter, 1) for letter in text), VOCABULARY["[SEP]"]]
    with torch.no_grad():
        states = network(torch.tensor([ids]), output_hidden_states=True).hidden_states
    return states[-3][0, 1:-1].T


@pytest.mark.parametrize("table", ["tokenizer.json", "vocab.txt"])
def test_every_phone_has_the_features_of_its_character(tmp_path: Path, table: str) -> None:
    folder = write_bert(tmp_path / "bert", table=table)
    bert = BertFeatures(folder, torch.device("cpu"), WIDTH)
    found = bert.of([("你好，", (2, 2, 1), 5)])
    states = expected(folder, "你好，")
    assert found is not None
    torch.testing.assert_close(found, states[:, [0, 0, 1, 1, 2]], atol=1e-5, rtol=0)


def test_other_languages_are_zeros_and_alone_nothing(tmp_path: Path) -> None:
    bert = BertFeatures(write_bert(tmp_path / "bert"), torch.device("cpu"), WIDTH)
    mixed = bert.of([("世界", (2, 1), 3), ("hello", None, 4)])
    assert mixed is not None and mixed.shape == (WIDTH, 7)
    assert mixed[:, :3].abs().sum() > 0 and not mixed[:, 3:].any()
    absent = BertFeatures(tmp_path / "absent", torch.device("cpu"), WIDTH)
    assert absent.of([("hello", None, 4)]) is None  # and nothing is loaded for it


def test_a_character_that_the_table_lacks_keeps_its_place(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "bert")
    bert = BertFeatures(folder, torch.device("cpu"), WIDTH)
    assert bert.characters("你囧A").shape == (WIDTH, 3)
    torch.testing.assert_close(bert.characters("A"), expected(folder, "a"), atol=1e-5, rtol=0)


def test_text_longer_than_the_network_reads_is_read_in_pieces(tmp_path: Path) -> None:
    bert = BertFeatures(write_bert(tmp_path / "bert"), torch.device("cpu"), WIDTH)
    long = bert.characters("你" * 600)
    assert long.shape == (WIDTH, 600)
    torch.testing.assert_close(long[:, 510:], bert.characters("你" * 90), atol=1e-5, rtol=0)


def test_the_same_text_is_read_once(tmp_path: Path) -> None:
    bert = BertFeatures(write_bert(tmp_path / "bert"), torch.device("cpu"), WIDTH)
    assert bert.characters("你好") is bert.characters("你好")


def test_what_is_not_here_or_is_another_network_is_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="voxline bases pull"):
        BertFeatures(tmp_path / "none", torch.device("cpu"), WIDTH).characters("你")
    folder = write_bert(tmp_path / "bert")
    with pytest.raises(WeightsError, match="16 wide, this base takes 1024"):
        BertFeatures(folder, torch.device("cpu"), 1024).characters("你")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="no vocabulary"):
        BertFeatures(folder, torch.device("cpu"), WIDTH).characters("你")


def test_half_a_file_of_weights_is_refused(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "bert", layers=3)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 9}))
    with pytest.raises(WeightsError, match="missing"):
        BertFeatures(folder, torch.device("cpu"), WIDTH).characters("你")
