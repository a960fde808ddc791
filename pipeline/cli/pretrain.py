"""voxline pretrain"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command("pretrain", rich_help_panel="Setting up")(pretrain)


def pretrain(
    recipe: Annotated[Path, typer.Argument(help="Recipe, such as recipes/nano.yaml.")],
    data: Annotated[Path, typer.Option("--data", help="Folder that the recipe's manifests and voices lie in.")],
    work: Annotated[Path, typer.Option("--work", help="Where checkpoints and logs go.")] = Path("work/pretrain"),
    stage: Annotated[list[str] | None, typer.Option("--stage", help="Only this stage; may be repeated.")] = None,
    threads: Annotated[int, typer.Option("--threads", help="CPU threads; 0 leaves the choice to torch.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a base from scratch: content encoder, quantizer, acoustic model, text-to-semantic network.

    However a run was stopped, it continues from its last checkpoint.

        voxline pretrain recipes/nano.yaml --data ../shared/data
        voxline pretrain recipes/nano.yaml --data ../shared/data --stage gpt --stage export
    """
    from pipeline.cli.common import prepare_machine, resolve_settings

    prepare_machine(resolve_settings().settings.voxline)
    from models.loading.networks import prepare_device  # only now: it asks the processor
    from pipeline.pretrain.recipe import read_recipe
    from pipeline.pretrain.run import run_pretraining

    run_pretraining(read_recipe(recipe), data, work, prepare_device(device, threads), stage or [])
