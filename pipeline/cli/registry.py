"""voxline registry"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.common import JsonOption, NameArgument, RegistryOption, check_voice_name, complete_published
from pipeline.cli.terminal import print_json, print_table, table, tell

if TYPE_CHECKING:
    from pipeline.io.registry.events import Mover
    from pipeline.io.registry.registry import Registry
    from pipeline.records.release import ChannelPointer, Event, Release

commands = typer.Typer(no_args_is_help=True, help="Look into the registry and move its channels.")

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

    rows = table("voice")
    for column in ("production", "candidate"):
        rows.add_column(column, min_width=12, no_wrap=True)  # a version is told whole, or it cannot be copied
    for column in ("releases", "moved", "by"):
        rows.add_column(column)
    for voice, state in states.items():
        last = state.production or state.candidate
        moved = (f"{last.event.at:%Y-%m-%d %H:%M}", last.event.actor) if last else ("", "")
        rows.add_row(voice, _shown(state.production), _shown(state.candidate), str(len(state.versions)), *moved)
    print_table(rows)


@commands.command("show")
def show(
    voice: NameArgument,
    version: VersionArgument = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a release: where it comes from, its measurements, its files. Without a version, production's.

    voxline registry show sample
    """

    opened = _open(registry)
    release = opened.resolve(voice, version or "production")
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
        "signed": _signature_line(release, opened),
        **{name: _with_unit(name, value) for name, value in release.metrics.items()},
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
    for event in events:
        _tell_event(event)


def _tell_event(event: Event) -> None:
    """Two or three short lines, which a narrow terminal shows whole."""
    from rich.text import Text

    action = (f"{event.action:<9}", STYLES[event.action])
    tell(Text.assemble(f"{event.at:%Y-%m-%d %H:%M}  ", action, f"  {event.channel}"))
    commit = f", commit {event.git_revision[:8]}" if event.git_revision else ""
    tell(f"  {event.previous or 'nothing'} -> {event.version or 'nothing'}{commit}")
    tell(f"  by {event.actor}{f': {event.reason}' if event.reason else ''}")


