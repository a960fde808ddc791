"""Voices from a base and adapters: one that speaks, and one whose recordings are spoken again for the gate."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.adapters.lora import load_adapter, merge_adapter
from models.configs.speaker import FbankConfig
from models.encoders.eres2net import SpeakerEncoder
from models.loading.bases import Base
from models.loading.family import Loaded, family_of
from models.loading.networks import load_speaker_encoder, load_text2semantic
from models.sound.fbank import fbank
from models.speaking.options import VoiceOptions
from models.speaking.resynthesis import Resynthesizer
from models.speaking.voice import Voice
from models.text2semantic.decoding import Decoder


@dataclass(frozen=True)
class AdapterFolders:
    """Where the adapters of a voice lie; None where a network has none."""

    text2semantic: Path | None = None
    synthesizer: Path | None = None

    @classmethod
    def inside(cls, folder: Path) -> "AdapterFolders":
        """As training leaves them."""
        return cls(folder / "text2semantic", folder / "synthesizer")


def load_voice(
    base: Base,
    cache: Path,
    device: torch.device,
    adapters: AdapterFolders | None = None,
    options: VoiceOptions | None = None,
) -> Voice:
    """Base plus adapters, merged. Raises `models.errors.ModelsError` where weights are missing or do not fit."""
    adapters, options = adapters or AdapterFolders(), options or VoiceOptions()
    text2semantic, synthesizer = load_text2semantic(base, cache), family_of(base).network(base, cache)
    for network, folder in ((text2semantic, adapters.text2semantic), (synthesizer, adapters.synthesizer)):
        if folder is not None:
            merge_adapter(network, folder)
    decoder = Decoder(text2semantic.to(device), options.text2semantic_weights)
    return join(decoder, Loaded(base, synthesizer.to(device), cache, device), options)


def join(decoder: Decoder, loaded: Loaded[Any], options: VoiceOptions) -> Voice:
    """What chooses tokens and what makes sound of them, with what else of the base a voice needs."""
    family, speaker = family_of(loaded.base), load_speaker_encoder(loaded.base, loaded.cache)
    embed = None if speaker is None else _SpeakerVector(speaker.to(loaded.device))
    return Voice(decoder, family.renderer(loaded, options), family.listener(loaded).hear, embed)


def load_resynthesizer(base: Base, cache: Path, device: torch.device, adapter: Path) -> Resynthesizer:
    """Raises `models.errors.ModelsError` where weights or the adapter are missing or do not fit."""
    family = family_of(base)
    loaded = family.load(base, cache, device)
    load_adapter(loaded.network, adapter)
    loaded.network.eval()
    return family.resynthesizer(loaded)


class _SpeakerVector:
    """16 kHz speech (N,) -> the vector (speaker_dim,) that v2Pro is conditioned on."""

    def __init__(self, encoder: SpeakerEncoder) -> None:
        self.encoder = encoder

    def __call__(self, speech: Tensor) -> Tensor:
        return self.encoder(fbank(speech, FbankConfig())[None])[0]
