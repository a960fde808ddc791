"""A voice from a base and adapters. Device, weights and precision are chosen here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from models.adapters.lora import merge_adapter
from models.configs.speaker import FbankConfig
from models.encoders.eres2net import SpeakerEncoder
from models.loading.bases import Base
from models.loading.networks import (
    load_any_synthesizer,
    load_content_encoder,
    load_speaker_encoder,
    load_text2semantic,
    load_vocoder,
)
from models.machine.processor import ProcessorError, require, works
from models.sound.fbank import fbank
from models.speaking.rendering import CfmRenderer, Renderer, VitsRenderer
from models.speaking.voice import Voice
from models.synthesizer.vits import Synthesizer
from models.synthesizer.wave_heads import HifiGanDecoder
from models.text2semantic.decoding import Decoder
from models.text2semantic.projections import WeightKind


@dataclass(frozen=True)
class VoiceOptions:
    """How a voice computes. The lighter kinds lose a little and are never chosen for you.

    `text2semantic_weights`: see `models.text2semantic.decoding.compare_weights` for what bf16 and int8 cost.
    `wave_precision`: of a HiFi-GAN type decoder on a CPU; others are fast as they are.
    `cfm_steps`: of v3 and v4; None as the base says.
    """

    text2semantic_weights: WeightKind = "f32"
    wave_precision: Literal["f32", "bf16"] = "f32"
    cfm_steps: int | None = None


Precision = Literal["f32", "bf16", "int8"]
# What a user asks for by one word.
PRECISIONS: dict[Precision, VoiceOptions] = {
    "f32": VoiceOptions(),
    "bf16": VoiceOptions("bf16", "bf16"),
    "int8": VoiceOptions("int8", "bf16"),
}
INT8_WITHOUT_BF16 = "int8: this processor has no bf16 for the rest of the work; that is computed in float32"


def choose_options(precision: Precision, device: torch.device) -> tuple[VoiceOptions, list[str]]:
    """How a precision is computed here, and what is different from elsewhere, a line each.

    Raises ProcessorError where this processor does not have it; nothing takes its place unasked.
    """
    options = PRECISIONS[precision]
    if precision == "int8" and device.type != "cpu":
        raise ProcessorError(f"int8: its weights are for decoding on a CPU, not on {device.type}")
    if device.type != "cpu" or precision == "f32":
        return options, []
    require(precision)
    if works("bf16"):
        return options, []
    return replace(options, wave_precision="f32"), [INT8_WITHOUT_BF16]


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
    synthesizer = load_any_synthesizer(base, cache)
    _adapt(synthesizer, adapters.synthesizer)
    renderer: Renderer
    if isinstance(synthesizer, Synthesizer):
        renderer = vits_renderer(synthesizer, device, options)
    else:
        renderer = CfmRenderer(
            synthesizer, load_vocoder(base, cache), base.sample_rate_hz, device, steps=options.cfm_steps
        )
    decoder = Decoder(text2semantic.to(device), options.text2semantic_weights)
    speaker = load_speaker_encoder(base, cache)
    embed = None if speaker is None else _SpeakerVector(speaker.to(device))
    return Voice(decoder, renderer, load_content_encoder(base, cache).to(device), embed)


def vits_renderer(synthesizer: Synthesizer, device: torch.device, options: VoiceOptions) -> VitsRenderer:
    """Takes the synthesizer over; its adapters, if any, have to be merged."""
    if device.type == "cpu":
        is_lighter = options.wave_precision == "bf16" and isinstance(synthesizer.dec, HifiGanDecoder)
        if is_lighter:
            require("bf16")
        synthesizer.prepare_for_inference("bfloat16" if is_lighter else "float32")
    return VitsRenderer(synthesizer, device)


def _adapt(network: nn.Module, folder: Path | None) -> None:
    if folder is not None:
        merge_adapter(network, folder)


class _SpeakerVector:
    """16 kHz speech (N,) -> the vector (speaker_dim,) that v2Pro is conditioned on."""

    def __init__(self, encoder: SpeakerEncoder) -> None:
        self.encoder = encoder

    def __call__(self, speech: Tensor) -> Tensor:
        return self.encoder(fbank(speech, FbankConfig())[None])[0]
