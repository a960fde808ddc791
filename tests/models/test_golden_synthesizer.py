"""The synthesizer family still gives the numbers it gave when every parity fixture passed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor

SCRIPT = Path(__file__).parents[1] / "golden" / "make_golden.py"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_golden", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()
GOLDEN: dict[str, dict[str, Any]] = json.loads(script.GOLDEN.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def computed() -> dict[str, Tensor]:
    return script.compute()


def test_the_same_things_are_computed(computed: dict[str, Tensor]) -> None:
    assert computed.keys() == GOLDEN.keys()


@pytest.mark.parametrize("name", GOLDEN)
def test_numbers_have_not_moved(computed: dict[str, Tensor], name: str) -> None:
    ours, golden = script.digest(computed[name]), GOLDEN[name]
    assert ours["shape"] == golden["shape"]
    assert ours["values"] == pytest.approx(golden["values"], abs=5e-5, rel=1e-4)
    assert ours["power"] == pytest.approx(golden["power"], rel=1e-4)
