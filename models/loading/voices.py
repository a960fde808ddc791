"""Voices from a base and adapters: one that speaks, and one whose recordings are spoken again for the gate."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

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


def load_voice(
    base: Base,
    cache: Path,
    device: torch.device,
    adapters: AdapterFolders | None = None,
    options: VoiceOptions | None = None,
) -> Voice:
    """Base plus adapters, merged. Raises `models.errors.ModelsError` where weights are missing or do not fit."""
    adapters, options = adapters or AdapterFolders(), options or VoiceOptions()
    text2semantic = load_text2semantic(base, cache)
    _adapt(text2semantic, adapters.text2semantic)
    family = family_of(base)
    synthesizer = family.network(base, cache)
    _adapt(synthesizer, adapters.synthesizer)
    loaded = Loaded(base, synthesizer.to(device), cache, device)
    renderer = family.renderer(loaded, options)
    decoder = Decoder(text2semantic.to(device), options.text2semantic_weights)
    speaker = load_speaker_encoder(base, cache)
    embed = None if speaker is None else SpeakerVector(speaker.to(device))
    return Voice(decoder, renderer, family.listener(loaded).hear, embed)


def load_resynthesizer(base: Base, cache: Path, device: torch.device, adapter: Path) -> Resynthesizer:
    """Raises `models.errors.ModelsError` where weights or the adapter are missing or do not fit."""
    family = family_of(base)
    loaded = family.load(base, cache, device)
    load_adapter(loaded.network, adapter)
    loaded.network.eval()
    return family.resynthesizer(loaded)


def _adapt(network: nn.Module, folder: Path | None) -> None:
    if folder is not None:
        merge_adapter(network, folder)


class SpeakerVector:
    """16 kHz speech (N,) -> the vector (speaker_dim,) that v2Pro is conditioned on."""

    def __init__(self, encoder: SpeakerEncoder) -> None:
        self.encoder = encoder

    def __call__(self, speech: Tensor) -> Tensor:
        return self.encoder(fbank(speech, FbankConfig())[None])[0]
