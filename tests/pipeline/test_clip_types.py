"""The page that says what a clip wears on its way says the truth."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

ROW = re.compile(r"^\| `(\w+)` \| `([\w/]+)\.py` \| (.+) \|$", re.M)


def test_every_type_in_the_table_is_where_it_says(repository: Path) -> None:
    page = (repository / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = ROW.findall(page.partition("## A clip on its way")[2].partition("\n## ")[0])
    assert rows
    for name, module, _ in rows:
        kind = getattr(importlib.import_module(module.replace("/", ".")), name)
        assert isinstance(kind, type) and kind.__module__ == module.replace("/", "."), name


def test_whoever_opens_the_tensors_of_clips_does_it_in_the_one_way(repository: Path) -> None:
    """Code that named tensors itself would have to agree with all others on the names, and nobody would check it."""
    used = {}
    for package in ("pipeline", "models"):
        for path in (repository / package).rglob("*.py"):
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "/ FEATURES_FILE" in line]
            used |= {str(path.relative_to(repository)): lines} if lines else {}
    assert "pipeline/stages/extract.py" in used
    assert all("pack_clips(" in line for lines in used.values() for line in lines), used
