"""Writes docs/cli.md from the commands and the table of docs/evaluation.md from the rows of the gate; tests compare."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from pipeline.cli.main import app
from pipeline.records.metrics import metrics_table

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, EVALUATION = DOCS / "cli.md", DOCS / "evaluation.md"
START, END = "<!-- metrics -->", "<!-- /metrics -->"
INTRODUCTION = """\
# Command line

Written by `scripts/cli_docs.py` from the commands themselves; `voxline COMMAND --help` says the same.

Every command reads `pipeline.toml` of the repository around the current folder, and exits with
0 done, 1 bug, 2 usage, 3 settings invalid, 10 voice refused, 11 gate blocked, 12 waits for review,
13 consent missing or expired, 20 out of memory, 75 temporary failure (try again), 130 interrupted.
"""


def render() -> str:
    """The whole page."""
    root = typer.main.get_command(app)
    sections: dict[str, list[str]] = {}
    for path, command in _walk(root, ()):
        panel = getattr(command, "rich_help_panel", None) or ""
        group = root.commands[path[0]]  # type: ignore[attr-defined]
        title = panel if isinstance(panel, str) and panel else getattr(group, "rich_help_panel", "")
        sections.setdefault(str(title), []).append(_describe(path, command))
    body = [f"## {title}\n\n" + "\n".join(commands) for title, commands in sections.items()]
    return INTRODUCTION + "\n" + "\n".join(body)


def _walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, child in getattr(command, "commands", {}).items():
        if child.hidden:
            continue
        if getattr(child, "commands", None):
            if child.invoke_without_command:
                yield (*path, name), child
            yield from _walk(child, (*path, name))
        else:
            yield (*path, name), child


def _describe(path: tuple[str, ...], command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
    usage = " ".join([*path, *(_argument(one) for one in arguments), *(["[OPTIONS]"] if options else [])])
    lines = [f"### voxline {' '.join(path)}", "", _text(command.help or ""), "", f"`voxline {usage}`", ""]
    rows = [(f"`{_argument(one)}`", one) for one in arguments] + [(_flags(one), one) for one in options]
    if rows:
        lines += ["| | | |", "|---|---|---|"]
        lines += [f"| {flags} | {_cell(_meaning(one))} | {_cell(_default(one))} |" for flags, one in rows]
        lines.append("")
    return "\n".join(lines)


def _text(help_text: str) -> str:
    """The docstring; indented examples become code blocks."""
    text = re.sub(r"\[/?bold\]", "", help_text.strip())  # typer has taken the common indentation away
    blocks = []
    for block in text.split("\n\n"):
        is_example = block.startswith(("    ", "voxline "))
        blocks.append("```\n" + inspect.cleandoc("\n" + block) + "\n```" if is_example else " ".join(block.split()))
    return "\n\n".join(blocks)


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name).strip("[]").upper()
    return name if parameter.required else f"[{name}]"


def _flags(parameter: Any) -> str:
    return ", ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))


def _meaning(parameter: Any) -> str:
    return str(getattr(parameter, "help", "") or "")


def _default(parameter: Any) -> str:
    shown = parameter.show_default
    if isinstance(shown, str):
        return f"default: {shown}"
    value = parameter.default
    if shown is False or value in (None, False, ()) or callable(value):
        return ""
    return f"default: `{getattr(value, 'value', value)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    PAGE.write_text(render(), encoding="utf-8")
    page = EVALUATION.read_text(encoding="utf-8")
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    EVALUATION.write_text(f"{before}{START}\n{metrics_table()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
