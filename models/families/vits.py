"""v2 and v2Pro: one network from tokens to wave, a VAE with a flow prior."""

from functools import partial
from pathlib import Path

import torch

from models.adapters.lora import merge_adapter
from models.blocks.weight_norm import unfold_state_dict
from models.configs.synthesizer import SynthesizerConfig
from models.learners.discriminator import Discriminator
from models.learners.vits import SynthesizerLearner
from models.loading.bases import Base
from models.loading.family import Exported, Family, Loaded, needed
from models.loading.listening import ContentListener, grid_of
from models.loading.networks import load_content_encoder, load_network
from models.loading.recordings import RecordingFeatures
from models.speaking.options import VoiceOptions
from models.speaking.rendering import VitsRenderer, vits_renderer
from models.speaking.resynthesis import VitsResynthesizer
from models.synthesizer.vits import Synthesizer


def _numbers(base: Base) -> SynthesizerConfig:
    return needed(base.synthesizer, base, "synthesizer")


def _bare_synthesizer(base: Base) -> Synthesizer:
    return Synthesizer(_numbers(base))


def _bare_discriminator(base: Base) -> Discriminator:
    return Discriminator(needed(base.discriminator, base, "discriminator"))


def load_synthesizer(base: Base, cache: Path) -> Synthesizer:
    """Weight norm folded, in eval mode, frozen, on the CPU."""
    return load_network(base, "synthesizer", cache, partial(_bare_synthesizer, base), fold=True)


def _recordings(base: Base, device: torch.device) -> RecordingFeatures:
    return RecordingFeatures(base.sample_rate_hz, _numbers(base).spectrogram, device)


def _listener(loaded: Loaded[Synthesizer]) -> ContentListener:
    content = load_content_encoder(loaded.base, loaded.cache)
    return ContentListener(content, loaded.network, grid_of(loaded.network), loaded.device)


def _learner(loaded: Loaded[Synthesizer]) -> SynthesizerLearner:
    """With the discriminator, where the base has one with weights; a random one would teach nothing."""
    judge = None
    if loaded.base.discriminator is not None and "discriminator" in loaded.base.weights:
        build = partial(_bare_discriminator, loaded.base)
        judge = load_network(loaded.base, "discriminator", loaded.cache, build).to(loaded.device)
    return SynthesizerLearner(loaded.network, judge, loaded.device)


def _resynthesizer(loaded: Loaded[Synthesizer]) -> VitsResynthesizer:
    return VitsResynthesizer(loaded.network, loaded.device)


def _renderer(loaded: Loaded[Synthesizer], options: VoiceOptions) -> VitsRenderer:
    return vits_renderer(loaded.network, loaded.device, options)


def _export(base: Base, cache: Path, adapter: Path) -> Exported:
    """Whole weights, the adapter merged, with weight norm's pairs."""
    network = load_synthesizer(base, cache)
    merge_adapter(network, adapter)
    with torch.device("meta"):
        names = _bare_synthesizer(base).state_dict()
    return Exported(unfold_state_dict(network.state_dict(), names), _numbers(base))


VITS = Family(
    network=load_synthesizer,
    bare={"synthesizer": _bare_synthesizer, "discriminator": _bare_discriminator},
    recordings=_recordings,
    listener=_listener,
    learner=_learner,
    resynthesizer=_resynthesizer,
    renderer=_renderer,
    takes_several=VitsRenderer.takes_several,
    export=_export,
)
