"""voxline new"""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.common import JsonOption, check_voice_name, typed
from pipeline.cli.manifest import ManifestOptions, with_manifest_options


def register(app: typer.Typer) -> None:
    app.command("new", rich_help_panel="Voices")(new)


@with_manifest_options
def new(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of the new folder in voices/: a-z, 0-9 and '-'.",
            show_default=False,
            callback=check_voice_name,
        ),
    ],
    *,
    language: Annotated[str, typer.Option("--language", help="zh en ja ko yue.")] = "en",
    as_json: JsonOption = False,
    options: ManifestOptions,
) -> None:
    """Write a voice folder from the template.

    voxline new ana --language en --license CC-BY-4.0 --consent-speaker "Ana Perez" --consent-date 2026-01-09
    """
    from pipeline.cli.common import repository_root, resolve_settings
    from pipeline.cli.manifest import manifest_words, read_language_option, tell_made
    from pipeline.io.voice_writer import write_voice

    words = manifest_words(name, read_language_option(language), options)
    voices = repository_root() / resolve_settings().settings.voxline.voices
    with typed(name):
        folder = write_voice(voices, name, words, [])
    told = "put recordings into wavs/ and a line for each into metadata.csv"
    tell_made(name, folder, told, has_consent=words.consent is not None, as_json=as_json)
