"""Reading YAML written by strangers: bounded, without aliases, without duplicate keys, plain data only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import SettingsError
from pipeline.io.files import open_regular

MAX_YAML_BYTES = 64 * 1024
MAX_DEPTH = 12

# The C parser is ten times faster; a plan reads thousands of manifests.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_table(content: bytes, source: str) -> dict[str, Any]:
    """The top-level mapping of a YAML document.

    Raises:
        SettingsError: naming ``source`` and the line: too large, not UTF-8, not YAML, alias, duplicate key, no mapping.
    """
    if len(content) > MAX_YAML_BYTES:
        raise SettingsError(f"{source}: {len(content)} bytes; the limit is {MAX_YAML_BYTES}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{source}: not UTF-8 at byte {error.start}", hint="save the file as UTF-8") from None
    try:
        # The parser's events come first: they need no recursion, while composing a deep document exhausts the C stack.
        _check_events(text, source)
        loader = _Loader(text)
        node = loader.get_single_node()
        _check_keys(node, source)
        loaded = loader.construct_document(node) if node is not None else None
    except yaml.YAMLError as error:
        raise _not_yaml(error, source) from None
    except ValueError as error:  # a date like 2026-13-45, an integer of five thousand digits
        raise SettingsError(f"{source}: {error}") from None
    if not isinstance(loaded, dict):
        raise SettingsError(f"{source}: holds no 'key: value' lines", hint="voxline new NAME writes one to copy from")
    for key in loaded:
        if not isinstance(key, str):
            raise SettingsError(f"{source}: key {key!r} is not a word", hint="put it in quotes if it is meant")
    return loaded


def read_table(path: Path) -> dict[str, Any]:
    """``parse_table`` of a file; at most one byte more than the limit is read."""
    with open_regular(path) as stream:
        return parse_table(stream.read(MAX_YAML_BYTES + 1), str(path))


def _check_events(text: str, source: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise SettingsError(
                f"{source}, line {_line(event)}: alias '*{event.anchor}'",
                hint="write the value out; aliases are not read",
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise SettingsError(f"{source}, line {_line(event)}: nested more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_keys(node: Any, source: str) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, source)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise SettingsError(f"{source}, line {_line(key)}: key '{key.value}' is given twice", hint="delete one")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
            _check_keys(value, source)


def _line(place: yaml.Event | yaml.Node) -> int:
    return place.start_mark.line + 1 if place.start_mark else 0


def _not_yaml(error: yaml.YAMLError, source: str) -> SettingsError:
    if not isinstance(error, yaml.MarkedYAMLError):
        return SettingsError(f"{source}: not valid YAML: {' '.join(str(error).split())[:200]}")
    place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
    problem = ", ".join(part for part in (error.context, error.problem) if part)
    return SettingsError(f"{source}{place}: not valid YAML: {problem}", hint="put the value in quotes if it is text")
