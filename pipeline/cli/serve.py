"""voxline serve"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.common import JsonOption, RegistryOption
from pipeline.cli.terminal import print_json, tell, write_document

if TYPE_CHECKING:
    from pipeline.records.job import Machine
    from pipeline.records.serving import WorkerSettings
    from pipeline.records.settings import Settings

COPIES = "served"  # below the cache


commands = typer.Typer(invoke_without_command=True)
keys = typer.Typer(no_args_is_help=True, help="API keys of the server.")
commands.add_typer(keys, name="keys")


def register(app: typer.Typer) -> None:
    app.add_typer(commands, name="serve", rich_help_panel="Using voices")


@commands.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1, this machine only")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.", show_default="8080")] = None,
    registry: RegistryOption = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.", show_default=False)] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="TLS certificate (PEM), with --certificate-key.", show_default=False)
    ] = None,
    certificate_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).", show_default=False)] = None,
) -> None:
    """Speak with published voices over HTTP, as OpenAI's audio API does. Follows the registry.

    voxline serve
    curl localhost:8080/v1/audio/speech --json '{"voice": "sample", "input": "Hello."}' -o hello.mp3
    """
    if context.invoked_subcommand is not None:
        return
    import os

    from pipeline.cli.common import prepare_machine, registry_of, require_trusted, resolve_settings
    from pipeline.errors import UsageError
    from pipeline.io.api_keys import keys_path
    from pipeline.line.run_stage import voxline_version
    from pipeline.serve.running import Serving, Tls, run

    require_trusted("voxline serve", "serve what was published, from the protected branch")
    if (certificate is None) != (certificate_key is None):
        raise UsageError("--certificate and --certificate-key belong together", hint="give both")
    flags = {"voxline.registry": registry, "voxline.device": device, "serve.host": host, "serve.port": port}
    settings = resolve_settings(flags).settings
    machine = prepare_machine(settings.voxline)
    scheme = "http" if certificate is None else "https"

    def listening(on: int) -> None:
        tell(f"voxline serve: {scheme}://{settings.serve.host}:{on}", stderr=True)

    serving = Serving(
        registry_of(settings, flag=registry),
        settings.serve,
        worker_settings(settings, machine),
        copies=machine.cache / COPIES,
        keys=keys_path(settings.serve.keys, os.environ),
        version=voxline_version(),
        tls=Tls(certificate, certificate_key) if certificate and certificate_key else None,
    )
    run(serving, listening=listening, audit=_audit)


def _audit(line: str) -> None:
    """A line of standard output, at once: whoever reads the log sees a speech when it is over."""
    import sys
    from contextlib import suppress

    with suppress(BrokenPipeError):  # nobody reads any more; what is being said is said
        write_document(line + "\n")
        sys.stdout.flush()


def worker_settings(settings: Settings, machine: Machine) -> WorkerSettings:
    """How the process that computes does it: one core draws tokens, the others make sound."""
    import os

    from pipeline.records.serving import WorkerSettings
    from pipeline.records.settings import switched_off

    cores = len(os.sched_getaffinity(0))
    return WorkerSettings(
        device=machine.device,
        switched_off=switched_off(settings.voxline.processor),
        threads=machine.threads or 1,
        renderers=max(1, cores - 1),
        cache=str(machine.cache.absolute()),
        bases=str(machine.bases.absolute()),
        replaced_bases=machine.replaced_bases,
        rows=settings.serve.rows,
        adapter_bytes=settings.serve.adapter_mb << 20,
    )


@keys.command("add")
def add(
    voices: Annotated[
        str, typer.Option(help="Voices it may speak with, with commas between them.", show_default="all")
    ] = "",
    uses: Annotated[
        list[str] | None,
        typer.Option(
            "--for", help="A purpose of its holder, as a consent's scope calls it, or `any`; may be repeated."
        ),
    ] = None,
    per_minute: Annotated[int | None, typer.Option(min=1, help="Most requests a minute.", show_default="any")] = None,
    characters_per_day: Annotated[
        int | None, typer.Option(min=1, help="Most characters a day (UTC).", show_default="any")
    ] = None,
    note: Annotated[str | None, typer.Option(help="Whose it is, for you to remember.", show_default=False)] = None,
) -> None:
    """Make an API key. It is printed once; only a digest is kept.

    A voice whose consent names what it may be used for needs a key for one of these uses.

        voxline serve keys add --voices ana,ben --per-minute 60 --for demonstration
    """
    from pydantic import ValidationError

    from pipeline.config import describe
    from pipeline.errors import UsageError
    from pipeline.io.api_keys import add_key
    from pipeline.records.api_key import ApiKey

    told = {
        "voices": tuple(name.strip() for name in voices.split(",") if name.strip()),
        "uses": tuple(uses or ()),
        "per_minute": per_minute,
        "characters_per_day": characters_per_day,
        "note": note,
    }
    try:
        key, token = add_key(
            _keys_path(), lambda identity, digest, now: ApiKey(id=identity, sha256=digest, created_at=now, **told)
        )
    except ValidationError as error:
        raise UsageError(describe(error, "voxline serve keys add"), hint="voxline serve keys add --help") from None
    tell(f"key {key.id}; a server that runs takes it within two seconds", stderr=True)
    write_document(token + "\n")


@keys.command("list")
def list_keys(as_json: JsonOption = False) -> None:
    """List the API keys, without what would let anybody in.

    voxline serve keys list
    """
    from pipeline.io.api_keys import read_keys

    found = read_keys(_keys_path()).keys
    if as_json:
        print_json([key.model_dump(mode="json", exclude={"sha256"}) for key in found])
        return
    for key in found:
        limits = [f"{key.per_minute} a minute"] if key.per_minute else []
        limits += [f"{key.characters_per_day} characters a day"] if key.characters_per_day else []
        told = [", ".join(key.voices) or "all voices", f"for {', '.join(key.uses) or 'nothing named'}", *limits]
        tell("; ".join([f"{key.id} {key.created_at:%Y-%m-%d}", *told, *([key.note] if key.note else [])]))


@keys.command("remove")
def remove(
    identity: Annotated[str, typer.Argument(help="The key's id, as `keys list` shows it.", metavar="ID")],
) -> None:
    """Take an API key away; a server that runs refuses it within two seconds.

    voxline serve keys remove 1a2b3c4d
    """
    from pipeline.io.api_keys import remove_key

    remove_key(_keys_path(), identity)
    tell(f"removed {identity}", stderr=True)


def _keys_path() -> Path:
    import os

    from pipeline.cli.common import resolve_settings
    from pipeline.io.api_keys import keys_path

    return keys_path(resolve_settings().settings.serve.keys, os.environ)
