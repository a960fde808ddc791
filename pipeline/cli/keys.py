"""voxline keys"""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.common import JsonOption
from pipeline.cli.terminal import print_json, tell, write_document

commands = typer.Typer(no_args_is_help=True, help="Keys that releases are signed with.")


def register(app: typer.Typer) -> None:
    app.add_typer(commands, name="keys", rich_help_panel="Using voices")


@commands.command("new")
def new(
    is_printed: Annotated[
        bool, typer.Option("--print", help="Print the private key, for a CI variable, and store it nowhere.")
    ] = False,
) -> None:
    """Make a key of your own to sign releases with; only you can read its file.

    For a pipeline, keep the private key in a protected and masked variable VOXLINE_SIGNING_KEY instead.

        voxline keys new
        voxline keys new --print
    """
    import os

    from pipeline.cli.common import signer_here
    from pipeline.io.signing import Signer, key_id, key_path, new_secret, write_key

    secret, path = new_secret(), key_path(os.environ)
    if is_printed:
        public = Signer(secret, "the new key").public_key
        write_document(secret + "\n")
    else:
        write_key(path, secret)
        public = Signer(secret, str(path)).public_key
        used = signer_here()
        tell(f"private key: {path}", stderr=True)
        if used is not None and used.public_key != public:
            tell(f"{used.source} is used before it", style="yellow", stderr=True)
    tell(f"public key {key_id(public)}: {public}", stderr=True)
    tell(f"  next: voxline keys trust {public}", stderr=True)


@commands.command("trust")
def trust(
    key: Annotated[
        str | None, typer.Argument(help="A public key, ed25519:...", metavar="KEY", show_default="your own")
    ] = None,
) -> None:
    """Write a public key to registry.trusted_keys in pipeline.toml. From the first one on, unsigned is refused.

    voxline keys trust ed25519:AAAA...
    """
    from pipeline.cli.common import repository_root, signer_here
    from pipeline.config import PIPELINE_FILE
    from pipeline.errors import UsageError
    from pipeline.io.pipeline_file import add_to_list
    from pipeline.io.signing import key_id

    own = signer_here()
    if key is None and own is None:
        raise UsageError("no key was named, and you have none", hint="voxline keys new")
    public = key or (own.public_key if own else "")
    path = repository_root() / PIPELINE_FILE
    if add_to_list(path, "registry", "trusted_keys", public):
        tell(f"{path}: trusts key {key_id(public)} now; commit it")
        tell("  next: voxline registry verify; voxline registry sign VOICE for what was published before")
    else:
        tell(f"{path}: trusts key {key_id(public)} already")


@commands.command("list")
def list_keys(as_json: JsonOption = False) -> None:
    """List the keys that are trusted here, and your own.

    voxline keys list
    """
    from pipeline.cli.common import resolve_settings, signer_here
    from pipeline.io.signing import key_id

    trusted, own = resolve_settings().settings.registry.trusted_keys, signer_here()
    public = own.public_key if own else None
    listed = [*trusted, *([public] if public and public not in trusted else [])]
    if as_json:
        rows = [{"id": key_id(key), "key": key, "trusted": key in trusted, "own": key == public} for key in listed]
        print_json({"keys": rows})
        return
    if not listed:
        tell("no key is trusted here, and you have none; voxline keys new makes one")
        return
    for key in listed:  # lines, not a table: a key is there to be copied
        words = ["trusted" if key in trusted else "not trusted"]
        words += [f"yours, {own.source}"] if own and key == public else []
        tell(f"{key_id(key)}  {key}  {'; '.join(words)}")
