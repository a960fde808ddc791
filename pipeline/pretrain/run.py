"""The stages of a pretraining in their order; each continues where it was stopped and is skipped when it is done."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.errors import SettingsError
from pipeline.pretrain.content import train_content
from pipeline.pretrain.family import training_of
from pipeline.pretrain.features import clip_tokens
from pipeline.pretrain.gpt import Spans, set_guide, train_gpt
from pipeline.pretrain.loop import CHECKPOINT, load_network
from pipeline.pretrain.quantizer import fit_quantizer
from pipeline.pretrain.recipe import Recipe
from pipeline.pretrain.session import CODEBOOK, Session


class Pretraining(Session):
    """The stages of one recipe: those that every family has, and between them those of its base's family."""

    def __init__(self, recipe: Recipe, data_root: Path, work: Path, device: torch.device) -> None:
        super().__init__(recipe, data_root, work, device)
        self.family = training_of(self.base)
        self.stages: dict[str, Callable[[], None]] = {
            "content": self.content,
            "quantizer": self.quantizer,
            **{name: partial(stage, self) for name, stage in self.family.stages.items()},
            "gpt": self.gpt,
            "export": self.export,
        }
        unknown = recipe.stages.keys() - self.stages.keys()
        if unknown:
            known = ", ".join(self.stages)
            raise SettingsError(f"the recipe tells of stages {', '.join(sorted(unknown))}; there are {known}")

    def content(self) -> None:
        train, held_out = self.corpora
        train_content(self.new_encoder(), train, held_out, self.run("content"))

    def quantizer(self) -> None:
        """k-means over features; quick, so it is not resumed but done again."""
        network, folder = self.new_synthesizer(), self.work / "quantizer"
        fit = fit_quantizer(network, self.encoder(), self.corpora[0], self.recipe.seed)
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: v for k, v in network.state_dict().items() if k.startswith(("ssl_proj.", "quantizer."))}
        save_file(state, folder / CODEBOOK, {name: f"{value:.5g}" for name, value in fit.items()})
        for stale in self.work.glob("prepare/*/*tokens.npz"):
            stale.unlink()

    def gpt(self) -> None:
        network = self.new_synthesizer()
        self.load_codebook(network)
        run, stage = self.run("gpt"), self.stage("gpt")
        tokens = [
            clip_tokens(self.encoder(), network, corpus, self.cached(name, "tokens.npz"))
            for name, corpus in zip(("train", "held_out"), self.corpora, strict=True)
        ]
        heard, unheard = self.corpora
        text2semantic = self.new_text2semantic()
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
        content, synthesizer, text2semantic = self.new_encoder(), self.new_synthesizer(), self.new_text2semantic()
        made: tuple[tuple[str, str, nn.Module, Callable[[], int]], ...] = (
            ("content", "content", content, lambda: load_network(content, self.work / "content")),
            ("synthesizer", self.family.last, synthesizer, lambda: self.family.finish(self, synthesizer)),
            ("text2semantic", "gpt", text2semantic, lambda: load_network(text2semantic, self.work / "gpt")),
        )
        for role, stage, network, finish in made:
            if not (self.work / stage / CHECKPOINT).exists():
                continue
            steps = finish()
            state = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
            save_file(state, folder / f"{role}.safetensors", {"step": str(steps)})


def run_pretraining(recipe: Recipe, data_root: Path, work: Path, device: torch.device, stages: list[str]) -> None:
    """Run the named stages, or all of them, in their order. Raises `SettingsError` for an unknown one."""
    pretraining = Pretraining(recipe, data_root, work, device)
    unknown = set(stages) - set(pretraining.stages)
    if unknown:
        raise SettingsError(f"no stage {', '.join(sorted(unknown))}; there are {', '.join(pretraining.stages)}")
    for name, run in pretraining.stages.items():
        if not stages or name in stages:
            run()
