"""voxline evaluate"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

from pipeline.cli.stage import stage_command
from pipeline.cli.terminal import print_json, tell

if TYPE_CHECKING:
    from pipeline.line.workspace import Workspace


def register(app: typer.Typer) -> None:
    app.command("evaluate", rich_help_panel="The line", help=evaluate.__doc__)(stage_command("evaluate", evaluate))


def evaluate(workspace: Workspace, as_json: bool) -> None:
    """Measure a trained voice on clips it never saw, and open or block the gate (exit 11).

    Writes index.html, summary.md, junit.xml and report.json into report/. Runs the earlier stages first where needed.

        voxline evaluate sample
        voxline evaluate sample --json
    """
    from pipeline.errors import GateBlocked
    from pipeline.io.ci import address_of, summarise
    from pipeline.line.walk import VoiceRun, run_until
    from pipeline.plain import markdown

    run = VoiceRun(workspace.voice.name)
    try:
        report = run_until(workspace, "evaluate", run)["evaluate"].record
    except GateBlocked as blocked:
        summarise(_summary(run.report) or f"## Voice {workspace.voice.name}: {markdown(blocked.message)}\n", os.environ)
        if as_json:
            print_json(_report(run.report))
        raise
    summarise(_summary(run.report), os.environ)
    if as_json:
        print_json(_report(run.report))
        return
    verdict = "passed, but a person should listen before it is used" if report.review else "passed"
    tell(f"{workspace.voice.name} {workspace.version}: {verdict}; report: {address_of(run.report, os.environ)}")


def _summary(page: str) -> str:
    """What the stage wrote for the page of a run; empty where nothing was measured."""
    from pathlib import Path

    path = Path(page).with_name("summary.md")
    return path.read_text(encoding="utf-8") if page and path.is_file() else ""


def _report(page: str) -> object:
    import json
    from pathlib import Path

    return json.loads(Path(page).with_name("report.json").read_text(encoding="utf-8"))
