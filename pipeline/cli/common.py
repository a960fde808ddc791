"""What the commands share: common options, the resolved settings, the console, the progress reporter."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sized
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.config import Resolved
    from pipeline.io.protected import Governing

Item = TypeVar("Item")

# Whether this command line says --untrusted. One run of a command is one context, see ``run_command``.
_says_untrusted: ContextVar[bool] = ContextVar("_says_untrusted", default=False)

_governing: ContextVar[Governing | None] = ContextVar("_governing", default=None)


def _note_untrusted(wanted: bool) -> bool:
    if wanted:
        _says_untrusted.set(True)
    return wanted


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of text for people.")]


def complete_voice(start: str) -> list[str]:
    """Names of voices for the shell; nothing at all where the settings cannot be read."""
    from pipeline.errors import PipelineError

    try:
        folder = repository_root() / resolve_settings().settings.voxline.voices
    except PipelineError:
        return []
    return sorted(path.parent.name for path in folder.glob(f"{start}*/voice.yaml"))


VoiceArgument = Annotated[
    str,
    typer.Argument(
        help="Name of a folder in voices/, or a path to one.", show_default=False, autocompletion=complete_voice
    ),
]
BaseOption = Annotated[
    str | None, typer.Option("--base", help="Base model, instead of the voice's own.", show_default=False)
]
RegistryOption = Annotated[
    str | None, typer.Option("--registry", help="Registry URL, e.g. file:registry.", show_default=False)
]
RecordOption = Annotated[
    bool,
    typer.Option("--record", help="Note a refusal in the registry, so that plan does not try the same again."),
]
UntrustedOption = Annotated[
    bool,
    typer.Option(
        "--untrusted",
        callback=_note_untrusted,  # a command hands it on to nobody: whatever resolves settings asks is_untrusted_here
        help="A stranger's files: settings and bases come from the protected branch, nothing is published."
        " Always on in pipelines of merge requests.",
    ),
]
WorkOption = Annotated[str | None, typer.Option("--work", help="Folder for intermediate results.", show_default=False)]


def console(*, stderr: bool = False) -> Console:
    """A rich console; colours and width follow the terminal, and NO_COLOR."""
    from rich.console import Console

    return Console(stderr=stderr)


def print_json(value: Any) -> None:
    """One JSON document on stdout. Records are dumped by their fields."""
    plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    sys.stdout.write(json.dumps(plain, indent=2, ensure_ascii=False) + "\n")


def repository_root() -> Path:
    """What everything is relative to: the nearest parent with a pipeline.toml or .git, else the current folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pipeline.toml").exists() or (folder / ".git").exists():
            return folder
    return here


def is_untrusted_here() -> bool:
    """Whether this command works on a stranger's files, by its flag or by the CI engine's variables."""
    from pipeline.trust import is_untrusted

    return is_untrusted(os.environ, flag=_says_untrusted.get())


def require_trusted(what: str, hint: str) -> None:
    """Raises UsageError where the tree is a stranger's."""
    from pipeline.errors import UsageError

    if is_untrusted_here():
        raise UsageError(f"{what}: not with a stranger's files (--untrusted, or a merge request's pipeline)", hint=hint)


def governing_here() -> Governing | None:
    """What counts in place of the tree's pipeline.toml; None where the tree is ours. Said once on stderr."""
    if not is_untrusted_here():
        return None
    from pipeline.io.protected import find_governing

    found = _governing.get() or find_governing(repository_root(), os.environ)
    if _governing.get() is None and found.note:
        console(stderr=True).print(found.note, style="yellow", highlight=False, markup=False, soft_wrap=True)
    _governing.set(found)
    return found


def resolve_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    voice_overrides: Mapping[str, Any] | None = None,
    voice_source: str = "voice.yaml",
) -> Resolved:
    """All settings of this command line; see ``pipeline/config.py`` for who wins."""
    from pipeline.config import resolve

    governing = governing_here()
    return resolve(
        root=repository_root(),
        pipeline=governing.layer if governing else None,
        environment=os.environ,
        voice_overrides=voice_overrides,
        voice_source=voice_source,
        flags=flags,
    )


class ConsoleReporter:
    """Progress bars in a terminal; plain lines in a CI log; nothing when quiet."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = console(stderr=True)
        # Not the console's own opinion: FORCE_COLOR, which CI engines set, makes it take a log for a terminal.
        self._is_watched = sys.stderr.isatty() and not os.environ.get("CI")

    def track(self, items: Iterable[Item], *, description: str, total: int | None = None) -> Iterable[Item]:
        if self._quiet or not self._is_watched:
            return items
        from rich.progress import track

        count = len(items) if total is None and isinstance(items, Sized) else total
        return track(items, description=description, total=count, console=self._console, transient=True)

    def log(self, message: str) -> None:
        if not self._quiet:
            self._console.print(message, highlight=False, markup=False, soft_wrap=True)
