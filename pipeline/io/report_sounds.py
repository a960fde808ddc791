"""The sentences that an earlier version's report plays, taken out of its page: they lie nowhere else."""

from __future__ import annotations

import base64
import binascii
from html.parser import HTMLParser
from pathlib import Path

_KIND = "data:audio/ogg;base64,"
_MOST_BYTES = 8 << 20  # of a page; ours have three


class _Players(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, bytes] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        name, source = told.get("data-sentence"), told.get("src") or ""
        if tag == "audio" and name and source.startswith(_KIND):
            try:
                self.found[name] = base64.b64decode(source.removeprefix(_KIND), validate=True)
            except binascii.Error:
                return


def sentences_of(page: Path) -> dict[str, bytes]:
    """Name of a sentence -> its Ogg file; nothing where there is no page of ours."""
    try:
        if page.stat().st_size > _MOST_BYTES:
            return {}
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    players = _Players()
    players.feed(text)
    return players.found
