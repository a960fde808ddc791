"""voxline extract"""

from __future__ import annotations

import typer

from pipeline.cli.common import BaseOption, JsonOption, UntrustedOption, VoiceArgument, WorkOption
from pipeline.cli.terminal import print_json, tell


def register(app: typer.Typer) -> None:
    app.command("extract", rich_help_panel="The line")(extract)


def extract(
    voice: VoiceArgument,
    base: BaseOption = None,
    work: WorkOption = None,
    untrusted: UntrustedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Turn accepted recordings into features: phones, semantic tokens, spectrograms, speaker vectors.

    Runs validate first where that was not done.

        voxline extract sample
        voxline extract sample --base nano --json
    """
    from pipeline.cli.common import ConsoleReporter
    from pipeline.cli.line import open_workspace
    from pipeline.line.walk import run_until

    flags = {"voxline.base": base, "voxline.work": work}
    workspace = open_workspace(voice, flags, ConsoleReporter(quiet=as_json))
    outcome = run_until(workspace, "extract")["extract"]
    if as_json:
        print_json(outcome.result)
        return
    record = outcome.record
    tell(
        f"{workspace.voice.name}: {len(record.clips)} clips, {record.duration_s:.1f} s for base {record.base}"
        f" -> {outcome.folder}"
    )
    for one in record.left_out:
        tell(f"  left out {one.clip}: {one.detail}")
