"""voxline new"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from datetime import date

    from pipeline.io.voice_writer import ManifestWords

LicenseOption = Annotated[str, typer.Option("--license", help="Licence of the recordings (SPDX identifier).")]
ConsentSpeakerOption = Annotated[
    str | None, typer.Option("--consent-speaker", help="Who speaks and has agreed.", show_default=False)
]
ConsentDateOption = Annotated[
    str | None, typer.Option("--consent-date", help="Day of the consent, YYYY-MM-DD.", show_default=False)
]
ConsentScopeOption = Annotated[
    list[str] | None, typer.Option("--consent-scope", help="What for; can be given again.", show_default=False)
]
ConsentExpiresOption = Annotated[
    str | None, typer.Option("--consent-expires", help="First day without consent, YYYY-MM-DD.", show_default=False)
]
DisplayNameOption = Annotated[str | None, typer.Option("--display-name", help="Name for people.", show_default=False)]
CopyrightOption = Annotated[str, typer.Option("--copyright-notice", help="Printed on the card.", show_default=False)]
BaseNameOption = Annotated[str | None, typer.Option("--base", help="Base model of this voice.", show_default=False)]
ReviewOption = Annotated[bool, typer.Option("--review", help="A person has to promote each candidate.")]


def register(app: typer.Typer) -> None:
    app.command("new", rich_help_panel="Voices")(new)


def new(
    name: Annotated[
        str, typer.Argument(help="Name of the new folder in voices/: a-z, 0-9 and '-'.", show_default=False)
    ],
    language: Annotated[str, typer.Option("--language", help="zh en ja ko yue.")] = "en",
    license_: LicenseOption = "all-rights-reserved",
    consent_speaker: ConsentSpeakerOption = None,
    consent_date: ConsentDateOption = None,
    consent_scope: ConsentScopeOption = None,
    consent_expires: ConsentExpiresOption = None,
    display_name: DisplayNameOption = None,
    copyright_notice: CopyrightOption = "",
    base: BaseNameOption = None,
    review: ReviewOption = False,
) -> None:
    """Write a voice folder from the template.

    voxline new ana --language en --license CC-BY-4.0 --consent-speaker "Ana Perez" --consent-date 2026-01-09
    """
    from pipeline.cli.common import repository_root, resolve_settings
    from pipeline.errors import UsageError
    from pipeline.io.importing import read_language
    from pipeline.io.voice_writer import write_voice

    try:
        known_language = read_language(language)
    except ValueError as error:
        raise UsageError(f"--language: {error}", hint="--language en") from None
    words = manifest_words(
        name=name,
        language=known_language,
        license_=license_,
        speaker=consent_speaker,
        granted_on=consent_date,
        scope=consent_scope,
        expires_on=consent_expires,
        display_name=display_name,
        copyright_notice=copyright_notice,
        base=base,
        review=review,
    )
    folder = write_voice(repository_root() / resolve_settings().settings.voxline.voices, name, words, [])
    typer.echo(f"{folder}: put recordings into wavs/ and a line for each into metadata.csv")
    tell_next_step(name, folder, has_consent=words.consent is not None)


def manifest_words(
    *,
    name: str,
    language: str,
    license_: str,
    speaker: str | None,
    granted_on: str | None,
    scope: list[str] | None,
    expires_on: str | None,
    display_name: str | None,
    copyright_notice: str,
    base: str | None,
    review: bool,
) -> ManifestWords:
    """The manifest that the options describe. Raises UsageError for half a consent or a date that is none."""
    from pipeline.errors import UsageError
    from pipeline.io.voice_writer import ConsentWords, ManifestWords

    consent = None
    if speaker or granted_on:
        if not (speaker and granted_on):
            missing = "--consent-date" if speaker else "--consent-speaker"
            raise UsageError(f"{missing} is missing", hint="consent needs both the speaker and the day")
        expires = _read_date(expires_on, "--consent-expires") if expires_on else None
        consent = ConsentWords(speaker, _read_date(granted_on, "--consent-date"), scope or (), expires)
    elif scope or expires_on:
        raise UsageError("--consent-speaker and --consent-date are missing", hint="consent needs both")
    return ManifestWords(
        display_name=display_name or name,
        language=language,
        license=license_,
        base=base,
        copyright_notice=copyright_notice,
        review="required" if review else "none",
        consent=consent,
    )


def tell_next_step(name: str, folder: Path, *, has_consent: bool) -> None:
    """What to type now."""
    if has_consent:
        typer.echo(f"next: voxline run {name}")
    else:
        typer.echo(f"next: fill in consent in {folder / 'voice.yaml'}; without it the voice is refused (exit 13)")


def _read_date(text: str, option: str) -> date:
    from datetime import date

    from pipeline.errors import UsageError

    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option}: {text!r} is no day", hint="write it as YYYY-MM-DD") from None
