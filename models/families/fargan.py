"""Bases that speak through FARGAN: an acoustic model, which carries the adapter, and the published vocoder."""

from functools import partial
from pathlib import Path

import torch

from models.configs.acoustic import FarganSynthesizerConfig
from models.errors import ConfigError
from models.learners.acoustic import AcousticLearner
from models.loading.bases import Base
from models.loading.family import Family, Loaded
from models.loading.listening import ContentListener, Grid
from models.loading.networks import load_content_encoder, load_network
from models.loading.recordings import FarganRecordings
from models.speaking.fargan import FarganRenderer, FarganResynthesizer
from models.speaking.options import VoiceOptions
from models.synthesizer.fargan_synthesizer import FarganSynthesizer


def _numbers(base: Base) -> FarganSynthesizerConfig:
    numbers = base.networks.get("synthesizer")
    if not isinstance(numbers, FarganSynthesizerConfig):
        raise ConfigError(f"base {base.name} is of family {base.family}: its base.yaml needs networks.synthesizer")
    return numbers


def _bare_synthesizer(base: Base) -> FarganSynthesizer:
    return FarganSynthesizer(_numbers(base))


def _network(base: Base, cache: Path) -> FarganSynthesizer:
    return load_network(base, "synthesizer", cache, partial(FarganSynthesizer, _numbers(base)))


def _recordings(base: Base, device: torch.device) -> FarganRecordings:
    return FarganRecordings()


def _listener(loaded: Loaded[FarganSynthesizer]) -> ContentListener:
    grid = Grid(loaded.base.sample_rate_hz, loaded.base.hop_samples)
    return ContentListener(load_content_encoder(loaded.base, loaded.cache), loaded.network, grid, loaded.device)


def _learner(loaded: Loaded[FarganSynthesizer]) -> AcousticLearner:
    return AcousticLearner(loaded.network, loaded.device)


def _resynthesizer(loaded: Loaded[FarganSynthesizer]) -> FarganResynthesizer:
    return FarganResynthesizer(loaded.network, loaded.device)


def _renderer(loaded: Loaded[FarganSynthesizer], options: VoiceOptions) -> FarganRenderer:
    return FarganRenderer(loaded.network, loaded.device)


FARGAN = Family(
    network=_network,
    bare={"synthesizer": _bare_synthesizer},
    recordings=_recordings,
    listener=_listener,
    learner=_learner,
    resynthesizer=_resynthesizer,
    renderer=_renderer,
    takes_several=FarganRenderer.takes_several,
)
