"""voxline transcribe"""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.common import VoiceArgument
from pipeline.cli.terminal import tell


def register(app: typer.Typer) -> None:
    app.command("transcribe", rich_help_panel="Voices")(transcribe)


def transcribe(
    voice: VoiceArgument,
    language: Annotated[
        str | None,
        typer.Option(help="Language of a folder without voice.yaml: zh, en, ja, ko.", show_default=False),
    ] = None,
) -> None:
    """Write what recordings without a text seem to say into metadata.csv, for a person to review.

    Each such line says `no` in the column `reviewed`, and nothing is trained on it. Listen, correct the text, and write
    `yes`. Lines that have a text keep it. Needs `voxline artifacts pull whisper-base`.

        voxline transcribe ana
        voxline transcribe recordings/ --language zh
    """
    from pipeline.cli.common import ConsoleReporter, resolve_settings
    from pipeline.cli.voices import find_voice_folder
    from pipeline.io.audio import AudioLimits
    from pipeline.io.voices import MANIFEST_FILE, METADATA_FILE, load_voice
    from pipeline.jobs.transcribe import transcribe as write_heard

    folder = find_voice_folder(voice)
    left_out = frozenset[str]()
    if (folder / MANIFEST_FILE).exists():
        manifest = load_voice(folder).manifest
        language, left_out = manifest.language, frozenset(filter(None, [manifest.consent.statement]))
    settings = resolve_settings().settings
    limits = AudioLimits(settings.validate_.file_max_bytes, settings.validate_.file_max_s)
    written = write_heard(folder, language, left_out, limits, settings.voxline.cache_folder, ConsoleReporter())
    if not written:
        tell(f"{folder / METADATA_FILE}: every recording has its line")
        return
    tell(f"{folder / METADATA_FILE}: {written} lines to review: correct each text and write yes into 'reviewed'")
