"""A recogniser that transformers can load: here a tiny CTC model of random numbers, saved and read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from models.errors import WeightsError
from models.judges.transcriber import load_recogniser

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    folder = tmp_path_factory.mktemp("recogniser")
    symbols = ["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS]
    (folder / "vocab.json").write_text(json.dumps({symbol: number for number, symbol in enumerate(symbols)}))
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(symbols), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=[8] * 3, conv_stride=[5, 4, 4], conv_kernel=[10, 8, 8], num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=16_000, return_attention_mask=True).save_pretrained(folder)
    return folder


def test_speech_becomes_text_and_the_same_speech_the_same(model) -> None:
    recognise = load_recogniser(str(model), torch.device("cpu"), "en")
    speech = 0.1 * torch.randn(32_000, generator=torch.Generator().manual_seed(1))
    text = recognise(speech)
    assert isinstance(text, str) and set(text.lower()) <= set(LETTERS + " <unk>/s")
    assert recognise(speech) == text


def test_a_folder_without_a_recogniser_is_named(tmp_path) -> None:
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_recogniser(str(tmp_path), torch.device("cpu"), "en")
