"""One recipe in one work folder: what every stage of a pretraining is made with, whatever the family."""

from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from models.configs.content import PhoneEncoderConfig
from models.encoders.content import PhoneEncoder
from models.errors import ConfigError
from models.loading.bases import BASES, Base, load_base
from models.loading.networks import build_network
from models.synthesizer.tokens import SemanticTokens
from models.text2semantic.guidance import TextGuide
from models.text2semantic.network import Text2Semantic
from pipeline.errors import SettingsError
from pipeline.pretrain.gpt import set_guide
from pipeline.pretrain.loop import Run, load_network
from pipeline.pretrain.prepare import Corpus, prepare
from pipeline.pretrain.recipe import Recipe, Stage

CODEBOOK = "codebook.safetensors"


class Session:
    """Data and new networks of one pretraining."""

    def __init__(self, recipe: Recipe, data_root: Path, work: Path, device: torch.device) -> None:
        self.recipe, self.data_root, self.work, self.device = recipe, data_root, work, device
        try:
            self.base: Base = load_base(recipe.base, recipe.bases or BASES)
        except ConfigError as error:
            raise SettingsError(str(error)) from error
        if self.base.text2semantic is None or self.base.content is None:
            raise SettingsError(f"base {recipe.base}: pretraining needs synthesizer, text2semantic and content")

    def stage(self, name: str) -> Stage:
        if name not in self.recipe.stages:
            raise SettingsError(f"the recipe has no stage {name}; it has {', '.join(self.recipe.stages)}")
        return self.recipe.stages[name]

    def run(self, name: str) -> Run:
        """How and where a stage trains."""
        return Run(self.stage(name), self.work / name, self.recipe.seed, self.device)

    @cached_property
    def corpora(self) -> tuple[Corpus, Corpus]:
        """Training clips and held-out clips."""
        return prepare(self.recipe, self.data_root, self.work / "prepare")

    def new_encoder(self) -> PhoneEncoder:
        torch.manual_seed(self.recipe.seed)
        return PhoneEncoder(PhoneEncoderConfig.model_validate(self.base.content))

    def encoder(self) -> PhoneEncoder:
        encoder = self.new_encoder()
        load_network(encoder, self.work / "content")
        return encoder.eval()

    def new_synthesizer(self) -> SemanticTokens:
        """The network that makes sound, as its family builds it."""
        torch.manual_seed(self.recipe.seed)
        network = build_network(self.base, "synthesizer")
        assert isinstance(network, SemanticTokens)
        return network

    def new_text2semantic(self) -> Text2Semantic:
        torch.manual_seed(self.recipe.seed)
        assert self.base.text2semantic is not None
        return Text2Semantic(self.base.text2semantic)

    def load_codebook(self, network: nn.Module) -> None:
        path = self.work / "quantizer" / CODEBOOK
        if not path.exists():
            raise SettingsError(f"{path} is missing: run the stage quantizer first")
        network.load_state_dict(load_file(path), strict=False)

    def guide(self, network: SemanticTokens) -> TextGuide | None:
        """The guide as the stage gpt will set it, where the base has one; `network` has the codebook."""
        guide = self.new_text2semantic().guide
        if guide is not None:
            set_guide(guide, network.quantizer.codebook.embed, self.corpora[0])
        return guide

    def cached(self, corpus: str, file: str) -> Path:
        return self.work / "prepare" / corpus / file
