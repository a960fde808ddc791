"""voxline publish"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.common import BaseOption, JsonOption, RegistryOption, UntrustedOption, VoiceArgument, WorkOption
from pipeline.cli.terminal import print_json, tell

if TYPE_CHECKING:
    from pipeline.line.walk import VoiceRun


def register(app: typer.Typer) -> None:
    app.command("publish", rich_help_panel="The line")(publish)


def publish(
    voice: VoiceArgument,
    base: BaseOption = None,
    registry: RegistryOption = None,
    channel: Annotated[
        str | None, typer.Option(help="production, or candidate to let a person decide.", show_default=False)
    ] = None,
    work: WorkOption = None,
    untrusted: UntrustedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put a voice that passed its gate into the registry, and move the channel to it.

    A version that the registry holds already is only put back on its channel. Runs the earlier stages first where they
    were not done. Exit 11 without a passed report of exactly this version, 12 when a person has to promote it: because
    voice.yaml says so, or because one of the gate's two ears for naturalness did not like it.

        voxline publish sample
        voxline publish sample --registry file:registry --channel candidate
    """
    from pipeline.cli.common import ConsoleReporter, require_trusted
    from pipeline.cli.line import open_workspace
    from pipeline.errors import ReviewPending
    from pipeline.line.walk import VoiceRun, walk

    require_trusted("publish", "merge it: the protected branch's pipeline publishes")
    flags = {
        "voxline.base": base,
        "voxline.work": work,
        "voxline.registry": registry,
        "publish.channel": channel,
    }
    workspace = open_workspace(voice, flags, ConsoleReporter(quiet=as_json))
    run = VoiceRun(workspace.voice.name, workspace.version)
    try:
        walk(workspace, run)
    except ReviewPending:
        if as_json:
            print_json(_plain(run))
        raise
    if as_json:
        print_json(_plain(run))
        return
    place = f" on {run.channel}" if run.channel else ""
    told = f"{run.voice} {run.version}: {run.status}{place}{f'; {run.message}' if run.message else ''}"
    tell(told)


def _plain(run: VoiceRun) -> dict[str, str]:
    return {"voice": run.voice, "version": run.version, "status": run.status, "channel": run.channel}
