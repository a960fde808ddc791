"""The options that fill in a voice.yaml, shared by `voxline new` and `voxline import`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.terminal import print_json, tell

if TYPE_CHECKING:
    from datetime import date

    from pipeline.io.voice_writer import ManifestWords


@dataclass(frozen=True, kw_only=True)
class ManifestOptions:
    """What a voice.yaml says besides name and language; each field is an option of the command line."""

    license: Annotated[str, typer.Option("--license", help="Licence of the recordings (SPDX identifier).")] = (
        "all-rights-reserved"
    )
    consent_speaker: Annotated[
        str | None, typer.Option("--consent-speaker", help="Who speaks and has agreed.", show_default=False)
    ] = None
    consent_date: Annotated[
        str | None, typer.Option("--consent-date", help="Day of the consent, YYYY-MM-DD.", show_default=False)
    ] = None
    consent_scope: Annotated[
        list[str] | None,
        typer.Option("--consent-scope", help="What it may be used for; may be repeated.", show_default=False),
    ] = None
    consent_expires: Annotated[
        str | None,
        typer.Option("--consent-expires", help="First day without consent, YYYY-MM-DD.", show_default=False),
    ] = None
    display_name: Annotated[str | None, typer.Option("--display-name", help="Name for people.", show_default=False)] = (
        None
    )
    copyright_notice: Annotated[
        str, typer.Option("--copyright-notice", help="Printed on the card.", show_default=False)
    ] = ""
    base: Annotated[str | None, typer.Option("--base", help="Base model of this voice.", show_default=False)] = None
    review: Annotated[bool, typer.Option("--review", help="A person has to promote each candidate.")] = False


def with_manifest_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all of these options; it receives them as one argument, ``options``."""
    shared = inspect.signature(ManifestOptions, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True).parameters
    parameters = [one for one in own.values() if one.name != "options"]
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in [*parameters, *shared.values()]]

    @wraps(command)
    def joined(**arguments: Any) -> None:
        options = ManifestOptions(**{name: arguments.pop(name) for name in shared})
        command(**arguments, options=options)

    joined.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    joined.__annotations__ = {one.name: one.annotation for one in parameters}
    return joined


def manifest_words(name: str, language: str, options: ManifestOptions) -> ManifestWords:
    """The manifest that the options describe. Raises UsageError for half a consent or a date that is none."""
    from pipeline.errors import UsageError
    from pipeline.io.voice_writer import ConsentWords, ManifestWords

    speaker, granted_on, expires_on = options.consent_speaker, options.consent_date, options.consent_expires
    consent = None
    if speaker or granted_on:
        if not (speaker and granted_on):
            missing = "--consent-date" if speaker else "--consent-speaker"
            raise UsageError(f"{missing} is missing", hint="consent needs both the speaker and the day")
        expires = _read_date(expires_on, "--consent-expires") if expires_on else None
        consent = ConsentWords(speaker, _read_date(granted_on, "--consent-date"), options.consent_scope or (), expires)
    elif options.consent_scope or expires_on:
        raise UsageError("--consent-speaker and --consent-date are missing", hint="consent needs both")
    return ManifestWords(
        display_name=options.display_name or name,
        language=language,
        license=options.license,
        base=options.base,
        copyright_notice=options.copyright_notice,
        review="required" if options.review else "none",
        consent=consent,
    )


def read_language_option(text: str) -> str:
    """The value of --language. Raises UsageError for one that is not known."""
    from pipeline.errors import UsageError
    from pipeline.io.importing import read_language
    from pipeline.text.languages import LANGUAGES
    from pipeline.text.speakable import name_languages

    try:
        return read_language(text)
    except ValueError as error:
        raise UsageError(f"--language: {error}", hint=f"one of {name_languages(LANGUAGES)}") from None


def tell_made(name: str, folder: Path, told: str, *, has_consent: bool, as_json: bool, **more: Any) -> None:
    """What was written, and what to do now. ``more``: what else a script may want to know."""
    step = f"voxline run {name}"
    if not has_consent:
        step = f"fill in consent in {folder / 'voice.yaml'}; without it the voice is refused (exit 13)"
    if as_json:
        print_json({"voice": name, "folder": str(folder), **more, "has_consent": has_consent, "next": step})
    else:
        tell(f"{folder}: {told}")
        tell(f"next: {step}")


def _read_date(text: str, option: str) -> date:
    from datetime import date

    from pipeline.errors import UsageError

    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option}: {text!r} is not a date", hint="write it as YYYY-MM-DD") from None
