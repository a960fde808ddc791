"""The YAML file that describes one pretraining: data, sizes are in base.yaml, optimisation here."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from pipeline.errors import SettingsError


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Strict):
    """Speech of one manifest (`file|speaker|language|text|seconds|license`, header line, paths relative to it)."""

    manifest: Path  # relative to the data root
    uses: tuple[Literal["content", "synthesizer", "gpt"], ...] = ("content", "synthesizer", "gpt")
    transcripts: Path | None = None  # texts that the manifest lacks (`file|text`), relative to the recipe
    weight: PositiveFloat = 1.0  # how often its clips are drawn, against those of a source with 1
    synthetic: bool = False  # spoken by another synthesizer: teaches words and melody, not how speakers differ

    def beside(self, recipe: Path) -> "Source":
        """With the place of its transcripts, which the recipe's file knows."""
        found = recipe.parent / self.transcripts if self.transcripts else None
        return self.model_copy(update={"transcripts": found})


class Stage(_Strict):
    """How long and how fast one network is trained."""

    steps: PositiveInt
    batch: PositiveInt
    lr: PositiveFloat
    warmup_steps: PositiveInt = 100
    weight_decay: float = Field(default=0.01, ge=0)
    clip_norm: PositiveFloat = 5.0
    segment_s: PositiveFloat = 3.0
    checkpoint_every_s: PositiveFloat = 60.0
    options: dict[str, float] = Field(default_factory=dict)  # weights of the stage's losses


class Recipe(_Strict):
    """Everything `voxline pretrain` needs beside the numbers of the networks in base.yaml."""

    base: str
    bases: Path | None = None  # folder of a base that the package does not have yet, relative to the recipe
    seed: int = 1234
    sources: tuple[Source, ...]
    exclude_speakers: tuple[str, ...] = ()
    held_out_voices: tuple[Path, ...] = ()  # voice folders below the data root: measured on, never trained on
    stages: dict[str, Stage]


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe; raises `SettingsError` with file, key and value."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        recipe = Recipe.model_validate(content)
        sources = tuple(source.beside(path) for source in recipe.sources)
        bases = path.parent / recipe.bases if recipe.bases else None
        return recipe.model_copy(update={"sources": sources, "bases": bases})
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise SettingsError(f"{path}: {error}") from error
