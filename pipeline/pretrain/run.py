"""The stages of a pretraining in their order; each continues where it was stopped and is skipped when it is done."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from models.configs.content import PhoneEncoderConfig
from models.encoders.content import PhoneEncoder
from models.errors import ConfigError
from models.loading.bases import BASES, Base, load_base
from models.loading.networks import build_network
from models.synthesizer.fargan_synthesizer import FarganSynthesizer
from models.synthesizer.tokens import SemanticTokens
from models.text2semantic.guidance import TextGuide
from models.text2semantic.network import Text2Semantic
from pipeline.errors import SettingsError
from pipeline.pretrain.acoustic import HeardClip, HeardClips, fargan_features, heard_clip, train_acoustic
from pipeline.pretrain.content import train_content
from pipeline.pretrain.features import clip_symbols, clip_tokens
from pipeline.pretrain.gpt import Spans, set_guide, train_gpt
from pipeline.pretrain.loop import CHECKPOINT, Run, load_network
from pipeline.pretrain.prepare import Corpus, prepare
from pipeline.pretrain.quantizer import fit_quantizer
from pipeline.pretrain.recipe import Recipe, Stage

CODEBOOK = "codebook.safetensors"
SPREADING_EVERY = 8  # clip: enough to measure how much recordings vary
RECIPES = "recipes/"


class Pretraining:
    """One recipe in one work folder."""

    def __init__(self, recipe: Recipe, data_root: Path, work: Path, device: torch.device) -> None:
        self.recipe, self.data_root, self.work, self.device = recipe, data_root, work, device
        try:
            self.base: Base = load_base(recipe.base, recipe.bases or BASES)
        except ConfigError as error:
            raise SettingsError(str(error)) from error
        if self.base.text2semantic is None or self.base.content is None:
            raise SettingsError(f"base {recipe.base}: pretraining needs synthesizer, text2semantic and content")
        self.stages: dict[str, Callable[[], None]] = {
            "content": self.content,
            "quantizer": self.quantizer,
            "acoustic": self.acoustic,
            "gpt": self.gpt,
            "export": self.export,
        }
        unknown = recipe.stages.keys() - self.stages.keys()
        if unknown:
            known = ", ".join(self.stages)
            raise SettingsError(f"the recipe tells of stages {', '.join(sorted(unknown))}; there are {known}")

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

    def content(self) -> None:
        train, held_out = self.corpora
        train_content(self._new_encoder(), train, held_out, self.run("content"))

    def quantizer(self) -> None:
        """k-means over features; quick, so it is not resumed but done again."""
        network, folder = self._new_synthesizer(), self.work / "quantizer"
        fit = fit_quantizer(network, self._encoder(), self.corpora[0], self.recipe.seed)
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: v for k, v in network.state_dict().items() if k.startswith(("ssl_proj.", "quantizer."))}
        save_file(state, folder / CODEBOOK, {name: f"{value:.5g}" for name, value in fit.items()})
        for stale in self.work.glob("prepare/*/*tokens.npz"):
            stale.unlink()

    def acoustic(self) -> None:
        network, run = self._new_synthesizer(), self.run("acoustic")
        self._set_reader(network)
        clips = HeardClips(*(self._heard(name, network) for name in ("train", "held_out")))
        train_acoustic(network.acoustic.to(self.device), clips, run)

    def gpt(self) -> None:
        network = self._new_synthesizer()
        self._load_codebook(network)
        run, stage = self.run("gpt"), self.stage("gpt")
        tokens = [
            clip_tokens(self._encoder(), network, corpus, self._cached(name, "tokens.npz"))
            for name, corpus in zip(("train", "held_out"), self.corpora, strict=True)
        ]
        heard, unheard = self.corpora
        text2semantic = self._new_text2semantic()
        if text2semantic.guide is not None:
            set_guide(text2semantic.guide, network.quantizer.codebook.embed, heard)
        kept = {
            "sentences": Spans(heard, tokens[0], stage, "unheard"),
            "speakers": Spans(unheard, tokens[1], stage, "all"),
        }
        train_gpt(text2semantic.to(self.device), Spans(heard, tokens[0], stage, "heard"), kept, run)

    def export(self) -> None:
        """Half-precision weights of every finished stage, into `<work>/export`, as base.yaml names them."""
        folder = self.work / "export"
        folder.mkdir(parents=True, exist_ok=True)
        for role, stage, network in (
            ("content", "content", self._new_encoder()),
            ("synthesizer", "acoustic", self._new_synthesizer()),
            ("text2semantic", "gpt", self._new_text2semantic()),
        ):
            if not (self.work / stage / CHECKPOINT).exists():
                continue
            steps = self._finish(network, stage)
            state = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
            save_file(state, folder / f"{role}.safetensors", {"step": str(steps)})

    def _finish(self, network: nn.Module, stage: str) -> int:
        """Put a stage's weights in, and what is measured with them; how many steps they were trained."""
        if isinstance(network, FarganSynthesizer):
            self._set_reader(network)
            steps = load_network(network.acoustic, self.work / stage)
            recorded = [one for one in self._heard("train", network) if not one.synthetic]
            network.eval().set_spreading([(one.spoken, one.own, one.features) for one in recorded[::SPREADING_EVERY]])
            return steps
        return load_network(network, self.work / stage)

    def _set_reader(self, network: FarganSynthesizer) -> None:
        self._load_codebook(network)
        set_guide(network.reader, network.quantizer.codebook.embed, self.corpora[0])

    def _heard(self, name: str, network: FarganSynthesizer) -> list[HeardClip]:
        """The transcribed clips of a corpus, their phones laid along tokens that say them."""
        corpus = self.corpora[0 if name == "train" else 1]
        tokens = clip_tokens(
            self._encoder(), network, corpus, self._cached(name, "said_tokens.npz"), self._guide(network)
        )
        features = fargan_features(corpus, self._cached(name, "fargan.npz"))
        found = []
        for clip, said, rows in zip(corpus.clips, tokens, features, strict=True):
            if clip.text and not clip.guessed and "synthesizer" in clip.uses:
                heard = heard_clip(network, clip, torch.from_numpy(said), clip_symbols(clip), rows)
                found += [heard] if heard else []
        return found

    def _guide(self, network: SemanticTokens) -> TextGuide | None:
        """The guide as the stage gpt will set it, where the base has one; `network` has the codebook."""
        guide = self._new_text2semantic().guide
        if guide is not None:
            set_guide(guide, network.quantizer.codebook.embed, self.corpora[0])
        return guide

    def _cached(self, corpus: str, file: str) -> Path:
        return self.work / "prepare" / corpus / file

    def _new_encoder(self) -> PhoneEncoder:
        torch.manual_seed(self.recipe.seed)
        return PhoneEncoder(PhoneEncoderConfig.model_validate(self.base.content))

    def _encoder(self) -> PhoneEncoder:
        encoder = self._new_encoder()
        load_network(encoder, self.work / "content")
        return encoder.eval()

    def _new_synthesizer(self) -> FarganSynthesizer:
        torch.manual_seed(self.recipe.seed)
        network = build_network(self.base, "synthesizer")
        if not isinstance(network, FarganSynthesizer):
            raise SettingsError(
                f"base {self.base.name} of family {self.base.family} is not trained here: see {RECIPES}"
            )
        return network

    def _new_text2semantic(self) -> Text2Semantic:
        torch.manual_seed(self.recipe.seed)
        assert self.base.text2semantic is not None
        return Text2Semantic(self.base.text2semantic)

    def _load_codebook(self, network: nn.Module) -> None:
        path = self.work / "quantizer" / CODEBOOK
        if not path.exists():
            raise SettingsError(f"{path} is missing: run the stage quantizer first")
        network.load_state_dict(load_file(path), strict=False)


def run_pretraining(recipe: Recipe, data_root: Path, work: Path, device: torch.device, stages: list[str]) -> None:
    """Run the named stages, or all of them, in their order. Raises `SettingsError` for an unknown one."""
    pretraining = Pretraining(recipe, data_root, work, device)
    unknown = set(stages) - set(pretraining.stages)
    if unknown:
        raise SettingsError(f"no stage {', '.join(sorted(unknown))}; there are {', '.join(pretraining.stages)}")
    for name, run in pretraining.stages.items():
        if not stages or name in stages:
            run()
