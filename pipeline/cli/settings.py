"""voxline settings"""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.common import JsonOption, UntrustedOption


def register(app: typer.Typer) -> None:
    app.command("settings", rich_help_panel="Setting up")(settings)


def settings(
    voice: Annotated[
        str | None, typer.Option("--voice", help="Include this voice's voice.yaml.", show_default=False)
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say where each value came from, and what it means.")
    ] = False,
    untrusted: UntrustedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the resolved settings and where each value came from.

    Flags win over VOXLINE_* variables, then voice.yaml, then pipeline.toml, then the defaults.

        voxline settings --explain
        VOXLINE_FINETUNE_RANK=16 voxline settings --voice sample --json
    """
    from pipeline.cli.common import console, print_json, resolve_settings
    from pipeline.cli.voices import voice_overrides

    overrides, source = voice_overrides(voice) if voice else ({}, "voice.yaml")
    resolved = resolve_settings(voice_overrides=overrides, voice_source=source)
    if as_json:
        print_json(
            [
                {"section": one.section, "key": one.key, "value": one.value, "source": one.source}
                for one in resolved.origins
            ]
        )
        return
    from rich.table import Table

    from pipeline.config import SECTIONS

    table = Table("setting", "value", "from", *(["meaning"] if explain else []), box=None)
    for one in resolved.origins:
        meaning = SECTIONS[one.section].model_fields[one.key].description or ""
        style = "" if one.source == "default" else "bold"
        row = [f"{one.section}.{one.key}", "-" if one.value is None else str(one.value), one.source]
        table.add_row(*row, *([meaning] if explain else []), style=style)
    console().print(table)
