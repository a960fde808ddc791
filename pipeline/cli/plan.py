"""voxline plan"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from pipeline.cli.common import JsonOption, RegistryOption, UntrustedOption
from pipeline.cli.terminal import print_table, table, tell, write_document
from pipeline.line import table as stages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.records.plan import Plan, PlanEntry


class Format(StrEnum):
    """How the plan is written."""

    TABLE = "table"
    JSON = "json"
    GITLAB = "gitlab"
    JENKINS = "jenkins"
    GITHUB = "github"


class Through(StrEnum):
    """The last stage that generated jobs run."""

    VALIDATE = stages.first().name
    PUBLISH = stages.last().name


def register(app: typer.Typer) -> None:
    app.command("plan", rich_help_panel="The line")(plan)


def plan(
    since: Annotated[
        str | None,
        typer.Option("--base", help="Revision before the push; zeros or unknown is fine.", show_default=False),
    ] = None,
    head: Annotated[str, typer.Option("--head", help="Revision to plan.")] = "HEAD",
    worktree: Annotated[
        bool, typer.Option("--worktree", help="Plan the files on disk, with what is not committed yet.")
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="For people, scripts or a CI engine.")] = Format.TABLE,
    as_json: JsonOption = False,
    through: Annotated[
        Through,
        typer.Option("--through", help=f"Last stage of the jobs; merge requests stop at {Through.VALIDATE}."),
    ] = Through.PUBLISH,
    changed_only: Annotated[
        bool, typer.Option("--changed-only", help="Leave out voices that did not change since the base.")
    ] = False,
    retry_refused: Annotated[
        bool, typer.Option("--retry-refused", help="Train also what was refused before and has not changed since.")
    ] = False,
    show_all: Annotated[bool, typer.Option("--all", help="List voices with nothing to do, too.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to a file instead of the terminal.", show_default=False)
    ] = None,
    registry: RegistryOption = None,
    base_model: Annotated[
        str | None, typer.Option("--base-model", help="Base model, instead of the voices' own.", show_default=False)
    ] = None,
    untrusted: UntrustedOption = False,
) -> None:
    """Say what has to be done for each voice between two revisions.

    The registry decides: train what it does not hold, republish what it holds already, retire what was deleted.
    What was refused is skipped until its folder, the limits or voxline change.

        voxline plan --worktree
        voxline plan --base origin/main --head HEAD --json
        voxline plan --base "$CI_COMMIT_BEFORE_SHA" --format gitlab -o child.yml
    """
    from pipeline.cli.common import is_untrusted_here
    from pipeline.errors import UsageError
    from pipeline.line.plan_formats import Frame, github_matrix, gitlab_pipeline, jenkins_branches

    flags = {"voxline.registry": registry, "voxline.base": base_model}
    made = make_plan_here(flags, since=since, head=head, worktree=worktree, retry_refused=retry_refused)
    if changed_only:
        kept = tuple(entry for entry in made.entries if entry.change != "unchanged")
        made = made.model_copy(update={"entries": kept})
    chosen = Format.JSON if as_json else form
    if output is not None and chosen is Format.TABLE:
        raise UsageError("--output takes no table", hint="add --json or --format, or leave --output out")
    if chosen is Format.TABLE:
        _print_table(made, show_all)
        return
    frame = Frame(
        # Nothing of a stranger's is trained or published, whatever --through says.
        only_validate=through is Through.VALIDATE or is_untrusted_here(),
        is_untrusted=is_untrusted_here(),
        registry=registry,
        base=base_model,
    )
    writers = {
        Format.JSON: lambda: made.model_dump_json(indent=2) + "\n",
        Format.GITLAB: lambda: gitlab_pipeline(made, frame),
        Format.JENKINS: lambda: jenkins_branches(made, frame),
        Format.GITHUB: lambda: github_matrix(made, frame),
    }
    text = writers[chosen]()
    if output is None:
        write_document(text)
    else:
        from pipeline.io.files import write_atomically

        write_atomically(output, text.encode())
    # For the log: what will be done and why. A script that reads the plan from standard output is not disturbed.
    _print_table(made, show_all, stderr=True)


def make_plan_here(
    flags: Mapping[str, Any],
    *,
    since: str | None = None,
    head: str = "HEAD",
    worktree: bool = False,
    retry_refused: bool = False,
) -> Plan:
    """The plan of the repository around the current folder. ``flags``: settings given on the command line."""
    import os

    from pipeline.cli.common import governing_here, registry_of, repository_root, resolve_settings
    from pipeline.io.memory import cached
    from pipeline.line.run_stage import judging_code
    from pipeline.stages.plan import Identifier, Revisions, make_plan

    root = repository_root()
    governing = governing_here()
    settings = resolve_settings(flags).settings
    general = settings.voxline
    return make_plan(
        Identifier(root, os.environ, flags, judging_code(), governing),
        registry_of(settings, flag=flags.get("voxline.registry")),
        Revisions(since, head, worktree),
        voices=general.voices,
        retries_refused=retry_refused,
        memory=cached("trees", os.environ),
    )


STYLES = {"train": "bold green", "republish": "cyan", "retire": "yellow", "skip": "dim", "refused": "red"}


def _print_table(made: Plan, show_all: bool, *, stderr: bool = False) -> None:
    from rich.text import Text

    shown = [entry for entry in made.entries if show_all or _matters(entry)]
    if made.note:
        tell(made.note, style="dim", stderr=stderr)
    if shown:
        rows = table("voice", "action", "change", "version", "why")
        for entry in shown:
            style = STYLES["refused" if entry.is_refused else entry.action]
            version = entry.version or "-"
            rows.add_row(entry.voice, Text(entry.action, style=style), entry.change, version, Text(entry.reason))
        print_table(rows, stderr=stderr)
    tell(_summary(made), stderr=stderr)


def _matters(entry: PlanEntry) -> bool:
    """Whether somebody may wait for what this entry does, or does not do.

    A skip is told where a person has to act, and where a folder is gone.
    """
    return entry.action != "skip" or entry.is_refused or entry.change == "deleted"


def _summary(made: Plan) -> str:
    from pipeline.records.plan import PlanAction

    counts = {action: sum(entry.action == action for entry in made.entries) for action in get_args(PlanAction)}
    refused = sum(entry.is_refused for entry in made.entries)
    told = ", ".join(f"{count} {action}" for action, count in counts.items())
    told += f", of which {refused} refused" if refused else ""
    served_on = sum(entry.is_elsewhere and entry.change == "deleted" for entry in made.entries)
    told += f"; {served_on} deleted here but served on" if served_on else ""
    elsewhere = sum(entry.is_elsewhere for entry in made.entries) - served_on
    told += f"; {elsewhere} published from other repositories, see --all" if elsewhere else ""
    return f"{len(made.entries)} {'voice' if len(made.entries) == 1 else 'voices'}: {told}"
