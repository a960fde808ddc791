"""JSON Schemas of the two files that people write, made from the records that read them."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel

from pipeline.records.settings import FinetuneSettings, GateSettings, Settings
from pipeline.records.voice import VoiceManifest

SchemaName = Literal["voice", "pipeline"]
FILE_NAMES: dict[SchemaName, str] = {"voice": "voice.schema.json", "pipeline": "pipeline.schema.json"}

_OVERRIDES: dict[str, type[BaseModel]] = {"gate": GateSettings, "finetune": FinetuneSettings}


def json_schema(name: SchemaName) -> dict[str, Any]:
    """The schema an editor completes ``voice.yaml`` or ``pipeline.toml`` with."""
    if name == "pipeline":
        return {**_header("pipeline.toml"), **Settings.model_json_schema(by_alias=True)}
    schema = VoiceManifest.model_json_schema(by_alias=True)
    for section, model in _OVERRIDES.items():
        described = schema["properties"][section]["description"]
        schema["properties"][section] = {**model.model_json_schema(), "description": described}
    return {**_header("voice.yaml"), **schema}


def render_schema(name: SchemaName) -> str:
    """The schema as the text of its file."""
    return json.dumps(json_schema(name), indent=2, ensure_ascii=False) + "\n"


def _header(title: str) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": f"{title}; written by voxline schema",
    }
