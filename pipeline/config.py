"""Settings, resolved once: flags > environment ``VOXLINE_*`` > voice.yaml > pipeline.toml > defaults.

The environment is passed in as a mapping, so nothing below the command line reads ``os.environ``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError

from pipeline.errors import SettingsError
from pipeline.records.settings import Settings
from pipeline.trust import PROTECTED_BRANCH_VARIABLE, SIGNING_KEY_VARIABLE

PIPELINE_FILE = "pipeline.toml"
MAX_SETTINGS_BYTES = 256 * 1024

# Variables with this prefix that are not settings: secrets, where the tests find real speech, whom to trust.
RESERVED_VARIABLES = frozenset(
    {
        "VOXLINE_NOTIFY_SECRET",
        "VOXLINE_REGISTRY_TOKEN",
        "VOXLINE_REGISTRY_USER",
        "VOXLINE_SMTP_PASSWORD",
        "VOXLINE_SHARED",
        PROTECTED_BRANCH_VARIABLE,
        SIGNING_KEY_VARIABLE,
    }
)

# What voice.yaml may override, besides `base`, which it names at the top level. What its recordings
# and its sentences are judged by is the organisation's: of that it can only raise the gate.
VOICE_SECTIONS = ("finetune", "gate")

SECTIONS: dict[str, type[BaseModel]] = {
    field.alias or name: field.annotation  # type: ignore[misc]
    for name, field in Settings.model_fields.items()
}


@dataclass(frozen=True)
class Setting:
    """One resolved value and where it came from, for ``voxline settings --explain``."""

    section: str
    key: str
    value: Any
    source: str


@dataclass(frozen=True)
class Resolved:
    """Settings plus the origin of every value."""

    settings: Settings
    origins: tuple[Setting, ...]


# What a value of another kind should have been, in the words of people who write TOML and YAML.
WANTED = {
    "tuple_type": 'must be a list, like ["one", "two"]',
    "list_type": 'must be a list, like ["one", "two"]',
    "set_type": 'must be a list, like ["one", "two"]',
    "dict_type": "must be a table of keys and values",
    "model_type": "must be a table of keys and values",
    "string_type": "must be a text in quotes",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "string_too_short": "must not be empty",
    "date_type": "must be a day, written YYYY-MM-DD",
    "date_parsing": "must be a day, written YYYY-MM-DD",
    "date_from_datetime_parsing": "must be a day, written YYYY-MM-DD",
}

Layer = tuple[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class VoiceKeys:
    """What a manifest says of settings (``base``, ``finetune``, ``gate``, ...), and where it lies."""

    told: Mapping[str, Any] = field(default_factory=dict)
    source: str = "voice.yaml"


def resolve(
    *,
    root: Path,
    environment: Mapping[str, str],
    voice: VoiceKeys | None = None,
    flags: Mapping[str, Any] | None = None,
    pipeline: Layer | None = None,
    refused: list[Setting] | None = None,
) -> Resolved:
    """Merge all layers and validate every value where it was written.

    Args:
        root: folder of the repository; ``pipeline.toml`` is looked for in it.
        flags: ``{"section.key": value}``; None values are flags not given.
        refused: is given what would weaken the gate, which then only has no effect; without it, that is an error.
        pipeline: what counts in place of ``pipeline.toml``, where the tree is a stranger's.

    Raises:
        SettingsError: naming the file or variable, the key and the value.
    """
    voice = voice or VoiceKeys()
    layers: list[Layer] = [
        pipeline or (PIPELINE_FILE, read_pipeline(root / PIPELINE_FILE)),
        _voice_layer(voice),
        *_environment_layers(environment),
        _flag_layer(flags or {}),
    ]
    merged: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    sources: dict[tuple[str, str], str] = {}
    for source, sections in layers:
        for section, values in sections.items():
            checked = check_section(section, values, source)
            for key in values:
                weaker = _weaker_gate(section, key, checked[key], merged, source, sources)
                if source == voice.source and (section, key) == ("finetune", "heldout_clips"):
                    weaker = _fewer_heldout(checked, merged, source, sources.get((section, key)))
                if weaker and refused is None:
                    raise weaker
                if weaker and refused is not None:
                    refused.append(Setting(section, key, checked[key], source))
                    continue
                merged[section][key] = checked[key]
                sources[section, key] = source
    settings = Settings.model_validate(merged)
    return Resolved(settings=settings, origins=tuple(_origins(settings, sources)))


def _origins(settings: Settings, sources: Mapping[tuple[str, str], str]) -> list[Setting]:
    listed = []
    for section, values in settings.model_dump(by_alias=True).items():
        for key, value in values.items():
            listed.append(Setting(section, key, value, sources.get((section, key), "default")))
    return listed


def check_section(section: str, values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The values of a section as its settings take them. Raises SettingsError."""
    model = SECTIONS.get(section)
    if model is None:
        raise SettingsError(
            f"{source}: unknown section '{section}'", hint=f"known sections: {', '.join(sorted(SECTIONS))}"
        )
    try:
        checked = model.model_validate(values)
    except ValidationError as error:
        raise SettingsError(
            describe(error, source, section), hint="voxline settings --explain lists every key"
        ) from None
    return checked.model_dump()


