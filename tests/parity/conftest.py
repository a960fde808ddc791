"""Reading the fixtures that upstream GPT-SoVITS computed; nothing about a single one of them is known here.

A fixture is `<name>.json` beside `<name>.safetensors`. Tests ask for them by the beginning and end of the name:

    @pytest.mark.reference("s2_v2", suffix="_small")       # one run per fixture found, as argument `fixture`
    def test_decoding_gives_the_numbers_of_upstream(fixture): ...

    @pytest.mark.state_dict("s2-v2")                       # one run per state-dict-s2-v2*.json, as `described`
    def test_names_and_shapes_are_those_of_the_files(described): ...

Every test in this folder is marked `parity` and is skipped where VOXLINE_SHARED has no such files.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from recipe_values import quick_value, scaling_in_place
from safetensors.torch import load_file
from torch import Tensor, nn

REFERENCE = (
    Path(os.environ.get("VOXLINE_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "reference" / "gpt-sovits"
)
PARITY = REFERENCE / "parity"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "reference(prefix, suffix='', names=None): run for every such parity fixture")
    config.addinivalue_line("markers", "state_dict(prefix): run for every such state-dict file")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for mark in metafunc.definition.iter_markers("reference"):
        found = find_fixtures(*mark.args, **mark.kwargs)
        _parametrize(metafunc, "fixture", found, [str(fixture) for fixture in found])
    for mark in metafunc.definition.iter_markers("state_dict"):
        described = [Described(path) for path in sorted(REFERENCE.glob(f"state-dict-{mark.args[0]}*.json"))]
        _parametrize(metafunc, "described", described, [d.name for d in described])


def _parametrize(metafunc: pytest.Metafunc, argument: str, values: list[Any], names: list[str]) -> None:
    if values:
        metafunc.parametrize(argument, values, ids=names, scope="module")  # grouped, so networks are built once
    else:
        absent = pytest.mark.skip(reason="the reference tensors are not here: set VOXLINE_SHARED")
        metafunc.parametrize(argument, [pytest.param(None, id="absent", marks=absent)])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.parity)
            if "_small" in item.name:  # upstream's numbers on other kernels too; full networks would show the same
                item.add_marker(pytest.mark.processor)


class Fixture:
    """One fixture: `tensors` by name (`w.`, `i.`, `n.`, `o.` prefixes), `meta` from the json."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.stem

    def __repr__(self) -> str:
        """Its place below the folder of fixtures: sets of other seeds may lie in folders of their own."""
        return self.path.relative_to(PARITY).with_suffix("").as_posix()

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads(self.path.read_text(encoding="utf-8"))

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        stored = self.path.with_suffix(".safetensors")
        return load_file(stored) if stored.exists() else {}

    @property
    def seed(self) -> int:
        return self.meta["seed"]

    @property
    def weights(self) -> dict[str, Tensor]:
        """State dict that the fixture carries; empty when the recipe makes it."""
        return {name[2:]: value for name, value in self.tensors.items() if name.startswith("w.")}

    def outputs(self, prefix: str = "") -> dict[str, Tensor]:
        start = "o." + prefix
        return {name[len(start) :]: value for name, value in self.tensors.items() if name.startswith(start)}

    def __getitem__(self, name: str) -> Tensor:
        """An input or a fixed random number, stored or made by the recipe."""
        for prefix in ("i.", "n."):
            if prefix + name in self.tensors:
                return self.tensors[prefix + name]
        return self._from_recipe(name)

    def has(self, name: str) -> bool:
        made = self.meta.get("recipe_inputs", {})
        return f"i.{name}" in self.tensors or f"n.{name}" in self.tensors or name in made

    def _from_recipe(self, name: str) -> Tensor:
        key, shape, *rest = self.meta["recipe_inputs"][name]
        words = [word.strip() for entry in rest if isinstance(entry, str) for word in entry.split(",")]
        scales = [number for number in rest if not isinstance(number, str)]
        scales += [float(word[1:]) for word in words if word.startswith("*")]
        if "abs()*3" in words:
            value = recipe().inp(key, shape, self.seed).abs() * 3
        else:
            value = recipe().inp(key, shape, self.seed, scales[0] if scales else 1.0)
        for word in words:
            if word.startswith("zeroed beyond "):
                lengths = self[word.removeprefix("zeroed beyond ")]
                value = value * (torch.arange(value.shape[-1]) < lengths[:, None, None])
        return value

    def check(self, name: str, ours: Tensor, tolerance: float) -> None:
        """Compare with the output `o.<name>`: shape, and largest absolute difference."""
        assert_near(ours, self.tensors["o." + name], tolerance, f"{self.name} {name}")

    def load(self, network: nn.Module) -> nn.Module:
        """Fill a network with the stored weights, strictly, or by the recipe; leaves it in eval mode."""
        network.load_state_dict(self.weights or self.made_weights(network), strict=True)
        return network.eval()

    def made_weights(self, network: nn.Module) -> dict[str, Tensor]:
        """The state dict that the recipe makes, by names and shapes."""
        held = network.state_dict().items()
        return {name: recipe().weight(name, value, self.seed).to(value.dtype) for name, value in held}


