"""v3 and v4: tokens to a mel by flow matching, which carries the adapter, and a vocoder, which stays as it is."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from models.adapters.lora import read_adapter
from models.configs.cfm import CfmSynthesizerConfig
from models.learners.cfm import CfmLearner
from models.loading.bases import Base
from models.loading.family import Exported, Family, Loaded, needed
from models.loading.listening import ContentListener, grid_of
from models.loading.networks import load_content_encoder, load_network
from models.loading.recordings import MelFrames, RecordingFeatures
from models.speaking.options import VoiceOptions
from models.speaking.rendering import CfmRenderer
from models.speaking.resynthesis import CfmResynthesizer
from models.synthesizer.bigvgan import BigVGAN
from models.synthesizer.cfm_synthesizer import CfmSynthesizer
from models.synthesizer.vocoder import MelVocoder, build_vocoder
from models.upstream.lora import upstream_lora_weights


def _numbers(base: Base) -> CfmSynthesizerConfig:
    return needed(base.cfm, base, "cfm")


def _bare_synthesizer(base: Base) -> CfmSynthesizer:
    return CfmSynthesizer(_numbers(base))


def _bare_vocoder(base: Base) -> MelVocoder | BigVGAN:
    numbers = base.vocoder or needed(None, base, "vocoder")
    return build_vocoder(numbers)


def load_synthesizer(base: Base, cache: Path) -> CfmSynthesizer:
    """Weight norm folded, in eval mode, frozen, on the CPU."""
    return load_network(base, "synthesizer", cache, partial(_bare_synthesizer, base), fold=True)


def load_vocoder(base: Base, cache: Path) -> MelVocoder | BigVGAN:
    """Weight norm folded, in eval mode, frozen, on the CPU."""
    return load_network(base, "vocoder", cache, partial(_bare_vocoder, base), fold=True)


def _recordings(base: Base, device: torch.device) -> RecordingFeatures:
    numbers = _numbers(base)
    mel = MelFrames(numbers.mel, numbers.frames_ratio)
    return RecordingFeatures(base.sample_rate_hz, numbers.encoder.spectrogram, device, mel)


def _listener(loaded: Loaded[CfmSynthesizer]) -> ContentListener:
    content = load_content_encoder(loaded.base, loaded.cache)
    return ContentListener(content, loaded.network, grid_of(loaded.network), loaded.device)


def _learner(loaded: Loaded[CfmSynthesizer]) -> CfmLearner:
    return CfmLearner(loaded.network, loaded.device)


def _resynthesizer(loaded: Loaded[CfmSynthesizer]) -> CfmResynthesizer:
    vocoder = load_vocoder(loaded.base, loaded.cache).to(loaded.device)
    return CfmResynthesizer(loaded.network, vocoder, loaded.device)


def _renderer(loaded: Loaded[CfmSynthesizer], options: VoiceOptions) -> CfmRenderer:
    vocoder = load_vocoder(loaded.base, loaded.cache)
    return CfmRenderer(loaded.network, vocoder, loaded.base.sample_rate_hz, loaded.device, steps=options.cfm_steps)


def _export(base: Base, cache: Path, adapter: Path) -> Exported:
    """The adapter alone, as a LoRA file: GPT-SoVITS adds it to its own weights."""
    pairs, rank = _scaled_pairs(adapter)
    return Exported(upstream_lora_weights(pairs, {}, {}), _numbers(base).encoder, lora_rank=rank)


def _scaled_pairs(adapter: Path) -> tuple[dict[str, tuple[Tensor, Tensor]], int]:
    """A and B by module, with our scale alpha / rank multiplied into B: GPT-SoVITS takes alpha = rank for granted."""
    config, state = read_adapter(adapter)
    scale = config["lora_alpha"] / config["r"]
    modules = {name.removesuffix(".lora_A.weight") for name in state if name.endswith(".lora_A.weight")}
    pairs = {
        module: (state[f"{module}.lora_A.weight"], state[f"{module}.lora_B.weight"] * scale)
        for module in sorted(modules)
    }
    return pairs, config["r"]


FLOW_MATCHING = Family(
    network=load_synthesizer,
    bare={"synthesizer": _bare_synthesizer, "vocoder": _bare_vocoder},
    recordings=_recordings,
    listener=_listener,
    learner=_learner,
    resynthesizer=_resynthesizer,
    renderer=_renderer,
    takes_several=CfmRenderer.takes_several,
    export=_export,
)
