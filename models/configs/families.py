"""The one table of families. What differs between families and is no number in base.yaml is reached through a row.

Standard library only, and what a row points to is imported when it is used: listing bases reads this.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class FamilyRow:
    """One row. References are written ``module:name``.

    Attributes:
        does: the `models.loading.family.Family` that says what its bases do.
        roles: networks without which a voice on such a base cannot be; one without weights starts from random numbers.
        numbers: what may stand under ``networks:`` of its base.yaml, by name, and the class of each.
        trained_by: the ``FamilyTraining`` that brings the stages of its pretraining; empty: not trained here.
    """

    name: str
    does: str
    roles: tuple[str, ...] = ("synthesizer", "text2semantic", "content")
    numbers: Mapping[str, str] = field(default_factory=dict)
    trained_by: str = ""


_VITS = "models.families.vits:VITS"
_FLOW_MATCHING = "models.families.flow_matching:FLOW_MATCHING"

FAMILIES: dict[str, FamilyRow] = {
    row.name: row
    for row in (
        FamilyRow("v2", _VITS),
        FamilyRow("v2pro", _VITS),  # v2 with a speaker vector
        FamilyRow("v3", _FLOW_MATCHING, roles=("synthesizer", "text2semantic", "content", "vocoder")),
        FamilyRow(
            "fargan",
            "models.families.fargan:FARGAN",
            numbers={"synthesizer": "models.configs.acoustic:FarganSynthesizerConfig"},
            trained_by="pipeline.pretrain.fargan:FARGAN",
        ),
        FamilyRow("v4", _FLOW_MATCHING, roles=("synthesizer", "text2semantic", "content", "vocoder")),
    )
}


def load(reference: str) -> Any:
    """What a row's ``module:name`` points to."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
