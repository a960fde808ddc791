"""voxline new"""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.manifest import ManifestOptions, with_manifest_options
from pipeline.cli.terminal import tell


def register(app: typer.Typer) -> None:
    app.command("new", rich_help_panel="Voices")(new)


@with_manifest_options
def new(
    name: Annotated[
        str, typer.Argument(help="Name of the new folder in voices/: a-z, 0-9 and '-'.", show_default=False)
    ],
    *,
    language: Annotated[str, typer.Option("--language", help="zh en ja ko yue.")] = "en",
    options: ManifestOptions,
) -> None:
    """Write a voice folder from the template.

    voxline new ana --language en --license CC-BY-4.0 --consent-speaker "Ana Perez" --consent-date 2026-01-09
    """
    from pipeline.cli.common import repository_root, resolve_settings
    from pipeline.cli.manifest import manifest_words, read_language_option, require_name, tell_next_step
    from pipeline.io.voice_writer import write_voice

    require_name(name, "the name")
    words = manifest_words(name, read_language_option(language), options)
    folder = write_voice(repository_root() / resolve_settings().settings.voxline.voices, name, words, [])
    tell(f"{folder}: put recordings into wavs/ and a line for each into metadata.csv")
    tell_next_step(name, folder, has_consent=words.consent is not None)
