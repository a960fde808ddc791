"""voxline settings"""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.common import JsonOption, UntrustedOption
from pipeline.cli.terminal import print_json, print_table, table


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

    Flags win over VOXLINE_* variables, then voice.yaml, then pipeline.toml, then the defaults. In a merge request, or
    with --untrusted, pipeline.toml is the protected branch's; what the tree says differently is listed as refused.

        voxline settings --explain
        VOXLINE_FINETUNE_RANK=16 voxline settings --voice sample --json
    """
    from pipeline.cli.common import governing_here, resolve_settings
    from pipeline.cli.voices import voice_overrides

    overrides, source = voice_overrides(voice) if voice else ({}, "voice.yaml")
    resolved = resolve_settings(voice_overrides=overrides, voice_source=source)
    governing = governing_here()
    refused = governing.ignored if governing else {}
    if as_json:
        print_json(
            [
                {"section": one.section, "key": one.key, "value": one.value, "source": one.source}
                | ({"refused": refused[name]} if (name := f"{one.section}.{one.key}") in refused else {})
                for one in resolved.origins
            ]
        )
        return
    from pipeline.config import SECTIONS

    rows = table("setting", "value", "from", *(["meaning"] if explain else []))
    for one in resolved.origins:
        meaning = SECTIONS[one.section].model_fields[one.key].description or ""
        style = "" if one.source == "default" else "bold"
        name = f"{one.section}.{one.key}"
        rows.add_row(name, _shown(one.value), one.source, *([meaning] if explain else []), style=style)
        if name in refused:
            rows.add_row("", _shown(refused[name]), "pipeline.toml of the tree: refused, it is not merged", style="red")
    print_table(rows)


def _shown(value: object) -> str:
    return "-" if value is None else str(value)
