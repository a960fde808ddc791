"""docs/cli.md is what the commands say of themselves."""

from __future__ import annotations

from pathlib import Path

import cli_docs


def test_the_page_is_what_help_says(repository: Path) -> None:
    page = (repository / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == cli_docs.render(), "run: python scripts/cli_docs.py"


def test_every_command_shows_an_example() -> None:
    root = cli_docs.typer.main.get_command(cli_docs.app)
    silent = [
        " ".join(path)
        for path, command in cli_docs._walk(root, ())
        if not hasattr(command, "commands") and f"voxline {' '.join(path)}" not in (command.help or "")
    ]
    assert not silent


def test_every_option_says_what_it_does() -> None:
    root = cli_docs.typer.main.get_command(cli_docs.app)
    silent = [
        f"voxline {' '.join(path)} {parameter.name}"
        for path, command in cli_docs._walk(root, ())
        for parameter in command.params
        if not getattr(parameter, "help", None)
    ]
    assert not silent
