"""What a version depends on, and what it does not."""

from __future__ import annotations

import hashlib

import pytest

from pipeline.records.release import NOT_IN_RECIPE, recipe_digest, release_version
from pipeline.records.settings import FinetuneSettings, Settings, ValidateSettings

SECTIONS = {"validate": ValidateSettings, "finetune": FinetuneSettings}


def test_a_version_is_the_first_12_hex_digits_over_content_base_and_recipe():
    expected = hashlib.sha256(b"content\nbase\nrecipe").hexdigest()[:12]
    assert release_version("content", "base", "recipe") == expected
    assert len({release_version("a", "b", "c"), release_version("b", "a", "c"), release_version("ab", "", "c")}) == 3


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("finetune", "rank", 4),
        ("finetune", "seed", 1),
        ("validate", "target_rms_dbfs", -20.0),
        ("validate", "denoise", "off"),
    ],
)
def test_what_changes_the_weights_changes_the_recipe(section, key, value):
    assert recipe_digest(Settings.model_validate({section: {key: value}})) != recipe_digest(Settings())


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("finetune", "checkpoint_every_s", 1.0),
        ("validate", "speech_min_s", 90.0),
        ("validate", "denoise_weights", "/somewhere/else"),
        ("gate", "pesq_wb_min", 3.9),
        ("voxline", "device", "cpu"),
        ("voxline", "work", "elsewhere"),
    ],
)
def test_what_does_not_change_the_weights_keeps_the_version(section, key, value):
    assert recipe_digest(Settings.model_validate({section: {key: value}})) == recipe_digest(Settings())


def test_every_exception_names_a_real_setting():
    for section, names in NOT_IN_RECIPE.items():
        assert names <= SECTIONS[section].model_fields.keys()
