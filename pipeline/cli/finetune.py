"""voxline finetune"""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.common import BaseOption, JsonOption, UntrustedOption, VoiceArgument, WorkOption
from pipeline.cli.terminal import print_json, tell


def register(app: typer.Typer) -> None:
    app.command("finetune", rich_help_panel="The line")(finetune)


def finetune(
    voice: VoiceArgument,
    base: BaseOption = None,
    rank: Annotated[int | None, typer.Option(help="LoRA rank.", show_default=False)] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the clips, at most.", show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.", show_default=False)] = None,
    work: WorkOption = None,
    untrusted: UntrustedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train two LoRA adapters on a voice; the base stays frozen and held-out clips are never trained on.

    Continues exactly where a killed run stopped. Runs the earlier stages first where they were not done.

        voxline finetune sample
        voxline finetune sample --rank 16 --epochs 20
    """
    from pipeline.cli.common import ConsoleReporter
    from pipeline.cli.line import open_workspace
    from pipeline.line.walk import run_until

    flags = {
        "voxline.base": base,
        "voxline.work": work,
        "voxline.device": device,
        "finetune.rank": rank,
        "finetune.epochs": epochs,
    }
    workspace = open_workspace(voice, flags, ConsoleReporter(quiet=as_json))
    outcome = run_until(workspace, "finetune")["finetune"]
    if as_json:
        print_json(outcome.result)
        return
    for part in outcome.record.parts:
        for group in part.groups:
            tell(f"{workspace.voice.name}: {part.summary(group)}")
    tell(f"-> {outcome.folder}")
