"""What the commands share: common options, the resolved settings, the progress reporter."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from pipeline.cli.terminal import bar, byte_bar, tell
from pipeline.trust import SIGNING_KEY_VARIABLE

if TYPE_CHECKING:
    from pipeline.config import Resolved, Setting, VoiceKeys
    from pipeline.io.protected import Governing
    from pipeline.io.registry.registry import Registry
    from pipeline.io.signing import Signer
    from pipeline.records.job import Machine
    from pipeline.records.settings import GeneralSettings, Settings

Item = TypeVar("Item")

LOG_EVERY_S = 30.0

# Whether this command line says --untrusted. One run of a command is one context, see ``run_command``.
_says_untrusted: ContextVar[bool] = ContextVar("_says_untrusted", default=False)

# What VOXLINE_SIGNING_KEY says, which no program that a command starts is told.
_signing_key: ContextVar[str] = ContextVar("_signing_key", default="")

_governing: ContextVar[Governing | None] = ContextVar("_governing", default=None)


def _note_untrusted(wanted: bool) -> bool:
    if wanted:
        _says_untrusted.set(True)
    return wanted


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of text for people.")]


def _completion(find: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Names for the shell; nothing at all where they cannot be found: completing must never fail."""

    def complete(start: str) -> list[str]:
        from pipeline.errors import PipelineError

        try:
            return sorted(name for name in find() if name.startswith(start))
        except (PipelineError, OSError):
            return []

    return complete


def _voices() -> Iterable[str]:
    folder = repository_root() / resolve_settings().settings.voxline.voices
    return (path.parent.name for path in folder.glob("*/voice.yaml"))


def _published() -> Iterable[str]:
    return registry_of(resolve_settings().settings).voices()


def _speaking() -> Iterable[str]:
    return {*_published(), *_voices()}


def _bases() -> Iterable[str]:
    from models.loading.bases import find_bases

    return find_bases(repository_root() / resolve_settings().settings.voxline.bases)


complete_voice, complete_published, complete_speaking, complete_base = (
    _completion(find) for find in (_voices, _published, _speaking, _bases)
)


def complete_words(*words: str) -> Callable[[str], list[str]]:
    """A fixed list for the shell."""
    return _completion(lambda: words)


def check_voice_name(name: str | None) -> str | None:
    """For arguments and options that name a voice: what no voice can be called is told as a wrong command line."""
    from pipeline.errors import UsageError
    from pipeline.records.voice import NAME_RULE, is_voice_name

    if name is not None and not is_voice_name(name):
        raise UsageError(f"{name!r} is not a voice name", hint=NAME_RULE)
    return name


@contextmanager
def typed(value: str | None) -> Iterator[None]:
    """What is wrong with a value is a wrong setting (3) in a file or variable, but usage (2) on the command line."""
    from pipeline.errors import SettingsError, UsageError

    try:
        yield
    except SettingsError as error:
        if value is None or type(error) is not SettingsError:
            raise
        raise UsageError(error.message, hint=error.hint) from None


VoiceArgument = Annotated[
    str,
    typer.Argument(
        help="Name of a folder in voices/, or a path to one.", show_default=False, autocompletion=complete_voice
    ),
]
NameArgument = Annotated[
    str,
    typer.Argument(
        help="Name of a published voice.",
        metavar="VOICE",
        show_default=False,
        callback=check_voice_name,
        autocompletion=complete_published,
    ),
]
ChannelOption = Annotated[
    str,
    typer.Option(help="production, candidate, or a version.", autocompletion=complete_words("production", "candidate")),
]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base",
        help="Base model, instead of the voice's own.",
        show_default=False,
        autocompletion=complete_base,
    ),
]
RegistryOption = Annotated[
    str | None,
    typer.Option(
        "--registry", help="Registry URL: file:FOLDER, git:REMOTE, s3://BUCKET or hf://ORG.", show_default=False
    ),
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
        help="Files of a stranger: protected settings, no publishing; on in merge requests.",
    ),
]
WorkOption = Annotated[str | None, typer.Option("--work", help="Folder for intermediate results.", show_default=False)]


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
        tell(found.note, style="yellow", stderr=True)
    _governing.set(found)
    return found