@commands.command("promote")
def promote(
    voice: NameArgument,
    version: VersionArgument = None,
    registry: RegistryOption = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Put the candidate, or a version, on production.

    voxline registry promote sample --reason "listened to it"
    """
    event = _open(registry).promote(voice, version, _mover(reason))
    _tell_moves(voice, [event] if event else [], as_json=as_json)


@commands.command("rollback")
def rollback(
    voice: NameArgument,
    to: Annotated[
        str | None, typer.Option("--to", help="Version of 12 hex digits.", metavar="VERSION", show_default=False)
    ] = None,
    registry: RegistryOption = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Put production back to the version before that was not rolled back itself, or to a named one.

    Doing it twice changes nothing: what was rolled back stays so, for a plan too, until the folder changes or somebody
    promotes it.

        voxline registry rollback sample --reason "sounds tired"
        voxline registry rollback sample --to 7b3b3e7499bc
    """
    opened = _open(registry)
    event = opened.rollback(voice, to, _mover(reason))
    if event is None and not as_json:
        tell(_already_there(opened, voice))
    else:
        _tell_moves(voice, [event] if event else [], as_json=as_json)


@commands.command("retire")
def retire(
    voice: NameArgument,
    registry: RegistryOption = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take a voice off all channels; its releases stay, so it can be brought back.

    voxline registry retire sample --reason "consent withdrawn"
    """
    opened = _open(registry)
    _must_be_published(opened, voice)
    _tell_moves(voice, opened.retire(voice, _mover(reason)), as_json=as_json)


@commands.command("verify")
def verify(
    voice: Annotated[
        str | None,
        typer.Argument(
            help="Only this voice.",
            metavar="VOICE",
            show_default=False,
            callback=check_voice_name,
            autocompletion=complete_published,
        ),
    ] = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read every file of every release and compare it with what was published: manifests, signatures, moves, files.

    voxline registry verify
    """
    from pipeline.io.registry.trust import NotTrusted

    opened = _open(registry)
    _must_be_published(opened, voice)
    voices = [voice] if voice else opened.voices()
    findings = [finding for name in voices for finding in opened.examine(name)]
    findings += [] if voice else opened.examine_refusals()
    damages = [finding.message for finding in findings if finding.is_damage]
    remarks = [finding.message for finding in findings if not finding.is_damage]
    if as_json:
        print_json({"registry": opened.url, "voices": len(voices), "damages": damages, "remarks": remarks})
    else:
        tell(f"voices: {len(voices)}, damages: {len(damages)}, {_believed(opened)}")
        for remark in remarks:
            tell(f"  {remark}", style="yellow")
    if damages:
        hint = "roll back to a sound version; a damaged release's folder can be removed and the version published again"
        raise NotTrusted("\n".join(damages), hint=hint)


@commands.command("sign")
def sign(
    voice: NameArgument,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Sign although verify finds damage, which becomes a remark.")
    ] = False,
    registry: RegistryOption = None,
    reason: ReasonOption = "",
) -> None:
    """Stand for all that a voice has, with your key: what was published before there was one, or with an older one.

    Signs the manifests, and adds a move to each channel that says that somebody has looked at all before it.

        voxline registry sign sample --reason "first key"
    """
    from pipeline.io.registry.trust import NotTrusted

    opened = _open(registry)
    _must_be_published(opened, voice)
    damages = opened.without_keys().verify(voice)
    if damages and not anyway:
        hint = f"look at it; if it may stay: voxline registry sign {voice} --anyway --reason ..."
        raise NotTrusted("\n".join(damages), hint=hint)
    signed = opened.sign(voice, _mover(reason))
    tell(f"{voice}: signed {', '.join(signed)}" if signed else f"{voice}: everything is signed already")


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


@commands.command("reindex")
def reindex(registry: RegistryOption = None) -> None:
    """Make the index anew that lists and plans of a registry on another machine read. A folder needs none.

    The index is never believed over the releases: without it, or with an old one, a list asks for more voices one by
    one. Publishing keeps it; after many rollbacks and retirements it is worth making it anew.

        voxline registry reindex
    """
    from pipeline.cli.common import require_trusted

    require_trusted("writing to the registry", "do it from the protected branch")
    opened = _open(registry)
    count = opened.reindex()
    tell(f"{opened.url}: a folder needs no index" if count is None else f"{opened.url}: {count} voices in the index")


STYLES = {
    "publish": "green",
    "republish": "cyan",
    "promote": "bold green",
    "rollback": "yellow",
    "retire": "red",
    "sign": "dim",
}


def _open(url: str | None) -> Registry:
    from pipeline.cli.common import registry_of, resolve_settings

    return registry_of(resolve_settings({"voxline.registry": url}).settings, flag=url)


def _must_be_published(opened: Registry, voice: str | None) -> None:
    from pipeline.errors import UsageError

    if voice is None or voice in opened.voices():
        return
    if opened.backend.is_local or not opened.versions(voice):  # the Hub's lists come later than what they list
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


def _already_there(opened: Registry, voice: str) -> str:
    """Where production is and since when, and how to go further back."""
    from pipeline.errors import UsageError

    last = [event for event in opened.history(voice) if event.channel == "production" and event.action != "sign"][-1]
    told = f"{voice}: production is on {last.version} already"
    if last.action != "rollback":
        return told
    told += f", rolled back from {last.previous or 'nothing'} on {last.at:%Y-%m-%d %H:%M} by {last.actor}"
    try:
        before = opened.version_before(voice, last.version)
    except UsageError:
        return told
    return f"{told}; to go further back: voxline registry rollback {voice} --to {before}"


def _believed(opened: Registry) -> str:
    keys = len(opened.trust.keys)
    return f"trusted keys: {keys}" if keys else "no trusted keys: signatures are not asked for"


def _tell_moves(voice: str, events: list[Event], *, as_json: bool) -> None:
    if as_json:
        print_json({"voice": voice, "events": [event.model_dump(mode="json") for event in events]})
        return
    for event in events:
        _tell(voice, event)
    if not events:
        _tell(voice, None)


def _plain(pointer: ChannelPointer | None) -> str | None:
    return pointer.version if pointer else None


def _shown(pointer: ChannelPointer | None) -> str:
    if pointer is None:
        return "-"
    return pointer.version or "retired"


def _signature_line(release: Release, opened: Registry) -> str:
    from pipeline.io.registry.chain import signature_problem
    from pipeline.io.signing import key_id

    if problem := signature_problem(release, opened.trust.keys):
        return f"no: release.json {problem}"
    if release.signature is None:
        return "no"
    return f"by key {key_id(release.signature.key)}{', trusted' if opened.trust.keys else ''}"


def _with_unit(name: str, value: float | None) -> str:
    from pipeline.records.metrics import unit_of

    return "not measured" if value is None else f"{value:.3f} {unit_of(name)}".rstrip()


def _consent_line(consent: Any) -> str:
    until = f", until {consent.expires_on}" if consent.expires_on else ""
    scope = f", for {', '.join(consent.scope)}" if consent.scope else ""
    return f"{consent.speaker}, {consent.granted_on}{until}{scope}"
