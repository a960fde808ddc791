"""voxline settings"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.common import JsonOption, UntrustedOption

if TYPE_CHECKING:
    from rich.text import Text


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
    from pipeline.cli.common import console, governing_here, print_json, resolve_settings
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
    from rich.table import Table
    from rich.text import Text

    from pipeline.config import SECTIONS

    table = Table("setting", "value", "from", *(["meaning"] if explain else []), box=None)
    for one in resolved.origins:
        meaning = SECTIONS[one.section].model_fields[one.key].description or ""
        style = "" if one.source == "default" else "bold"
        name = f"{one.section}.{one.key}"
        row = [Text(name), _shown(one.value), Text(one.source)]
        table.add_row(*row, *([meaning] if explain else []), style=style)
        if name in refused:
            told = "pipeline.toml of the tree: refused, it is not merged"
            table.add_row("", _shown(refused[name]), told, style="red")
    console().print(table)


def _shown(value: object) -> Text:
    """A value as it is written; a stranger's text holds no escape sequences for the terminal."""
    from rich.text import Text

    return Text("-" if value is None else value if isinstance(value, str) and value.isprintable() else repr(value))
