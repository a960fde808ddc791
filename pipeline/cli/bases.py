"""voxline bases list|show|pull"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.common import JsonOption, complete_base, typed
from pipeline.cli.terminal import print_json, print_table, table, tell, write_document

if TYPE_CHECKING:
    from models.loading.bases import Base

BaseArgument = Annotated[
    str,
    typer.Argument(help="A base, see `voxline bases list`.", show_default=False, autocompletion=complete_base),
]

group = typer.Typer(no_args_is_help=True, help="What voices are built on: list them, look at one, fetch it.")


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="bases", rich_help_panel="Setting up")


@group.command("list")
def list_bases(as_json: JsonOption = False) -> None:
    """List the bases that come with voxline and those in the repository's own bases/ folder.

    voxline bases list
    """

    described = [describe(base) for base in all_bases()]
    if as_json:
        print_json(described)
        return
    rows = table("base", "family", "languages", "rate", "weights", "licence", "from", header_style="bold")
    for one in described:
        rate = f"{one['sample_rate_hz'] / 1000:g} kHz"
        style = "" if one["usable"] else "dim"
        cells = (
            one["name"],
            one["family"],
            " ".join(one["languages"]),
            rate,
            one["weights"],
            one["license"],
            one["from"],
        )
        rows.add_row(*cells, style=style)
    print_table(rows)
    _tell_shadows()


@group.command("show")
def show(
    name: BaseArgument,
    full: Annotated[bool, typer.Option("--full", help="All of base.yaml: every number of the networks.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one base: its weights, licence and gate floors.

    voxline bases show nano
    voxline bases show nano --full
    """
    import yaml

    from pipeline.cli.common import resolve_settings
    from pipeline.cli.line import open_base

    with typed(name):
        base = open_base(name, resolve_settings().settings.voxline)
    content = {**describe(base), "digest": base.digest, **base.model_dump(mode="json", exclude={"name", "license"})}
    if as_json:
        print_json(content)
        return
    if full:
        write_document(yaml.safe_dump(content, sort_keys=False))
        return
    shown = table(show_header=False)
    for key, value in summarise(base).items():
        shown.add_row(key, value)
    print_table(shown)
    tell(f"how the floors were measured, and every number: voxline bases show {name} --full", style="dim")


def summarise(base: Base) -> dict[str, str]:
    """What a person asks of a base, by name."""
    from pipeline.records.metrics import minima, settable

    told, gate, least = describe(base), base.gate, minima(base.gate.floors)
    return {
        "base": base.name,
        "description": base.description,
        "family": f"{base.family}, {base.sample_rate_hz / 1000:g} kHz",
        "languages": " ".join(base.text.languages),
        "weights": told["weights"] + (f"; {told['advice']}" if told["advice"] else ""),
        "licence": base.license.name,
        "digest": base.digest[:12],
        "gate": ", ".join(f"{one.title} at least {least[one.setting]:g}" for one in settable()),
        "waived": "; ".join(f"{check}: {why}" for check, why in gate.waived.items()) or "nothing",
    }


def all_bases() -> list[Base]:
    """Every base that can be named here."""
    from models.loading.bases import find_base, find_bases
    from pipeline.cli.common import repository_root, resolve_settings

    general = resolve_settings().settings.voxline
    own = repository_root() / general.bases
    return [find_base(name, own, general.replaced_bases) for name in find_bases(own)]


def _tell_shadows() -> None:
    """Say which of the repository's own bases are not used, and why."""
    from models.loading.bases import find_shadows
    from pipeline.cli.common import repository_root, resolve_settings

    general = resolve_settings().settings.voxline
    for name in find_shadows(repository_root() / general.bases, general.replaced_bases):
        told = f"{general.bases}/{name} is not used: voxline has a base of that name; rename it, or name it in"
        tell(f"{told} replaced_bases of pipeline.toml", stderr=True)


def describe(base: Base) -> dict[str, Any]:
    """One base as a row: where its weights stand, and what to do where they are not here."""
    from pipeline.cli.common import resolve_settings

    cache = resolve_settings().settings.voxline.cache_folder
    missing = base.missing_weights(cache)
    if base.random_roles:
        weights, advice = "random", "only for trying the line: the gate blocks it"
    elif not missing:
        weights, advice = ("embedded" if base.is_embedded else "pulled"), ""
    else:
        weights, advice = "not pulled", f"voxline bases pull {base.name}"
    return {
        "name": base.name,
        "description": base.description,
        "family": base.family,
        "languages": list(base.text.languages),
        "sample_rate_hz": base.sample_rate_hz,
        "license": base.license.name,
        "weights": weights,
        "from": "voxline" if base.is_packaged else _shown_folder(base.folder),
        "missing": missing,
        "usable": not missing,
        "advice": advice,
    }


@group.command("pull")
def pull(
    name: BaseArgument,
    source: Annotated[
        Path | None, typer.Option("--from", help="Folder with the files, instead of the hub.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Pull again what is here already.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch the pretrained weights of a base, check them and convert them to safetensors, once.

    HF_ENDPOINT names a mirror, HF_TOKEN a token. What was taken is noted in bases.lock: commit it, and every machine
    takes the same bytes.

        voxline bases pull gpt-sovits-v2proplus
        HF_ENDPOINT=https://mirror.example voxline bases pull gpt-sovits-v4
        voxline bases pull gpt-sovits-v2 --from ~/downloads
    """
    import os

    from pipeline.cli.common import ConsoleReporter, repository_root, require_trusted, resolve_settings
    from pipeline.cli.line import open_base
    from pipeline.io.hub import From
    from pipeline.jobs.pull import pull_base

    settings = resolve_settings().settings.voxline
    reporter = ConsoleReporter(quiet=quiet or as_json)
    if name == "deepfilternet":  # its old name; goes with the release after 0.1
        from pipeline.cli.artifacts import pull as pull_artifacts

        tell("warning: this is called voxline artifacts pull deepfilternet3 now", style="yellow", stderr=True)
        pull_artifacts(["deepfilternet3"], source, force, quiet or as_json)
        return
    require_trusted("bases pull", "pull it from the protected branch: bases.lock says which bytes are taken")
    with typed(name):
        base = open_base(name, settings)
    pulled = pull_base(
        base,
        cache=settings.cache_folder,
        lock_path=repository_root() / "bases.lock",
        source=From(source, os.environ.get("HF_ENDPOINT")),
        force=force,
        log=reporter.log,
    )
    if pulled:
        reporter.log(f"{base.name} is ready: {', '.join(pulled)}")
    if as_json:
        print_json({"name": base.name, "pulled": list(pulled)})


def _shown_folder(folder: Path) -> str:
    from pipeline.cli.common import repository_root

    root = repository_root()
    return str(folder.relative_to(root) if folder.is_relative_to(root) else folder)