def resolve_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    voice: VoiceKeys | None = None,
    refused: list[Setting] | None = None,
) -> Resolved:
    """All settings of this command line; see ``pipeline/config.py`` for who wins."""
    from pipeline.config import resolve
    from pipeline.errors import SettingsError, UsageError

    governing = governing_here()
    try:
        return resolve(
            root=repository_root(),
            pipeline=governing.layer if governing else None,
            environment=os.environ,
            voice=voice,
            flags=flags,
            refused=refused,
        )
    except SettingsError as error:
        if not error.message.startswith("flag: "):
            raise
        # "flag: finetune.rank: ..." is what was typed as --rank
        told = re.sub(r"^flag: \w+\.(\w+)", lambda key: "--" + key[1].replace("_", "-"), error.message, flags=re.M)
        raise UsageError(told, hint=error.hint) from None


def prepare_machine(general: GeneralSettings) -> Machine:
    """How and where this command computes. To be called before torch is first imported, which asks the processor."""
    from models.machine.switches import switch_off
    from pipeline.io.memory import cached
    from pipeline.records.job import Machine
    from pipeline.records.settings import switched_off

    switch_off(switched_off(general.processor), os.environ)
    bases = repository_root() / general.bases
    answers = None if is_untrusted_here() else cached("answers", os.environ).path
    return Machine(general.device, general.threads, general.cache_folder, bases, general.replaced_bases, answers)


@contextmanager
def signing_key_withheld(environment: MutableMapping[str, str]) -> Iterator[None]:
    """Take the private key out of the environment while a command runs: git and other programs need none."""
    told = environment.pop(SIGNING_KEY_VARIABLE, None)
    kept = _signing_key.set(told or "")
    try:
        yield
    finally:
        _signing_key.reset(kept)
        if told is not None:
            environment[SIGNING_KEY_VARIABLE] = told


def signer_here() -> Signer | None:
    """Who signs what this command writes: the key of the variable, else the user's own."""
    from pipeline.io.signing import find_signer

    return find_signer(_signing_key.get(), os.environ)


def registry_of(settings: Settings, *, flag: str | None = None) -> Registry:
    """The registry of the settings, with whom this machine believes and who signs here.

    Args:
        flag: what was typed as --registry, if anything was; see ``typed``.
    """
    from pipeline.io.registry.registry import open_registry
    from pipeline.io.registry.trust import trust_of

    trust = trust_of(settings.registry.trusted_keys, signer_here(), os.environ)
    with typed(flag):
        cache = settings.voxline.cache_folder
        return open_registry(settings.voxline.registry, root=repository_root(), trust=trust, cache=cache)


class ConsoleReporter:
    """Progress bars in a terminal; in a log a line now and then; nothing when quiet."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        # Not the console's own opinion: FORCE_COLOR, which CI engines set, makes it take a log for a terminal.
        self._is_watched = sys.stderr.isatty() and not os.environ.get("CI")
        self._told_at = time.monotonic()

    def track(self, items: Iterable[Item], *, description: str, total: int | None = None) -> Iterable[Item]:
        if self._quiet:
            return items
        count = len(items) if total is None and isinstance(items, Sized) else total
        return bar(items, description, count) if self._is_watched else self._logged(items, description, count)

    @contextmanager
    def download(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """Told how many bytes more are here; shown only where somebody watches."""
        if self._quiet or not self._is_watched:
            yield lambda count: None
            return
        with byte_bar(description, total) as advance:
            yield advance

    def log(self, message: str) -> None:
        if not self._quiet:
            tell(message, stderr=True)
            self._told_at = time.monotonic()

    def _logged(self, items: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
        """A line after half a minute without one: a log that stands still looks like a job that hangs."""
        started = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if now - self._told_at >= LOG_EVERY_S and done != total:
                self.log(f"{description}: {_how_far(done, total, now - started)}")


def _how_far(done: int, total: int | None, elapsed_s: float) -> str:
    if total is None:
        return f"{done} done"
    left_s = elapsed_s / done * max(0, total - done)
    left = f"{left_s:.0f} s" if left_s < 90 else f"{left_s / 60:.0f} min"
    return f"{done} of {total}, at most {left} left"
