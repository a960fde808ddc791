"""voxline registry"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.common import JsonOption, RegistryOption
from pipeline.cli.terminal import print_json, print_table, table, tell

if TYPE_CHECKING:
    from pipeline.io.registry import Mover, Registry
    from pipeline.records.release import ChannelPointer, Event

commands = typer.Typer(no_args_is_help=True, help="Look into the registry and move its channels.")

NameArgument = Annotated[str, typer.Argument(help="Name of a published voice.", metavar="VOICE", show_default=False)]
VersionArgument = Annotated[
    str | None, typer.Argument(help="Version of 12 hex digits.", metavar="VERSION", show_default=False)
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the history.", show_default=False)]


def register(app: typer.Typer) -> None:
    app.add_typer(commands, name="registry", rich_help_panel="Using voices")


@commands.command("list")
def list_voices(registry: RegistryOption = None, as_json: JsonOption = False) -> None:
    """List all voices with what their channels serve.

    voxline registry list
    """

    opened = _open(registry)
    states = opened.states()
    if as_json:
        listed = []
        for voice, state in states.items():
            channels = {"production": _plain(state.production), "candidate": _plain(state.candidate)}
            listed.append({"voice": voice, **channels, "releases": len(state.versions)})
        print_json({"registry": opened.url, "voices": listed})
        return
    if not states:
        tell(f"{opened.url} is empty; voxline run VOICE publishes the first voice")
        return

    rows = table("voice", "production", "candidate", "releases", "moved", "by")
    for voice, state in states.items():
        last = state.production or state.candidate
        moved = (f"{last.event.at:%Y-%m-%d %H:%M}", last.event.actor) if last else ("", "")
        rows.add_row(voice, _shown(state.production), _shown(state.candidate), str(len(state.versions)), *moved)
    print_table(rows)


@commands.command("show")
def show(
    voice: NameArgument, version: VersionArgument = None, registry: RegistryOption = None, as_json: JsonOption = False
) -> None:
    """Show a release: where it comes from, its measurements, its files. Without a version, production's.

    voxline registry show sample
    """

    release = _open(registry).resolve(voice, version or "production")
    if as_json:
        print_json(release)
        return
    from rich.text import Text

    origin = release.provenance
    rows = {
        "voice": release.voice,
        "version": release.version,
        "published": f"{release.created_at:%Y-%m-%d %H:%M} UTC",
        "author": origin.author,
        "commit": origin.git_revision or "-",
        "pipeline": origin.pipeline or "-",
        "base": release.base,
        "language": release.language,
        "license": release.license,
        "consent": _consent_line(release.consent),
        **{name: "not measured" if value is None else f"{value:.3f}" for name, value in release.metrics.items()},
        "files": f"{len(release.files)}, {sum(told.size_bytes for told in release.files.values()) / 1e6:.1f} MB",
    }
    shown = table(show_header=False)
    for name, value in rows.items():
        shown.add_row(Text(name, style="bold"), value)
    print_table(shown)


@commands.command("history")
def history(voice: NameArgument, registry: RegistryOption = None, as_json: JsonOption = False) -> None:
    """Show every move of a voice's channels: who, when, from which version to which.

    voxline registry history sample
    """

    opened = _open(registry)
    _must_be_published(opened, voice)
    events = opened.history(voice)
    if as_json:
        print_json({"voice": voice, "events": [event.model_dump(mode="json") for event in events]})
        return
    from rich.text import Text

    rows = table("when")
    for column in ("channel", "action", "from", "to"):
        rows.add_column(column, no_wrap=True)
    for column in ("who", "commit", "why"):
        rows.add_column(column)
    for event in events:
        rows.add_row(
            f"{event.at:%Y-%m-%d %H:%M}",
            event.channel,
            Text(event.action, style=STYLES[event.action]),
            event.previous or "-",
            event.version or "-",
            Text(event.actor),
            event.git_revision[:8] or "-",
            Text(event.reason),
        )
    print_table(rows)


@commands.command("promote")
def promote(
    voice: NameArgument, version: VersionArgument = None, registry: RegistryOption = None, reason: ReasonOption = ""
) -> None:
    """Put the candidate, or a version, on production.

    voxline registry promote sample --reason "listened to it"
    """
    event = _open(registry).promote(voice, version, _mover(reason))
    _tell(voice, event)


@commands.command("rollback")
def rollback(
    voice: NameArgument, version: VersionArgument = None, registry: RegistryOption = None, reason: ReasonOption = ""
) -> None:
    """Put production back to the version before, or to a named one. A plan will not undo this.

    voxline registry rollback sample --reason "sounds tired"
    """
    event = _open(registry).rollback(voice, version, _mover(reason))
    _tell(voice, event)


@commands.command("retire")
def retire(voice: NameArgument, registry: RegistryOption = None, reason: ReasonOption = "") -> None:
    """Take a voice off all channels; its releases stay, so it can be brought back.

    voxline registry retire sample --reason "consent withdrawn"
    """
    opened = _open(registry)
    _must_be_published(opened, voice)
    events = opened.retire(voice, _mover(reason))
    for event in events:
        _tell(voice, event)
    if not events:
        _tell(voice, None)


@commands.command("verify")
def verify(
    voice: Annotated[str | None, typer.Argument(help="Only this voice.", metavar="VOICE", show_default=False)] = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read every file of every release and compare it with what was published.

    voxline registry verify
    """
    from pipeline.errors import SettingsError

    opened = _open(registry)
    _must_be_published(opened, voice)
    voices = [voice] if voice else opened.voices()
    damages = [line for name in voices for line in opened.verify(name)]
    if as_json:
        print_json({"registry": opened.url, "voices": len(voices), "damages": damages})
    else:
        tell(f"voices: {len(voices)}, damages: {len(damages)}")
    if damages:
        raise SettingsError("\n".join(damages), hint="publish the version again, or roll back to a sound one")


