"""voxline run"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.common import (
    BaseOption,
    JsonOption,
    RegistryOption,
    UntrustedOption,
    WorkOption,
    complete_voice,
    complete_words,
)
from pipeline.cli.terminal import print_json, print_table, table, tell
from pipeline.line import table as stages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.line.walk import VoiceRun
    from pipeline.records.job import Reporter
    from pipeline.records.plan import Plan


def register(app: typer.Typer) -> None:
    told = (run.__doc__ or "").format(stages=", ".join(stages.names()))
    app.command("run", rich_help_panel="The line", help=told)(run)


def run(
    voices: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of folders in voices/, or paths.", show_default=False, autocompletion=complete_voice
        ),
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option(help="A file written by `voxline plan --json`, or `auto` to plan now.", show_default=False),
    ] = None,
    until: Annotated[
        str,
        typer.Option(
            help=f"Last stage: {stages.told('or')}.",
            autocompletion=complete_words(*stages.names()),
        ),
    ] = stages.last().name,
    base: BaseOption = None,
    registry: RegistryOption = None,
    work: WorkOption = None,
    untrusted: UntrustedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Walk the whole line: {stages}. What is done already costs nothing.

    Several voices run one after another; one that fails does not stop the others, and the exit code is the worst of
    them.

        voxline run sample
        voxline run ana ben --until evaluate
        voxline run --plan auto --json
    """
    from pipeline.cli.common import ConsoleReporter, require_trusted
    from pipeline.errors import UsageError
    from pipeline.line.walk import worst_exit_code

    if until not in stages.STAGES:
        raise UsageError(f"--until {until}: no such stage", hint=f"one of {', '.join(stages.names())}")
    if bool(voices) == bool(plan):
        raise UsageError("name voices, or give --plan, not both", hint="voxline run sample")
    if stages.STAGES[until].writes:
        unpublished = stages.stored()[-1].name
        hint = f"--until {unpublished}, or merge it: the protected branch's pipeline publishes"
        require_trusted(f"run up to {until}", hint)
    flags = {"voxline.base": base, "voxline.registry": registry, "voxline.work": work}
    reporter = ConsoleReporter(quiet=as_json)
    runs: list[VoiceRun] = []
    for name, retires in _voices_of(plan, flags) if plan else [(voice, False) for voice in voices or []]:
        runs.append(_retire(name, flags) if retires else _walk(name, flags, reporter, until))
        if not as_json:
            _print_failure(runs[-1])
    if as_json:
        print_json([_plain(one) for one in runs])
    else:
        _print_summary(runs)
    raise typer.Exit(worst_exit_code(runs))


def _walk(name: str, flags: Mapping[str, Any], reporter: Reporter, until: str) -> VoiceRun:
    from pipeline.cli.line import open_workspace
    from pipeline.line.walk import run_voice

    return run_voice(name, lambda: open_workspace(name, flags, reporter), until)


def _voices_of(plan: str, flags: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Names to walk, and whether each is to be retired."""
    from pipeline.cli.plan import make_plan_here

    loaded = make_plan_here(flags, worktree=True) if plan == "auto" else _read_plan(Path(plan))
    return [(entry.voice, entry.action == "retire") for entry in loaded.to_do()]


def _retire(voice: str, flags: Mapping[str, Any]) -> VoiceRun:
    """The folder is gone, so is the voice; its releases stay."""

    from pipeline.cli.common import registry_of, repository_root, require_trusted, resolve_settings
    from pipeline.io.provenance import find_mover
    from pipeline.line.walk import VoiceRun
    from pipeline.records.plan import FOLDER_DELETED

    require_trusted(f"retiring {voice}", "merge it: the protected branch's pipeline retires")
    root = repository_root()
    registry = registry_of(resolve_settings(flags).settings, flag=flags.get("voxline.registry"))
    events = registry.retire(voice, find_mover(root, os.environ, FOLDER_DELETED))
    return VoiceRun(voice, status="retired" if events else "unchanged", message=FOLDER_DELETED)


def _read_plan(path: Path) -> Plan:
    from pydantic import ValidationError

    from pipeline.errors import UsageError
    from pipeline.records.plan import Plan

    try:
        return Plan.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{path}: no such plan", hint=f"voxline plan --json > {path}") from None
    except ValidationError:
        raise UsageError(
            f"{path}: not written by `voxline plan --json`", hint=f"voxline plan --json > {path}"
        ) from None


def _plain(run: VoiceRun) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(run)


def _print_failure(run: VoiceRun) -> None:
    if run.exit_code:
        tell(f"{run.voice}: {run.status}: {run.message}", style="red", stderr=True)
        if run.hint:
            tell(f"  next: {run.hint}", stderr=True)


def _print_summary(runs: list[VoiceRun]) -> None:
    from pipeline.io.ci import address_of

    rows = table(header_style="bold", padding=(0, 1, 0, 0))
    for column in ("voice", "version", *stages.names(), "outcome"):
        rows.add_column(column, no_wrap=column != "outcome", min_width=12 if column == "outcome" else None)
    for run in runs:
        times = {line.stage: "done" if line.was_cached else f"{line.duration_s:.1f}s" for line in run.stages}
        shown = run.exit_code in (0, 12) and run.channel
        outcome = f"{run.status} on {run.channel}" if shown else run.status
        style = "green" if run.exit_code == 0 else "yellow" if run.exit_code == 12 else "red"
        rows.add_row(
            run.voice, run.version or "-", *(times.get(name, "-") for name in stages.names()), outcome, style=style
        )
    print_table(rows)
    for run in runs:
        if run.status == "unchanged" and not run.channel:
            tell(f"{run.voice}: {run.message}")
        if run.report:
            tell(f"report: {address_of(run.report, os.environ)}")
