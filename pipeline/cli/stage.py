"""The commands of the stages, as CI calls them: a module of its own where one has more to say, else the general."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import typer

from pipeline.cli.common import (
    BaseOption,
    JsonOption,
    RecordOption,
    RegistryOption,
    UntrustedOption,
    VoiceArgument,
    WorkOption,
)
from pipeline.cli.terminal import print_json, tell
from pipeline.line import table

if TYPE_CHECKING:
    from pipeline.line.workspace import Workspace


def register(app: typer.Typer) -> None:
    for name, stage in table.STAGES.items():
        own = f"pipeline.cli.{name}"
        if find_spec(own):
            importlib.import_module(own).register(app)
        else:
            told = f"Settles {stage.settles}. Runs the earlier stages first where they were not done."
            command = stage_command(name, partial(_settle, name))
            app.command(name, rich_help_panel="The line", help=told)(command)


def stage_command(name: str, settle: Callable[[Workspace, bool], None]) -> Callable[..., None]:
    """A stage's command with the options that all of them have.

    settle: runs the stage in a workspace and says how it ended, as JSON or in words. A refusal that it leaves with is
    kept in the registry where `--record` asks for that.
    """

    def run(
        voice: VoiceArgument,
        base: BaseOption = None,
        record: RecordOption = False,
        registry: RegistryOption = None,
        work: WorkOption = None,
        untrusted: UntrustedOption = False,
        as_json: JsonOption = False,
    ) -> None:
        from pipeline.cli.common import ConsoleReporter, require_trusted
        from pipeline.cli.line import open_workspace
        from pipeline.line.verdict import recording_refusal

        if record:
            require_trusted(f"{name} --record", "leave --record out: the registry belongs to the protected branch")
        flags = {"voxline.base": base, "voxline.registry": registry, "voxline.work": work}
        workspace = open_workspace(voice, flags, ConsoleReporter(quiet=as_json))
        with recording_refusal(workspace, wanted=record):
            settle(workspace, as_json)

    return run


def _settle(name: str, workspace: Workspace, as_json: bool) -> None:
    from pipeline.line.walk import run_until

    outcome = run_until(workspace, name)[name]
    if as_json:
        print_json(outcome.result)
        return
    tell(f"{workspace.voice.name}: {name} done -> {outcome.folder}")
