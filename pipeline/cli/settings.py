"""voxline settings"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.common import JsonOption, UntrustedOption
from pipeline.cli.terminal import print_json, print_table, table

if TYPE_CHECKING:
    from pipeline.config import Resolved, Setting


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
    with --untrusted, pipeline.toml is the protected branch's. What is refused is listed in red: what a stranger's tree
    says differently, and a gate weaker than that of the base's card or of pipeline.toml.

        voxline settings --explain
        VOXLINE_FINETUNE_RANK=16 voxline settings --voice sample --json
    """
    from pipeline.cli.common import governing_here, resolve_settings
    from pipeline.cli.voices import keys_of_voice

    told = keys_of_voice(voice) if voice else None
    weaker: list[Setting] = []
    resolved = resolve_settings(voice=told, refused=weaker)
    origins = _with_card(resolved, weaker)
    refused = {f"gate.{one.key}": (one.value, f"{one.source}: refused, weaker") for one in weaker}
    governing = governing_here()
    for name, value in (governing.ignored if governing else {}).items():
        refused[name] = (value, "pipeline.toml of the tree: refused, it is not merged")
    if as_json:
        print_json(
            [
                {"section": one.section, "key": one.key, "value": one.value, "source": one.source}
                | ({"refused": refused[name][0]} if (name := f"{one.section}.{one.key}") in refused else {})
                for one in origins
            ]
        )
        return
    from pipeline.config import SECTIONS

    rows = table("setting", "value", "from", *(["meaning"] if explain else []))
    for one in origins:
        meaning = SECTIONS[one.section].model_fields[one.key].description or ""
        style = "" if one.source == "default" else "bold"
        name = f"{one.section}.{one.key}"
        rows.add_row(name, _shown(one.value), one.source, *([meaning] if explain else []), style=style)
        if name in refused:
            value, why = refused[name]
            rows.add_row("", _shown(value), why, style="red")
    print_table(rows)


def _with_card(resolved: Resolved, weaker: list[Setting]) -> list[Setting]:
    """The settings with the gate in force, which the base's card can raise; what it raises goes to ``weaker``."""
    from models.errors import ModelsError
    from models.loading.bases import find_base
    from pipeline.cli.common import repository_root
    from pipeline.config import Setting
    from pipeline.records.metrics import minima as minima_of

    general = resolved.settings.voxline
    try:
        base = find_base(general.base, repository_root() / general.bases, general.replaced_bases)
    except ModelsError:
        return list(resolved.origins)
    minima = minima_of(base.gate.floors)
    found = []
    for one in resolved.origins:
        floor = minima.get(one.key, 0.0) if one.section == "gate" else None
        if floor is not None and (one.value is None or one.value < floor):
            if one.value is not None:
                weaker.append(one)
            found.append(Setting(one.section, one.key, floor, f"floor of base {base.name}"))
        else:
            found.append(one)
    return found


def _shown(value: object) -> str:
    return "-" if value is None else str(value)
