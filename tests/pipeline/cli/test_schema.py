"""The committed schemas are those of the records, and they describe the files people write."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import yaml

from pipeline.records.schema import FILE_NAMES, render_schema


@pytest.mark.parametrize("name", FILE_NAMES)
def test_the_committed_schema_is_up_to_date(repository, name):
    committed = (repository / "schemas" / FILE_NAMES[name]).read_text(encoding="utf-8")
    assert committed == render_schema(name), "run: voxline schema --write schemas"


def test_the_command_prints_and_writes_the_same(voxline, tmp_path):
    assert voxline("schema", "voice").out == render_schema("voice")
    assert voxline("schema", "--write", str(tmp_path)).code == 0
    assert (tmp_path / "pipeline.schema.json").read_text(encoding="utf-8") == render_schema("pipeline")
    assert voxline("schema").code == 2


def problems(schema_name: str, content: object) -> list[str]:
    import jsonschema

    schema = json.loads(render_schema(schema_name))
    return [
        error.message
        for error in jsonschema.Draft202012Validator(schema).iter_errors(json.loads(json.dumps(content, default=str)))
    ]


def test_the_sample_voices_fit_the_schema(repository: Path):
    manifests = list((repository / "voices").glob("*/voice.yaml"))
    assert manifests
    for path in manifests:
        assert problems("voice", yaml.safe_load(path.read_text(encoding="utf-8"))) == [], path


def test_the_schema_refuses_what_the_reader_refuses(manifest_text):
    sound = yaml.safe_load(manifest_text)
    assert problems("voice", sound) == []
    assert problems("voice", {**sound, "colour": "red"})
    assert problems("voice", {**sound, "finetune": {"rank": 0}})
    assert problems("voice", {key: value for key, value in sound.items() if key != "consent"})
    assert problems("pipeline", tomllib.loads("[finetune]\nrank = 8\n")) == []
    assert problems("pipeline", tomllib.loads("[finetune]\nrang = 8\n"))
