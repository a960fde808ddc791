"""What a family brings to its pretraining, it brings by its own files and its row."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.configs.families import FAMILIES
from pipeline.errors import SettingsError
from pipeline.pretrain.family import FamilyTraining
from pipeline.pretrain.recipe import Recipe, Source
from pipeline.pretrain.run import Pretraining
from pipeline.pretrain.session import Session

done: list[tuple[str, str]] = []


def first(session: Session) -> None:
    done.append(("first", session.base.name))


def second(session: Session) -> None:
    done.append(("second", session.base.name))


TOY = FamilyTraining({"first": first, "second": second}, finish=lambda session, network: 7)
RECIPE = Recipe(base="nano", sources=(Source(manifest="manifest.csv"),), stages={})


@pytest.fixture
def trained_by(monkeypatch):
    def point(reference: str) -> None:
        monkeypatch.setitem(FAMILIES, "fargan", replace(FAMILIES["fargan"], trained_by=reference))

    return point


def test_its_stages_stand_between_those_that_every_family_has(tmp_path, trained_by):
    trained_by(f"{__name__}:TOY")
    pretraining = Pretraining(RECIPE, tmp_path, tmp_path, torch.device("cpu"))
    assert list(pretraining.stages) == ["content", "quantizer", "first", "second", "gpt", "export"]
    assert pretraining.family.last == "second"
    done.clear()
    pretraining.stages["second"]()
    assert done == [("second", "nano")]


def test_a_family_that_brings_none_is_refused_by_name(tmp_path, trained_by):
    trained_by("")
    with pytest.raises(SettingsError, match="base nano of family fargan is not trained here") as caught:
        Pretraining(RECIPE, tmp_path, tmp_path, torch.device("cpu"))
    assert "recipes/" in caught.value.hint
