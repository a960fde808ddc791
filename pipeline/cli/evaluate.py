"""voxline evaluate"""

from __future__ import annotations

import os

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


def register(app: typer.Typer) -> None:
    app.command("evaluate", rich_help_panel="The line")(evaluate)


def evaluate(
    voice: VoiceArgument,
    base: BaseOption = None,
    record: RecordOption = False,
    registry: RegistryOption = None,
    work: WorkOption = None,
    untrusted: UntrustedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a trained voice on clips it never saw, and open or block the gate (exit 11).

    Writes report/index.html, report/junit.xml and report/report.json. Runs the earlier stages first where needed.

        voxline evaluate sample
        voxline evaluate sample --json
    """
    from pipeline.cli.common import ConsoleReporter, require_trusted
    from pipeline.cli.line import open_workspace
    from pipeline.errors import GateBlocked
    from pipeline.io.ci import address_of, summarise
    from pipeline.line.verdict import recording_refusal
    from pipeline.line.walk import VoiceRun, run_until
    from pipeline.plain import one_line

    if record:
        require_trusted("evaluate --record", "leave --record out: the registry belongs to the protected branch")
    flags = {"voxline.base": base, "voxline.registry": registry, "voxline.work": work}
    workspace = open_workspace(voice, flags, ConsoleReporter(quiet=as_json))
    run = VoiceRun(workspace.voice.name)
    try:
        with recording_refusal(workspace, wanted=record):
            run_until(workspace, "evaluate", run)
    except GateBlocked as blocked:
        summarise(f"## Voice {workspace.voice.name}: blocked\n\n    {one_line(blocked.message)}\n", os.environ)
        if as_json:
            print_json(_report(run.report))
        raise
    summarise(f"## Voice {workspace.voice.name}: passed, version {workspace.version}\n", os.environ)
    if as_json:
        print_json(_report(run.report))
        return
    tell(f"{workspace.voice.name} {workspace.version}: passed; report: {address_of(run.report, os.environ)}")


def _report(page: str) -> object:
    import json
    from pathlib import Path

    return json.loads(Path(page).with_name("report.json").read_text(encoding="utf-8"))