def describe(error: ValidationError, source: str, prefix: str = "") -> str:
    """The first few validation problems as 'source: key: what is wrong (value)'."""
    lines = []
    for problem in error.errors(include_url=False)[:5]:
        key = ".".join(str(part) for part in ((prefix,) if prefix else ()) + problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{source}: unknown key '{key}'")
        elif problem["type"] == "missing":
            lines.append(f"{source}: key '{key}' is missing")
        else:
            ours = problem["msg"].removeprefix("Value error, ") if problem["type"] == "value_error" else ""
            wanted = ours or WANTED.get(problem["type"]) or problem["msg"].lower()
            lines.append(f"{source}: {key}: {wanted} (got {str(problem.get('input'))[:60]!r})")
    return "\n".join(lines)


def _weaker_gate(
    section: str,
    key: str,
    value: Any,
    merged: Mapping[str, Mapping[str, Any]],
    source: str,
    sources: Mapping[tuple[str, str], str],
) -> SettingsError | None:
    """A minimum in pipeline.toml is the organisation's: what any later layer sets below it is refused."""
    minimum = merged[section].get(key)
    if section != "gate" or minimum is None or (value is not None and value >= minimum):
        return None
    return weaker_gate(source, f"gate.{key}", value, minimum, sources[section, key])


def _fewer_heldout(
    values: Mapping[str, Any], merged: Mapping[str, Mapping[str, Any]], source: str, holder: str | None
) -> SettingsError | None:
    """What a voice is judged by is not its own: it may hold more clips out for the gate, never fewer."""
    default = SECTIONS["finetune"].model_fields["heldout_clips"].default
    minimum = merged["finetune"].get("heldout_clips", default)
    value = values["heldout_clips"]
    if value >= minimum:
        return None
    return weaker_gate(source, "finetune.heldout_clips", value, minimum, holder or "the default")


def weaker_gate(source: str, key: str, value: object, minimum: float, holder: str) -> SettingsError:
    """What a voice is told that asks for less than it has to reach."""
    return SettingsError(
        f"{source}: {key} = {value} is weaker than {minimum} of {holder}",
        hint="a voice can raise the gate, never lower it",
    )


def read_pipeline(path: Path) -> dict[str, dict[str, Any]]:
    """The sections of a pipeline.toml; none where there is no such file. Raises SettingsError."""
    if not path.exists():
        return {}
    if not path.is_file():  # a pipe would be waited for
        raise SettingsError(f"{path}: is not a regular file", hint="put the file itself there, or nothing")
    with path.open("rb") as stream:
        return parse_pipeline(stream.read(MAX_SETTINGS_BYTES + 1), str(path))


def parse_pipeline(content: bytes, source: str) -> dict[str, dict[str, Any]]:
    """The sections of a pipeline.toml's bytes. Raises SettingsError."""
    if len(content) > MAX_SETTINGS_BYTES:
        raise SettingsError(f"{source}: more than {MAX_SETTINGS_BYTES} bytes")
    try:
        sections = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{source}: not valid TOML: {error}") from None
    for section, values in sections.items():
        if not isinstance(values, dict):
            raise SettingsError(f"{source}: '{section}' must be a table", hint=f"write [{section}]")
    return sections


def _voice_layer(voice: VoiceKeys) -> Layer:
    sections = {name: dict(voice.told[name]) for name in VOICE_SECTIONS if voice.told.get(name)}
    if voice.told.get("base"):
        sections["voxline"] = {"base": voice.told["base"]}
    return voice.source, sections


def _environment_layers(environment: Mapping[str, str]) -> list[Layer]:
    layers: list[Layer] = []
    for variable in sorted(environment):
        if not variable.startswith("VOXLINE_") or variable in RESERVED_VARIABLES:
            continue
        section, key = _split_variable(variable)
        layers.append((variable, {section: {key: _from_text(section, key, environment[variable])}}))
    return layers


def _from_text(section: str, key: str, text: str) -> Any:
    """A variable's text as its setting takes it: a list is a JSON array, or names with commas between them."""
    if get_origin(SECTIONS[section].model_fields[key].annotation) is not tuple:
        return text
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text  # what the section's model then refuses
    return [part.strip() for part in text.split(",") if part.strip()]


def _split_variable(variable: str) -> tuple[str, str]:
    """``VOXLINE_FINETUNE_RANK`` is finetune.rank; ``VOXLINE_REGISTRY`` is voxline.registry."""
    name = variable.removeprefix("VOXLINE_").lower()
    for section, model in SECTIONS.items():
        key = name.removeprefix(section + "_") if name.startswith(section + "_") else ""
        if key in model.model_fields:
            return section, key
    if name in SECTIONS["voxline"].model_fields:
        return "voxline", name
    raise SettingsError(f"{variable}: no such setting", hint="voxline settings --explain lists every key")


def _flag_layer(flags: Mapping[str, Any]) -> Layer:
    sections: dict[str, dict[str, Any]] = {}
    for dotted, value in flags.items():
        if value is not None:
            section, key = dotted.split(".", 1)
            sections.setdefault(section, {})[key] = value
    return "flag", sections
