"""What a pretrained BERT makes of Chinese characters, for every phone of them (docs/networks/signals.md).

Letters: D width of the BERT, C characters, P phones.
"""

import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.compat import prepare_torchaudio
from models.errors import WeightsError

LAYERS_LEFT_OUT = 2  # the features are the third hidden state from the end
LONGEST_TEXT = 510  # characters, and two marks around them
KEPT_TEXTS = 256

Span = tuple[str, Sequence[int] | None, int]
"""Normalised text, phones of each of its characters (None: a language without BERT features), number of phones."""


class BertFeatures:
    """Reads its folder when it is first asked, so that voices of other languages never load it."""

    def __init__(self, folder: Path, device: torch.device, width: int) -> None:
        """folder: as `voxline bases pull` leaves it. width: what the text-to-semantic network takes."""
        self.folder, self.device, self.width = folder, device, width
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def of(self, spans: Iterable[Span]) -> Tensor | None:
        """(D, P) for the phones of all spans, zeros where a span has no features; None where none has.

        Raises `WeightsError` where the BERT is needed and not here, or is another network.
        """
        parts = list(spans)
        if not any(counts for _, counts, _ in parts):
            return None
        return torch.cat([self._span(*part) for part in parts], dim=1)

    def _span(self, text: str, counts: Sequence[int] | None, phones: int) -> Tensor:
        if not counts:
            return torch.zeros(self.width, phones)
        return self.characters(text).repeat_interleave(torch.tensor(counts), dim=1)  # (D, C) -> (D, P)

    def characters(self, text: str) -> Tensor:
        """(D, C) on the CPU, float32; the last few texts are kept."""
        if text not in self._kept:
            pieces = [text[start : start + LONGEST_TEXT] for start in range(0, len(text), LONGEST_TEXT)]
            self._kept[text] = torch.cat([self._piece(piece) for piece in pieces], dim=1)
            if len(self._kept) > KEPT_TEXTS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(text)
        return self._kept[text]

    @torch.inference_mode()
    def _piece(self, text: str) -> Tensor:
        if not (self.folder / "config.json").is_file():
            raise WeightsError(f"{self.folder}: no BERT here, and Chinese text needs it: voxline bases pull")
        marks = self._vocabulary
        ids = [marks["[CLS]"], *(marks.get(letter.lower(), marks["[UNK]"]) for letter in text), marks["[SEP]"]]
        hidden = self._network(torch.tensor([ids], device=self.device)).last_hidden_state[0, 1:-1]  # (C, D)
        return hidden.T.float().cpu().clone()

    @cached_property
    def _network(self) -> Any:
        """All layers but the last two: the output of what is left is the hidden state that counts."""
        prepare_torchaudio()  # transformers imports torchaudio
        from transformers import BertConfig, BertModel

        config = BertConfig.from_pretrained(self.folder, local_files_only=True)
        if config.hidden_size != self.width:
            raise WeightsError(f"{self.folder}: features are {config.hidden_size} wide, this base takes {self.width}")
        config.num_hidden_layers -= LAYERS_LEFT_OUT
        loaded: Any = BertModel.from_pretrained(
            self.folder, config=config, add_pooling_layer=False, local_files_only=True, output_loading_info=True
        )
        network, told = loaded
        if told["missing_keys"]:
            raise WeightsError.keys_differ(str(self.folder), told["missing_keys"], [])
        return network.float().eval().requires_grad_(False).to(self.device)

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        """Ids of characters. One token per character is what the features of phones rest on, so text is not cut into
        the tokenizer's word pieces."""
        table, lines = self.folder / "tokenizer.json", self.folder / "vocab.txt"
        try:
            if table.is_file():
                vocabulary = json.loads(table.read_text(encoding="utf-8"))["model"]["vocab"]
            else:
                words = lines.read_text(encoding="utf-8").split("\n")
                vocabulary = {word.strip(): index for index, word in enumerate(words) if word.strip()}
            return {**vocabulary, **{mark: vocabulary[mark] for mark in ("[CLS]", "[SEP]", "[UNK]")}}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{self.folder}: no vocabulary of a BERT in tokenizer.json or vocab.txt") from error
