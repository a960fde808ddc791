"""One base in memory, and the voices on it as small tensors: what a server speaks with.

`models/loading/voices.py` merges an adapter into a base of its own. Here the networks of the base are there once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from models.adapters.plugged import LowRank, Plug, read_low_rank
from models.encoders.bert import BertFeatures
from models.loading.bases import Base
from models.loading.family import Loaded, family_of
from models.loading.networks import load_bert, load_text2semantic
from models.loading.voices import AdapterFolders, join
from models.speaking.options import VoiceOptions
from models.speaking.rendering import PreparedReference
from models.text2semantic.rows import PluggedDecoder, Rows
from models.weights import read_weights

TENSORS = ("tokens", "ge", "phones", "bert", "prompt_mel", "prompt_features")


@dataclass(frozen=True, eq=False)
class Adapters:
    """Both adapters of a voice."""

    text2semantic: LowRank
    synthesizer: LowRank

    @property
    def size_bytes(self) -> int:
        return self.text2semantic.size_bytes + self.synthesizer.size_bytes


class SharedBase:
    """A base that many voices speak through.

    Attributes:
        voice: the networks that speak together; who calls them says with which adapters (`carrying`).
        rows: the batch that tokens of all voices are drawn in.
    """

    def __init__(self, base: Base, cache: Path, device: torch.device, most_rows: int) -> None:
        self.base = base
        self._text2semantic: Any = load_text2semantic(base, cache).to(device)
        self._synthesizer = family_of(base).network(base, cache)
        self._plug = Plug(self._synthesizer)
        loaded = Loaded(base, self._synthesizer.to(device), cache, device)
        decoder = PluggedDecoder(self._text2semantic)
        self.voice = join(decoder, loaded, VoiceOptions(keeps_modules=True))
        self.rows = Rows(decoder, decoder.config.sampling, most_rows)
        self.bert: BertFeatures | None = load_bert(base, cache, device)

    def read(self, folders: AdapterFolders) -> Adapters:
        """The adapters of a voice. Raises `models.errors.WeightsError` where they are damaged or of another base."""
        synthesizer = read_low_rank(self._synthesizer, folders.synthesizer)
        self._plug.cover(synthesizer)
        return Adapters(read_low_rank(self._text2semantic, folders.text2semantic), synthesizer)

    @contextmanager
    def carrying(self, adapters: Adapters) -> Iterator[None]:
        """Inside, in this thread, the synthesizer is that of the voice."""
        with self._plug.carrying(adapters.synthesizer), torch.no_grad():
            yield


def write_prepared(prepared: PreparedReference, path: Path) -> None:
    """Keep what the networks made of a reference clip: to hear it again takes longer than to load a voice."""
    tensors = {name: value for name in TENSORS if (value := getattr(prepared, name)) is not None}
    save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, path)


def read_prepared(path: Path, device: torch.device) -> PreparedReference:
    """What `write_prepared` kept. Raises `models.errors.WeightsError` where it is damaged."""
    # Copied: what is read lies in the file's own pages, and who changes the file would change the voice.
    tensors = {name: value.to(device, copy=True) for name, value in read_weights(path).items()}
    return PreparedReference(**{name: tensors.get(name) for name in TENSORS})  # type: ignore[arg-type]
