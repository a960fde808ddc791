"""The one place that writes to the terminal. Data is shown as it is: never as markup, never as a control sequence.

Commands give it plain strings, rich ``Text`` for style, or a ``table`` of this module; a test forbids every other way
to write. Three layers hold, so that nobody has to remember an escape:

- strings are never read as markup (``[/x]``, ``[bold]``);
- a line break inside a message is marked, and inside a table's cell a blank, so that no line can be forged;
- whatever is rendered, characters that would drive the terminal are replaced before they reach it.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from contextlib import contextmanager
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.style import Style
    from rich.table import Table
    from rich.text import Text

    from pipeline.errors import PipelineError

Item = TypeVar("Item")

CONTINUED = "\n  | "


@cache
def _console_class() -> type[Console]:
    """Rich's console with the last layer; made on first use, since importing rich takes a while."""
    from rich.console import Console
    from rich.segment import Segment

    class HarmlessConsole(Console):
        """Replaces what would drive the terminal in everything it renders; rich's own sequences are added later."""

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for text, style, control in super().render(renderable, options):
                yield Segment(text if control else harmless(text), style, control)

    return HarmlessConsole


def console(*, stderr: bool = False) -> Console:
    """The terminal; colours and width follow it, and NO_COLOR. Strings printed to it are no markup."""
    return _console_class()(stderr=stderr, markup=False, highlight=False, emoji=False)


def tell(message: str | Text, *, style: str = "", stderr: bool = False) -> None:
    """One message, its lines as long as they are, so that they can be copied; breaks in the data are marked."""
    console(stderr=stderr).print(_as_text(message, CONTINUED), style=style or None, soft_wrap=True)


def table(*columns: str, **options: Any) -> Table:
    """An unframed table whose cells are data: strings or ``Text``, each on one line before it is wrapped."""
    from rich.table import Table

    class DataTable(Table):
        def add_row(
            self,
            *cells: RenderableType | None,
            style: str | Style | None = None,
            end_section: bool = False,
        ) -> None:
            plain = [_as_text(cell, " ") if _is_text(cell) else cell for cell in cells]
            super().add_row(*plain, style=style, end_section=end_section)

    return DataTable(*columns, **{"box": None, **options})


def print_table(rows: Table, *, stderr: bool = False) -> None:
    """A table, in the width of the terminal."""
    console(stderr=stderr).print(rows)


def print_json(value: Any) -> None:
    """One JSON document on stdout. Records are dumped by their fields."""
    from pipeline.plain import escaped_json

    plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    document = escaped_json(json.dumps(plain, indent=2, ensure_ascii=False))
    # GitHub reads "##[" as a command wherever it stands; in JSON the first sign can be spelled.
    write_document((document.replace("##[", "\\u0023#[") if _is_github() else document) + "\n")


def bar(items: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
    """The items, with a bar on stderr that says how many are done and how long the rest will take; gone at the end."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(elapsed_when_finished=True))
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        yield from progress.track(items, total=total, description=description)


@contextmanager
def byte_bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr for a download: what is yielded is told how many bytes more are here. Gone at the end."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)


def write_document(document: str) -> None:
    """A generated file on stdout (a schema, a CI pipeline), byte for byte: its writer has escaped what it quotes."""
    sys.stdout.write(document)


def write_sound(data: bytes) -> None:
    """A sound file on stdout."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def print_error(error: PipelineError) -> None:
    """``voxline: <kind>: <message>`` and the next step, on stderr; an annotation too where the CI engine has them."""
    from rich.text import Text

    from pipeline.io.ci import annotation

    tell(Text.assemble((f"voxline: {error.title}: ", "bold red"), error.message), stderr=True)
    if error.hint:
        tell(Text.assemble(("  next: ", "bold"), error.hint), stderr=True)
    sys.stderr.write(annotation(error.title, error.message, os.environ))


def print_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A traceback, for ``sys.excepthook``: it quotes data like everything else."""
    sys.stderr.write(harmless("".join(traceback.format_exception(kind, error, trace))))


def harmless(text: str) -> str:
    """Nothing in here drives a terminal, or is a command to the CI engine that reads the log."""
    from pipeline.plain import printable

    plain = printable(text)
    return plain.replace("::", ": :").replace("##[", "## [") if _is_github() else plain


def _is_github() -> bool:
    from pipeline.io.ci import detect_engine

    return detect_engine(os.environ) == "github"


def _is_text(cell: object) -> bool:
    from rich.text import Text

    return isinstance(cell, str | Text)


def _as_text(cell: Any, line_break: str) -> Text:
    """A string, or a ``Text`` with its styles, whose line breaks are replaced."""
    from rich.text import Text

    text = Text(cell) if isinstance(cell, str) else cell
    lines = text.split("\n", allow_blank=True)
    return text if len(lines) < 2 else Text(line_break).join(lines)
