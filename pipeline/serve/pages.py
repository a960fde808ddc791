"""What a browser is shown: the page at `/`, the description of the API, and quality reports. Nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "page"
FILES: Mapping[str, str] = {"page.js": "text/javascript", "page.css": "text/css"}
COMMON = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
PAGE = COMMON | {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " media-src blob:; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}
# A report is a page that a pipeline made: it may show itself, and nothing else.
REPORT = COMMON | {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:;"
    " base-uri 'none'; form-action 'none'"
}


def read_page(name: str) -> bytes:
    """A file of the page at `/`."""
    return (FOLDER / name).read_bytes()


def description_page(described: Mapping[str, Any]) -> str:
    """The API for people, from its OpenAPI description."""
    body = "\n".join(_routes(described))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>voxline: the API</title><link rel="stylesheet" href="/page/page.css"><link rel="icon" href="data:,"></head>
<body><h1>The API</h1><p class="soft">For programs: <a href="/openapi.json">openapi.json</a>.</p>
{body}
<h2>WebSocket /v1/audio/stream</h2><p>A text in pieces, spoken from its first whole phrase on.</p>
</body></html>
"""


def _routes(described: Mapping[str, Any]) -> Iterator[str]:
    schemas = described.get("components", {}).get("schemas", {})
    for path, methods in described["paths"].items():
        for method, told in methods.items():
            yield f"<h2>{escape(method.upper())} {escape(path)}</h2><p>{escape(told.get('description', ''))}</p>"
            content = told.get("requestBody", {}).get("content", {}).get("application/json", {})
            schema = schemas.get(content.get("schema", {}).get("$ref", "").rsplit("/", 1)[-1])
            if schema:
                yield "<dl>" + "".join(_field(name, one) for name, one in schema["properties"].items()) + "</dl>"


def _field(name: str, told: Mapping[str, Any]) -> str:
    choices = ", ".join(str(one) for one in told.get("enum", ()))
    limits = ", ".join(
        f"{words} {told[key]}" for key, words in (("minimum", "at least"), ("maximum", "at most")) if key in told
    )
    default = f"default {told['default']!r}" if told.get("default") is not None else ""
    parts = [told.get("description", ""), choices, limits, default]
    return f"<dt>{escape(name)}</dt><dd>{escape('; '.join(part for part in parts if part))}</dd>"
