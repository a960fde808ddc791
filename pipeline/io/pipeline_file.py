"""Writes settings into ``pipeline.toml`` and leaves what a person wrote there as it is."""

from __future__ import annotations

from pathlib import Path

import tomlkit

from pipeline.config import check_section, read_pipeline
from pipeline.io.files import write_atomically


def add_to_list(path: Path, section: str, key: str, value: str) -> bool:
    """Add a value to a list. Returns False if it is there already.

    Raises:
        SettingsError: the setting does not take the value, or the file is no valid one.
    """
    present = read_pipeline(path).get(section, {}).get(key, [])
    check_section(section, {key: [*present, value]}, str(path))
    if value in present:
        return False
    document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    table = document.setdefault(section, tomlkit.table())
    table[key] = tomlkit.array()
    table[key].extend([*present, value])
    table[key].multiline(True)
    write_atomically(path, tomlkit.dumps(document).encode())
    return True
