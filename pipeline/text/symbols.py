"""The phone inventories the networks were trained with: a symbol's id is its position in the list.

The one copy of each list lies beside the networks (``models/phones/tables/symbols-<table>.json``) and is read as data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from pipeline.errors import SettingsError

UNKNOWN_SYMBOL = "UNK"
PAUSES = frozenset("!?…,.-")
"""Punctuation that is a phone of its own."""


@cache
def symbol_table(table: str = "v2") -> tuple[str, ...]:
    """All symbols of a table in the order of their ids.

    Raises:
        SettingsError: there is no such table.
    """
    path = files("models") / "phones" / "tables" / f"symbols-{table}.json"
    if not path.is_file():
        raise SettingsError(f"there is no symbol table {table!r}", hint="the tables are in models/phones/tables")
    return tuple(json.loads(path.read_text(encoding="utf-8"))["symbols"])


@cache
def _ids(table: str) -> dict[str, int]:
    return {symbol: number for number, symbol in enumerate(symbol_table(table))}


def symbol_ids(symbols: Iterable[str], table: str = "v2") -> list[int]:
    """Ids of phones; a phone that the table lacks takes the id of ``UNK``, as the networks saw it in training."""
    ids = _ids(table)
    return [ids.get(symbol, ids[UNKNOWN_SYMBOL]) for symbol in symbols]
