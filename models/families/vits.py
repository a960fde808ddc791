"""v2 and v2Pro: one network from tokens to wave, a VAE with a flow prior."""

from pathlib import Path

import torch
from torch import nn

from models.adapters.lora import merge_adapter
from models.blocks.weight_norm import unfold_state_dict
from models.configs.synthesizer import SynthesizerConfig
from models.errors import ConfigError
from models.learners.discriminator import Discriminator
from models.learners.vits import SynthesizerLearner
from models.loading.bases import Base
from models.loading.family import Exported, Family, Loaded
from models.loading.listening import ContentListener, grid_of
from models.loading.networks import load_content_encoder, load_discriminator, load_synthesizer
from models.loading.recordings import RecordingFeatures
from models.speaking.options import VoiceOptions
from models.speaking.rendering import VitsRenderer, vits_renderer
from models.speaking.resynthesis import VitsResynthesizer
from models.synthesizer.vits import Synthesizer


def _numbers(base: Base) -> SynthesizerConfig:
    if base.synthesizer is None:
        raise ConfigError(f"base {base.name} is of family {base.family}: its base.yaml needs synthesizer")
    return base.synthesizer


def _bare_synthesizer(base: Base) -> Synthesizer:
    return Synthesizer(_numbers(base))


def _bare_discriminator(base: Base) -> nn.Module:
    if base.discriminator is None:
        raise ConfigError(f"base {base.name} has no discriminator")
    return Discriminator(base.discriminator)


def _recordings(base: Base, device: torch.device) -> RecordingFeatures:
    return RecordingFeatures(base.sample_rate_hz, _numbers(base).spectrogram, device)


def _listener(loaded: Loaded[Synthesizer]) -> ContentListener:
    content = load_content_encoder(loaded.base, loaded.cache)
    return ContentListener(content, loaded.network, grid_of(loaded.network), loaded.device)


def _learner(loaded: Loaded[Synthesizer]) -> SynthesizerLearner:
    """With the discriminator, where the base has one."""
    discriminator = load_discriminator(loaded.base, loaded.cache)
    judge = discriminator.to(loaded.device) if discriminator is not None else None
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
