"""voxline import"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.common import JsonOption, check_voice_name, typed
from pipeline.cli.manifest import ManifestOptions, with_manifest_options

if TYPE_CHECKING:
    from pipeline.io.importing import FoundClip


def register(app: typer.Typer) -> None:
    app.command("import", rich_help_panel="Voices")(import_recordings)


@with_manifest_options
def import_recordings(
    source: Annotated[
        Path, typer.Argument(help="Folder of recordings, or a GPT-SoVITS .list file.", show_default=False)
    ],
    *,
    name: Annotated[
        str,
        typer.Option(
            "--name", help="Name of the new folder in voices/.", show_default=False, callback=check_voice_name
        ),
    ],
    language: Annotated[
        str | None,
        typer.Option("--language", help="zh en ja ko yue; default where the list names none.", show_default=False),
    ] = None,
    one_speaker: Annotated[
        bool, typer.Option("--one-speaker", help="Several subfolders, or names in a list, are all the same person.")
    ] = False,
    encoding: Annotated[str, typer.Option("--encoding", help="Of metadata.csv, the list or transcripts.")] = "utf-8",
    as_json: JsonOption = False,
    options: ManifestOptions,
) -> None:
    """Write a voice folder from recordings in another layout.

    Takes LJSpeech (id|text|normalised), file|language|text with a header, GPT-SoVITS lists
    (path|speaker|language|text), AudioFolder (file_name,text) and plain folders with .txt or .lab files
    beside the recordings.

        voxline import LJSpeech-1.1 --name lj --language en --license CC0-1.0 \\
            --consent-speaker "Linda Johnson" --consent-date 2017-07-05
    """
    from pipeline.cli.common import repository_root, resolve_settings
    from pipeline.cli.manifest import manifest_words, tell_made
    from pipeline.io.importing import UTF_8, find_clips
    from pipeline.io.voice_writer import write_voice

    chosen = UTF_8 if encoding.lower() == "utf-8" else encoding
    clips, layout = find_clips(source, language=language, encoding=chosen, one_speaker=one_speaker)
    words = manifest_words(name, _language(language, clips), options)
    voices = repository_root() / resolve_settings().settings.voxline.voices
    with typed(name):
        folder = write_voice(voices, name, words, clips)
    silent = sum(not clip.text for clip in clips)
    note = f", {silent} without a transcript: write what is said into metadata.csv" if silent else ""
    tell_made(
        name,
        folder,
        f"{len(clips)} {'recording' if len(clips) == 1 else 'recordings'} from a {layout}{note}",
        has_consent=words.consent is not None,
        as_json=as_json,
        layout=layout,
        recordings=len(clips),
        without_transcript=silent,
    )


def _language(given: str | None, clips: list[FoundClip]) -> str:
    from collections import Counter

    from pipeline.cli.manifest import read_language_option
    from pipeline.errors import UsageError

    if given:
        return read_language_option(given)
    named = Counter(clip.language for clip in clips if clip.language)
    if not named or sum(named.values()) < len(clips):
        raise UsageError("the recordings do not say their language", hint="add --language zh, en, ja, ko or yue")
    return named.most_common(1)[0][0]
