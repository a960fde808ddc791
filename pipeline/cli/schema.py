"""voxline schema"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.terminal import tell, write_document


class Document(StrEnum):
    """The files that people write."""

    VOICE = "voice"
    PIPELINE = "pipeline"


def register(app: typer.Typer) -> None:
    app.command("schema", rich_help_panel="Setting up")(schema)


def schema(
    document: Annotated[
        Document | None, typer.Argument(help="voice.yaml or pipeline.toml.", show_default=False)
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--write", help="Write both schemas into this folder.", show_default=False)
    ] = None,
) -> None:
    """Print the JSON Schema of voice.yaml or pipeline.toml, or write both.

    voxline schema voice
    voxline schema --write schemas
    """
    from pipeline.errors import UsageError
    from pipeline.io.files import write_atomically
    from pipeline.records.schema import FILE_NAMES, render_schema

    if write is not None:
        for name, file_name in FILE_NAMES.items():
            write_atomically(write / file_name, render_schema(name).encode())
            tell(str(write / file_name))
    elif document is not None:
        write_document(render_schema(document.value))
    else:
        raise UsageError("which schema?", hint="voxline schema voice, or voxline schema pipeline")
