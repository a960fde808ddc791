"""The gate is raised by whoever likes and lowered by nobody below the base's card; a base's card is the package's."""

from __future__ import annotations

import json
import shutil

import pytest

from models.loading.bases import BASES, find_base, find_shadows, load_base

CARD = load_base("nano").gate.floors
PESQ, STOI = CARD["pesq_wb"], CARD["stoi"]

LOW = """\
display_name: Low
language: en
consent: {speaker: synthetic, granted_on: 2026-01-09}
license: CC0-1.0
base: nano
gate: {pesq_wb_min: %s, stoi_min: %s}
"""


def shown(voxline, *arguments: str) -> dict:
    told = voxline("settings", "--json", *arguments)
    assert told.code == 0, told.err
    return {f"{one['section']}.{one['key']}": one for one in json.loads(told.out)}


@pytest.mark.parametrize("toml", [None, "", "[gate]\nstoi_min = 0.5\n", "[gate]\npesq_wb_min = 1.0\nstoi_min = 0.1\n"])
def test_a_voice_below_the_bases_card_is_refused_whatever_pipeline_toml_holds(line, voxline, toml):
    if toml is not None:
        (line.root / "pipeline.toml").write_text(toml)
    line.write_voice("low", manifest=LOW % (1.0, 0.95))
    line.commit()
    told = voxline("validate", "low")
    assert told.code == 3
    assert f"voices/low/voice.yaml: gate.pesq_wb_min = 1.0 is weaker than {PESQ} of base nano" in told.err
    (entry,) = json.loads(voxline("plan", "--json", "--all").out)["entries"]
    assert "is weaker than" in entry["reason"]


def test_null_erases_nothing_and_a_higher_value_counts(line, voxline):
    line.write_voice("high", manifest=LOW % (3.9, "null"))
    found = shown(voxline, "--voice", "high")
    assert (found["gate.pesq_wb_min"]["value"], found["gate.pesq_wb_min"]["source"]) == (
        3.9,
        "voices/high/voice.yaml",
    )
    assert (found["gate.stoi_min"]["value"], found["gate.stoi_min"]["source"]) == (STOI, "floor of base nano")


def test_settings_show_the_refused_value_beside_the_one_in_force(line, voxline):
    line.write_voice("low", manifest=LOW % (1.0, 0.0))
    found = shown(voxline, "--voice", "low")
    assert (found["gate.pesq_wb_min"]["value"], found["gate.pesq_wb_min"]["refused"]) == (PESQ, 1.0)
    assert (found["gate.stoi_min"]["value"], found["gate.stoi_min"]["refused"]) == (STOI, 0.0)
    told = voxline("settings", "--voice", "low", "--explain").out
    assert "refused, weaker" in " ".join(told.split())
    (line.root / "pipeline.toml").write_text("[gate]\npesq_wb_min = 3.8\n")
    found = shown(voxline, "--voice", "low")
    assert (found["gate.pesq_wb_min"]["value"], found["gate.pesq_wb_min"]["refused"]) == (3.8, 1.0)


def test_pipeline_toml_below_the_card_does_not_lower_it_either(line, voxline):
    (line.root / "pipeline.toml").write_text("[gate]\npesq_wb_min = 2.0\nstoi_min = 0.99\n")
    found = shown(voxline)
    assert (found["gate.pesq_wb_min"]["value"], found["gate.pesq_wb_min"]["refused"]) == (PESQ, 2.0)
    assert (found["gate.stoi_min"]["value"], found["gate.stoi_min"]["source"]) == (0.99, "pipeline.toml")


@pytest.mark.parametrize("section", ["evaluate", "validate", "waived", "notify", "publish"])
def test_a_voice_names_nothing_that_it_is_judged_by(line, voxline, section):
    line.write_voice("low", manifest=LOW % (3.5, 0.95) + f"{section}: {{}}\n")
    told = voxline("validate", "low")
    assert told.code == 3
    assert f"unknown key '{section}'" in told.err


def test_a_waiver_comes_from_a_card_and_not_from_the_gate_of_a_voice(line, voxline):
    line.write_voice("low", manifest=(LOW % (3.5, 0.95)).replace("gate: {", "gate: {waived: {pesq_wb: no}, "))
    told = voxline("validate", "low")
    assert told.code == 3
    assert "unknown key 'gate.waived'" in told.err


@pytest.fixture
def shadow(line):
    """bases/nano with floors of nothing, a waiver, and the package's own weights."""
    folder = line.root / "bases" / "nano"
    shutil.copytree(BASES / "nano", folder)
    card = folder / "base.yaml"
    text = card.read_text().replace(f"pesq_wb: {PESQ}", "pesq_wb: 1.0").replace(f"stoi: {STOI}", "stoi: 0.0")
    card.write_text(text.replace("  waived:\n", "  waived:\n    copy_synthesis.pesq_wb: because I say so\n"))
    return folder


def test_a_base_in_the_tree_does_not_take_the_place_of_the_packages(line, voxline, shadow):
    told = json.loads(voxline("bases", "show", "nano", "--json").out)
    assert (told["gate"]["pesq_wb"], told["gate"]["stoi"]) == (PESQ, STOI)
    assert list(told["gate"]["waived"]) == ["free_speech.cer"]
    assert told["from"] == "voxline"
    listed = voxline("bases", "list")
    assert "bases/nano is not used: voxline has a base of that name" in listed.err
    assert find_shadows(shadow.parent) == ["nano"]
    assert shown(voxline)["gate.pesq_wb_min"]["value"] == PESQ


def test_pipeline_toml_can_name_a_base_that_the_tree_replaces(line, voxline, shadow):
    (line.root / "pipeline.toml").write_text('[voxline]\nreplaced_bases = ["nano"]\n')
    told = json.loads(voxline("bases", "show", "nano", "--json").out)
    assert (told["gate"]["pesq_wb"], told["from"]) == (1.0, "bases/nano")
    assert "is not used" not in voxline("bases", "list").err
    assert find_base("nano", shadow.parent, ["nano"]).folder == shadow
    assert find_base("nano", shadow.parent).folder == BASES / "nano"
