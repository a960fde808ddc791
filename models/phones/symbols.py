"""Phone tables of the text encoders: the id of a phone is its place in the list (docs/networks/signals.md)."""

import json
from functools import cache
from pathlib import Path

from models.errors import SymbolsError

TABLES = Path(__file__).parent / "tables"


@cache
def load_symbols(version: str) -> tuple[str, ...]:
    """Phones of table `v1` (322) or `v2` (732) in the order of their ids."""
    known = sorted(path.stem.removeprefix("symbols-") for path in TABLES.glob("symbols-*.json"))
    if version not in known:
        raise SymbolsError(f"no phone table {version!r}; there are: {', '.join(known)}")
    table = json.loads((TABLES / f"symbols-{version}.json").read_text(encoding="utf-8"))
    return tuple(table["symbols"])


@cache
def symbol_ids(version: str) -> dict[str, int]:
    """Id of every phone of a table; shared, so not to be changed."""
    return {symbol: index for index, symbol in enumerate(load_symbols(version))}


def phones_to_ids(phones: list[str], version: str) -> list[int]:
    """Ids of phones; one that is not in the table raises `SymbolsError` with its name and place."""
    ids = symbol_ids(version)
    for place, phone in enumerate(phones):
        if phone not in ids:
            raise SymbolsError(f"phone {phone!r} at place {place} is not in table {version}")
    return [ids[phone] for phone in phones]