_LOADED: dict[str, ModuleType] = {}


def recipe() -> ModuleType:
    """The module `recipe.py` beside the fixtures: weights and inputs from names, shapes and a seed.

    Its own `value` and `weight` are kept as `plain_value` and `plain_weight`.
    """
    if "recipe" not in _LOADED:
        spec = importlib.util.spec_from_file_location("parity_recipe", PARITY / "recipe.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.plain_value, module.value = module.value, quick_value
        module.plain_weight, module.weight = module.weight, scaling_in_place(module)
        _LOADED["recipe"] = module
    return _LOADED["recipe"]


@pytest.fixture(scope="module", autouse=True)
def no_initial_values() -> Iterator[None]:
    """Networks begin with whatever lay in memory: all of it is overwritten, and full ones have a billion numbers."""
    with pytest.MonkeyPatch.context() as patch:
        for draw in ("uniform_", "normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_"):
            patch.setattr(nn.init, draw, lambda tensor, *how, **more: tensor)
        yield


@pytest.fixture(name="recipe")
def recipe_of_the_fixtures() -> ModuleType:
    if not (PARITY / "recipe.py").exists():
        pytest.skip("the reference tensors are not here: set VOXLINE_SHARED")
    return recipe()


def find_fixtures(prefix: str, suffix: str = "", names: str | None = None) -> list[Fixture]:
    """Fixtures whose name starts and ends so; `names`: only those with an output that starts so."""
    found = [Fixture(path) for path in sorted(PARITY.rglob(f"{prefix}*{suffix}.json"))]
    return [fixture for fixture in found if names is None or fixture.outputs(names)]


class Described:
    """One `state-dict-*.json`: what a full-size network of upstream holds."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem.removeprefix("state-dict-")
        self.meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))

    def __repr__(self) -> str:
        return self.name

    def check(self, network: nn.Module) -> None:
        """Names, shapes and the number of parameters are exactly those described."""
        ours = {name: list(value.shape) for name, value in network.state_dict().items()}
        theirs = {name: shape for name, (shape, _) in self.meta["state_dict"].items()}
        assert ours == theirs
        assert sum(parameter.numel() for parameter in network.parameters()) == self.meta["parameter_count"]


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float, what: str = "") -> None:
    """Same shape, and the largest absolute difference is at most `tolerance`."""
    assert ours.shape == theirs.shape, f"{what}: {tuple(ours.shape)} against {tuple(theirs.shape)}"
    difference = (ours.detach().double() - theirs.double()).abs().max().item() if ours.numel() else 0.0
    assert difference <= tolerance, f"{what}: differs by {difference:.3g}, more than {tolerance:.3g}"
