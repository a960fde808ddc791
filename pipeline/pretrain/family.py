"""What a family brings to its pretraining: the stages of the network that makes sound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from models.configs.families import FAMILIES, load
from models.loading.bases import Base
from models.synthesizer.tokens import SemanticTokens
from pipeline.errors import SettingsError
from pipeline.pretrain.session import Session


@dataclass(frozen=True)
class FamilyTraining:
    """A row of `models/configs/families.py` points to it.

    Attributes:
        stages: by the name in the recipe, in their order: after the quantizer, before the text-to-semantic network.
        finish: puts the last stage's weights into a new network, and what is measured with them; returns the steps.
    """

    stages: Mapping[str, Callable[[Session], None]]
    finish: Callable[[Session, SemanticTokens], int]

    @property
    def last(self) -> str:
        """The stage whose weights are exported."""
        return list(self.stages)[-1]


def training_of(base: Base) -> FamilyTraining:
    """Raises SettingsError for a family that is not trained here."""
    reference = FAMILIES[base.family].trained_by
    if not reference:
        raise SettingsError(
            f"base {base.name} of family {base.family} is not trained here",
            hint="recipes/ has a recipe of each base that is",
        )
    found: FamilyTraining = load(reference)
    return found
