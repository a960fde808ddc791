"""What phone symbols sound like in the classes of a content encoder: ARPAbet without stress.

English symbols are those classes. Mandarin ones are written with the nearest, one or several each, so that speech can
be aligned, recognised and checked in both languages by one set of classes.
"""

import json
from functools import cache

from models.configs.content import ARPABET
from models.phones.symbols import TABLES, load_symbols

TONES = "12345"
STRESSES = "012"
PAUSES = frozenset(["!", "?", "…", ",", ".", "-", "SP", "SP2", "SP3"])


@cache
def sounds_of_symbols() -> dict[str, tuple[str, ...]]:
    """Classes of every English and Mandarin symbol of table `v2`; a pause has none, other languages are absent."""
    table = json.loads((TABLES / "sounds-mandarin.json").read_text(encoding="utf-8"))
    found: dict[str, tuple[str, ...]] = {}
    for symbol in load_symbols("v2"):
        if symbol in table["initials"]:
            found[symbol] = tuple(table["initials"][symbol].split())
        elif symbol[-1] in TONES and symbol[:-1] in table["finals"]:
            found[symbol] = tuple(table["finals"][symbol[:-1]].split())
        elif symbol.rstrip(STRESSES) in ARPABET:
            found[symbol] = (symbol.rstrip(STRESSES),)
        elif symbol in PAUSES:
            found[symbol] = ()
    return found


@cache
def sounds_of_ids() -> dict[int, tuple[str, ...]]:
    """The same by id of the symbol."""
    table = sounds_of_symbols()
    return {number: table[symbol] for number, symbol in enumerate(load_symbols("v2")) if symbol in table}


@cache
def pause_ids() -> frozenset[int]:
    """Ids of the symbols that stand for a pause."""
    return frozenset(number for number, symbol in enumerate(load_symbols("v2")) if symbol in PAUSES)
