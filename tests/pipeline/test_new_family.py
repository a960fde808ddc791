"""A new family is its own files and one row: a voice on its base goes all the way, and nothing else was touched."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stopped import describe_base, walk
from toy_family import TOY_ROW

from models.configs.families import FAMILIES, load
from models.errors import ConfigError
from models.loading.bases import load_base
from models.loading.family import Family
from models.loading.networks import build_network
from models.loading.voices import load_voice
from models.speaking.voice import Manner, Reference, Sentence
from pipeline.errors import SettingsError
from pipeline.jobs.exchange import export_release

REPOSITORY = Path(__file__).resolve().parents[2]

BASE: dict[str, Any] = {
    "family": "toy",
    "networks": {"reader": {"spectra": 32, "width": 16}},
}


@pytest.fixture(scope="module", autouse=True)
def with_toy_row():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, TOY_ROW.name, TOY_ROW)
        yield


def write_base(root: Path, write_tiny_base, **changes: Any) -> None:
    describe_base(write_tiny_base(root), BASE | changes, without=("synthesizer", "content"))


def test_every_row_points_to_a_description():
    for row in FAMILIES.values():
        assert isinstance(load(row.does), Family), row.name
        for reference in row.numbers.values():
            load(reference)


def test_its_base_is_read_with_numbers_of_its_own_and_a_mistake_in_them_is_named(tmp_path, write_tiny_base):
    write_base(tmp_path, write_tiny_base)
    base = load_base("tiny", tmp_path / "bases")
    assert base.networks["reader"].model_dump() == {"spectra": 32, "width": 16}
    assert base.random_roles == ("synthesizer", "text2semantic")
    assert sum(one.numel() for one in build_network(base, "synthesizer").parameters()) > 1000
    for wrong, message in (
        (
            {"reader": {"spectra": 32, "widht": 16}},
            r"base\.yaml: networks: .*width: Field required.*widht: unknown key",
        ),
        ({"writer": {}}, r"base\.yaml: networks: .*writer: family toy has no such network of its own; it has reader"),
    ):
        write_base(tmp_path, write_tiny_base, networks=wrong)
        with pytest.raises(ConfigError, match=message):
            load_base("tiny", tmp_path / "bases")
    write_base(tmp_path, write_tiny_base, family="tyo")
    with pytest.raises(ConfigError, match=r"base\.yaml: family: .*there are v2, .*, toy \(value: 'tyo'\)$"):
        load_base("tiny", tmp_path / "bases")


def test_its_numbers_are_part_of_what_a_base_is(tmp_path, write_tiny_base):
    write_base(tmp_path, write_tiny_base)
    known = load_base("tiny", tmp_path / "bases").digest
    write_base(tmp_path, write_tiny_base, networks={"reader": {"spectra": 32, "width": 17}})
    assert load_base("tiny", tmp_path / "bases").digest != known


def test_bases_of_today_are_what_they_were_before_families_had_networks_of_their_own():
    """Another digest, and every voice on the base is trained again."""
    digest = "a2a657a4aed7196db0d59e709a6c041d4d4670429bb2362c1d0cbb668f42b0d7"
    assert load_base("gpt-sovits-v2").digest == digest


@pytest.mark.slow
def test_a_voice_on_it_is_extracted_trained_judged_and_speaks(
    tmp_path, walked_once, write_tiny_base, write_tiny_voice, make_release
):
    write_base(tmp_path, write_tiny_base)
    write_tiny_voice(tmp_path)
    stopped = walk(tmp_path, walked_once)
    assert stopped.exit_code == 11, "the gate stops random numbers"
    base = stopped.base

    tensors = load_file(stopped.folder("extract") / "features.safetensors")
    assert {name.partition(".")[2] for name in tensors} == {"tokens", "phones"}
    assert len(tensors["0.tokens"]) == stopped.record("extract")["clips"][0]["tokens"]

    (part,) = [one for one in stopped.record("finetune")["parts"] if one["part"] == "synthesizer"]
    (group,) = part["groups"]
    assert (group["name"], group["loss"]) == ("reader", "log spectrum L1")
    assert group["heldout_loss"] < group["heldout_loss_before"]

    checks = {check["id"]: check for check in stopped.record("evaluate")["checks"]}
    assert checks["base.trained"]["status"] == "failed"
    assert checks["copy_synthesis.stoi"]["value"] > 0.5, "a copy has the recording's own spectra"
    assert stopped.record("evaluate")["samples"]

    voice = load_voice(base, tmp_path, torch.device("cpu"), stopped.adapters)
    said = voice.speak(
        [Sentence(tensors["1.phones"].long())], Reference(torch.rand(16000) - 0.5, 16000), Manner(attempts=1)
    )
    assert said.sample_rate_hz == 16000 and said.wave.isfinite().all() and len(said.wave) > 1000

    release = make_release(base=base.name, base_digest=base.digest)
    upstream = base.model_copy(update={"upstream_version": "v2"})
    for one in (base, upstream):
        with pytest.raises(SettingsError, match="GPT-SoVITS has no network of this shape"):
            export_release(
                release, stopped.folder("finetune"), one, tmp_path / "out", cache=tmp_path, today=date(2026, 2, 1)
            )


def test_no_module_outside_the_families_asks_which_family_a_base_is_of():
    """What differs between families stands in their descriptions: nobody else compares names or asks for a class."""
    switches = re.compile(
        r"\.family\s*(?:==|!=|\bin\b)|isinstance\([^)]*\b\w*Synthesizer\b|base\.cfm\b|base\.synthesizer (?:is|or|if)"
    )
    allowed = {"pipeline/pretrain/fargan.py"}  # a family's own training
    found = []
    for package in ("models", "pipeline"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            place = str(path.relative_to(REPOSITORY))
            if place not in allowed and not place.startswith("models/families/"):
                found += [f"{place}: {match.group()}" for match in switches.finditer(path.read_text())]
    assert found == []
