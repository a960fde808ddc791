"""voxline cache gc"""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.common import JsonOption
from pipeline.cli.terminal import print_json, tell

group = typer.Typer(
    no_args_is_help=True, help="What was downloaded from registries, for all repositories of this user."
)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="cache", rich_help_panel="Setting up")


@group.callback()
def cache() -> None:
    """A group, though it has one command: what belongs to no registry gets its place here."""


@group.command("gc")
def collect(
    max_gb: Annotated[float, typer.Option("--max-gb", min=0, help="How much may stay, in GB.")] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Remove downloaded releases that were not used for longest, until the rest fits.

    What was used within the last hour stays. Everything can be downloaded again.

        voxline cache gc --max-gb 5
    """
    from pipeline.cli.common import resolve_settings
    from pipeline.io.registry.downloads import Downloads
    from pipeline.io.registry.registry import downloads_folder

    folder = downloads_folder(resolve_settings().settings.voxline.cache_folder)
    removed, kept = Downloads(folder).collect(int(max_gb * 1e9))
    if as_json:
        print_json({"folder": str(folder), "removed_bytes": removed, "kept_bytes": kept})
        return
    tell(f"{folder}: {removed / 1e6:.1f} MB removed, {kept / 1e6:.1f} MB stay")
