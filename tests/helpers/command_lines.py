"""Whether a command line that somebody wrote down is one that voxline takes."""

from __future__ import annotations

import shlex
from functools import cache
from typing import Any


@cache
def whole_program() -> Any:
    """The command of the program with all that it holds; to put it together takes a tenth of a second."""
    import typer.main

    from pipeline.cli.main import app

    return typer.main.get_command(app)


def unknown_words(line: str) -> list[str]:
    """Commands and options of a ``voxline ...`` line that the program itself does not know."""
    words = [word for word in shlex.split(line) if "=" not in word or word.startswith("-")]
    assert words[0] == "voxline", line
    command, rest = whole_program(), words[1:]
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        name, *rest = rest
        if name not in command.commands:
            return [name]
        command = command.commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "-h", "--install-completion", "--show-completion"}
    return [word for word in rest if word.startswith("-") and word != "-" and word.split("=")[0] not in known]
