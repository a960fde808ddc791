"""The networks still give the numbers it gave when every parity fixture passed."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from make_golden import digest
from torch import Tensor

pytestmark = [pytest.mark.processor, pytest.mark.slow]

SCRIPTS = sorted((Path(__file__).parents[1] / "golden").glob("make_golden*.py"))
# Tensors, and what other people's packages computed, are other tests'; what is compared here are digests of ours.
IMPORTED = {
    path.stem: import_module(path.stem) for path in SCRIPTS if "\nGOLDEN = " in path.read_text(encoding="utf-8")
}
LOADED = {stem: script for stem, script in IMPORTED.items() if script.GOLDEN.suffix == ".json"}
GOLDEN: dict[str, dict[str, Any]] = {
    stem: json.loads(script.GOLDEN.read_text(encoding="utf-8")) for stem, script in LOADED.items()
}


@pytest.fixture(scope="module")
def computed() -> dict[str, dict[str, Tensor]]:
    return {stem: script.compute() for stem, script in LOADED.items()}


def test_the_same_things_are_computed(computed: dict[str, dict[str, Tensor]]) -> None:
    assert {stem: results.keys() for stem, results in computed.items()} == {
        stem: g.keys() for stem, g in GOLDEN.items()
    }


@pytest.mark.parametrize(("stem", "name"), [(stem, name) for stem, golden in GOLDEN.items() for name in golden])
def test_numbers_have_not_moved(computed: dict[str, dict[str, Tensor]], stem: str, name: str) -> None:
    ours, golden = digest(computed[stem][name]), GOLDEN[stem][name]
    assert ours["shape"] == golden["shape"]
    assert ours["values"] == pytest.approx(golden["values"], abs=5e-5, rel=1e-4)
    assert ours["power"] == pytest.approx(golden["power"], rel=1e-4)