@commands.command("gc")
def collect(
    unused_days: Annotated[int, typer.Option("--unused-days", min=1, help="How long a release must be unused.")] = 90,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove releases that no channel and no recent move names.

    voxline registry gc --dry-run
    """
    from pipeline.cli.common import require_trusted

    if not dry_run:
        require_trusted("removing releases", "do it from the protected branch, or try it with --dry-run")
    collected = _open(registry).collect(unused_days=unused_days, dry_run=dry_run)
    if as_json:
        rows = [{"voice": one.voice, "version": one.version, "size_bytes": one.size_bytes} for one in collected]
        print_json({"dry_run": dry_run, "collected": rows})
        return
    for one in collected:
        tell(f"{one.voice} {one.version} of {one.created_at:%Y-%m-%d}, {one.size_bytes / 1e6:.1f} MB")
    total_mb = sum(one.size_bytes for one in collected) / 1e6
    tell(f"{len(collected)} releases, {total_mb:.1f} MB {'would be removed' if dry_run else 'removed'}")


STYLES = {"publish": "green", "republish": "cyan", "promote": "bold green", "rollback": "yellow", "retire": "red"}


def _open(url: str | None) -> Registry:
    from pipeline.cli.common import repository_root, resolve_settings
    from pipeline.io.registry import open_registry

    settings = resolve_settings({"voxline.registry": url}).settings
    return open_registry(settings.voxline.registry, root=repository_root())


def _must_be_published(opened: Registry, voice: str | None) -> None:
    from pipeline.errors import UsageError

    if voice is not None and voice not in opened.voices():
        raise UsageError(f"{voice}: was never published in {opened.url}", hint="voxline registry list")


def _mover(reason: str) -> Mover:
    import os
    from pathlib import Path

    from pipeline.cli.common import require_trusted
    from pipeline.errors import UsageError
    from pipeline.io.provenance import find_mover
    from pipeline.plain import is_unfit

    require_trusted("moving a channel", "do it from the protected branch")
    unfit = [f"U+{ord(letter):04X}" for letter in reason if is_unfit(letter)]
    if unfit:
        raise UsageError(f"--reason: control character {unfit[0]} is not kept", hint="write it in one plain line")
    return find_mover(Path.cwd(), os.environ, reason)


def _tell(voice: str, event: Event | None) -> None:
    if event is None:
        tell(f"{voice}: nothing to move")
    else:
        tell(f"{voice}: {event.channel} {event.previous or 'nothing'} -> {event.version or 'nothing'} by {event.actor}")


def _plain(pointer: ChannelPointer | None) -> str | None:
    return pointer.version if pointer else None


def _shown(pointer: ChannelPointer | None) -> str:
    if pointer is None:
        return "-"
    return pointer.version or "retired"


def _consent_line(consent: Any) -> str:
    until = f", until {consent.expires_on}" if consent.expires_on else ""
    scope = f", for {', '.join(consent.scope)}" if consent.scope else ""
    return f"{consent.speaker}, {consent.granted_on}{until}{scope}"
