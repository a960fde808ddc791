"""Phone tables."""

from __future__ import annotations

import pytest

from models.errors import SymbolsError
from models.phones.symbols import load_symbols, phones_to_ids, symbol_ids


def test_tables_have_their_published_sizes_and_no_phone_twice() -> None:
    for version, size in (("v1", 322), ("v2", 732)):
        symbols = load_symbols(version)
        assert len(symbols) == len(set(symbols)) == size
    assert load_symbols("v2")[:322] == load_symbols("v1")


def test_ids_that_upstream_relies_on() -> None:
    ids = symbol_ids("v2")
    assert {
        "!": 0,
        ",": 1,
        "-": 2,
        ".": 3,
        "?": 4,
        "UNK": 86,
        "_": 95,
        "…": 321,
        "[": 322,
        "]": 323,
    }.items() <= ids.items()


def test_phones_become_ids_and_an_unknown_one_is_named() -> None:
    assert phones_to_ids(["!", "?", "UNK"], "v2") == [0, 4, 86]
    with pytest.raises(SymbolsError, match="phone 'XX' at place 1"):
        phones_to_ids(["!", "XX"], "v2")
    with pytest.raises(SymbolsError, match="no phone table 'v9'; there are: v1, v2"):
        load_symbols("v9")
