"""What the terminal is told: completion for the shell, progress for whoever watches, plain lines for a log."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.text import Text

from pipeline.cli import terminal
from pipeline.cli.common import ConsoleReporter
from pipeline.errors import UsageError
from pipeline.io.registry.events import Mover
from pipeline.plain import is_unfit


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("voxline val", ["validate"]),
        ("voxline run a", ["ana", "anna"]),
        ("voxline say b", ["ben"]),
        ("voxline registry show a", ["ana"]),
        ("voxline export a", ["ana"]),
        ("voxline bases show nan", ["nano"]),
        ("voxline run ana --base nan", ["nano"]),
        ("voxline run ana --until ex", ["extract"]),
        ("voxline say ana --channel c", ["candidate"]),
    ],
)
def test_the_shell_completes(line, warm_python, typed, offered):
    for name in ("ana", "anna", "ben"):
        line.write_voice(name)
    line.commit()
    line.publish("ana")
    words = {"_VOXLINE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    code = "import sys; sys.argv[0] = 'voxline'; from pipeline.cli.main import main; main()"
    done = warm_python.run(code, folder=line.root, environment={**os.environ, **words})
    assert done.stdout.split() == offered, done.stderr


@pytest.mark.parametrize(("is_terminal", "ci", "moves"), [(True, "", True), (True, "true", False), (False, "", False)])
def test_progress_bars_are_for_people_not_for_logs(monkeypatch, capsys, is_terminal, ci, moves):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    assert list(ConsoleReporter().track([1, 2], description="counting")) == [1, 2]
    assert ("counting" in capsys.readouterr().err) == moves


# --- what others wrote ------------------------------------------------------------------------------

HOSTILE = "[bold]x[/x] \x1b]0;owned\x07\x1b[2J\x9b31m\x7f \u202egnp.exe\nvoxline: all is well\r\n::error::forged"


def is_harmless(shown: str) -> bool:
    return not any(is_unfit(letter) for letter in shown if letter != "\n")


def lines_that_begin(shown: str, *starts: str) -> list[str]:
    return [line for line in shown.splitlines() if line.lstrip().startswith(starts)]


ANY = st.text(st.characters(exclude_categories=()), max_size=60)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    text=ANY
    | st.lists(st.sampled_from(["[/x]", "[bold]", "\x1b[2J", "\n", "::error::", "##[", ":smile:", "a "])).map("".join)
)
@pytest.mark.parametrize("engine", ["", "GITHUB_ACTIONS"])
def test_whatever_is_printed_is_text(text, engine, monkeypatch, capsys):
    if engine:
        monkeypatch.setenv(engine, "true")
    rows = terminal.table("voice", "why")
    rows.add_row(text, Text(text, style="red"))
    terminal.print_table(rows)
    terminal.tell(text, style="red")
    terminal.tell(Text.assemble(("begin ", "bold"), text))
    terminal.print_json({text: text})
    ConsoleReporter().log(text)
    shown = "".join(capsys.readouterr())
    assert is_harmless(shown)
    if engine:
        assert not lines_that_begin(shown, "::") and "##[" not in shown


@pytest.mark.parametrize("text", ["[/x]", "[bold]b[/bold]", ":smile:", "[link=http://x]y[/link]", r"\[x]"])
def test_what_looks_like_markup_is_shown_as_it_is(text, capsys):
    terminal.tell(text)
    rows = terminal.table("voice")
    rows.add_row(text)
    terminal.print_table(rows)
    terminal.print_error(UsageError(text, hint=text))
    printed = capsys.readouterr()
    assert (printed.out.count(text), printed.err.count(text)) == (2, 2)


def test_a_line_break_in_data_begins_no_line_of_its_own(capsys):
    terminal.tell("b/c\nvoxline: all is well")
    assert capsys.readouterr().out == "b/c\n  | voxline: all is well\n"


def test_a_progress_bar_reads_no_markup(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("CI", raising=False)
    assert list(ConsoleReporter().track([1], description="[/x]\x1b[2J: validate")) == [1]
    shown = capsys.readouterr().err
    assert "[/x]" in shown and "\x1b[2J" not in shown


def test_a_log_gets_a_line_now_and_then(monkeypatch, capsys):
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr("pipeline.cli.common.time.monotonic", lambda: float(next(clock)))
    assert list(ConsoleReporter().track(range(4), description="ana: synthesizer")) == [0, 1, 2, 3]
    assert capsys.readouterr().err == (
        "ana: synthesizer: 1 of 4, at most 60 s left\nana: synthesizer: 3 of 4, at most 27 s left\n"
    )
    list(ConsoleReporter(quiet=True).track(range(4), description="ana: synthesizer"))
    assert capsys.readouterr().err == ""


def test_reasons_and_names_from_git_cannot_drive_the_terminal(line, voxline):
    line.write_voice("ana")
    line.commit()
    line.publish("ana")
    refused = voxline("registry", "retire", "ana", "--reason", "\x1b]0;x\x07\x1b[2J")
    assert (refused.code, "U+001B" in refused.err, is_harmless(refused.err)) == (2, True, True)
    line.git("config", "user.name", HOSTILE)
    assert voxline("registry", "retire", "ana").code == 0
    event = line.registry.history("ana")[-1]
    assert not any(is_unfit(letter) for letter in event.actor)
    for command in (["list"], ["history", "ana"], ["history", "ana", "--json"]):
        answer = voxline("registry", *command)
        assert answer.code == 0 and is_harmless(answer.out), answer.out


def test_what_an_older_registry_kept_is_shown_harmlessly(line, voxline, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    line.write_voice("ana")
    line.commit()
    line.publish("ana")
    line.registry.retire("ana", Mover(HOSTILE, "", HOSTILE, HOSTILE))
    for command in (["list"], ["history", "ana"], ["history", "ana", "--json"]):
        answer = voxline("registry", *command)
        assert answer.code == 0 and is_harmless(answer.out + answer.err), answer.out
        assert not lines_that_begin(answer.out, "::error"), answer.out


@pytest.mark.parametrize("path", ["out[/x].ckpt", "out[/bold].ckpt", "\x1b[2J.ckpt"])
def test_paths_are_no_markup(line, voxline, path):
    answer = voxline("import-adapter", path)
    assert answer.code in (2, 3) and is_harmless(answer.err)


@pytest.mark.parametrize(
    "arguments",
    [[f"--{HOSTILE}"], [HOSTILE], ["say"], ["say", "ana", "Hi", "--seed", HOSTILE], ["plan", "--format", HOSTILE]],
)
def test_typer_s_own_errors_are_told_like_ours(line, voxline, monkeypatch, arguments):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    answer = voxline(*arguments)
    assert answer.code == 2 and is_harmless(answer.err)
    assert answer.err.startswith("voxline: usage: ") and "--help" in answer.err
    assert len(lines_that_begin(answer.err, "::")) == 1 and not lines_that_begin(answer.err, "voxline: all")


def test_typer_still_says_what_was_meant(line, voxline):
    answer = voxline("validat", "ana")
    assert answer.code == 2 and "Did you mean" in answer.err
    assert voxline().code == 2


def test_a_bug_s_traceback_is_harmless_too(capsys):
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        terminal.print_bug(type(error), error, error.__traceback__)
    shown = capsys.readouterr().err
    assert "ValueError" in shown and is_harmless(shown)


WRITERS = {"pipeline/cli/terminal.py", "pipeline/stages/pretrain.py"}  # the latter an old name: only its own words
ENGINE_COMMANDS = "pipeline/io/ci.py"  # sections and annotations: it escapes their parts itself


def test_only_the_terminal_module_writes_to_the_terminal(repository):
    found = []
    for path in sorted((repository / "pipeline").rglob("*.py")):
        name = path.relative_to(repository).as_posix()
        if name not in (*WRITERS, ENGINE_COMMANDS):
            found += [f"{name}:{line}: {what}" for line, what in writes(ast.parse(path.read_text(encoding="utf-8")))]
    assert not found, "\n".join(found)


def test_the_search_for_writers_finds_each_kind():
    source = (
        "import rich\nfrom rich.console import Console\nfrom rich.table import Table\nfrom typer import echo\n"
        "typer.echo('x')\ntyper.secho('x')\nprint('x')\nsys.stdout.write('x')\nsys.stderr.buffer.write(b'x')\n"
        "from rich.text import Text\nsys.stdin.read()\nfile.write('x')\nText.from_markup('x')\n"
    )
    assert [line for line, _ in writes(ast.parse(source))] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 13]


def writes(tree):
    """(line, what) of everything that could reach the terminal by another way; `rich.text` makes plain styled text."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").split(".")[0] == "rich"
            and node.module != "rich.text"
        ):
            yield node.lineno, f"from {node.module} import"
        elif isinstance(node, ast.ImportFrom) and node.module == "typer" and any("echo" in a.name for a in node.names):
            yield node.lineno, "from typer import echo"
        elif isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "rich" for alias in node.names):
            yield node.lineno, "import rich"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            is_stream = called.startswith(("sys.stdout.", "sys.stderr.")) and called.endswith(("write", "writelines"))
            if (
                is_stream
                or called == "print"
                or called.endswith(("typer.echo", "typer.secho", "from_markup", "from_ansi"))
            ):
                yield node.lineno, called


@pytest.mark.parametrize("module", ["pipeline.cli.main", "typer", "pipeline.cli.run", "models.machine.threads"])
def test_ctrl_c_while_it_starts_leaves_without_a_traceback(repository, tmp_path, module):
    """Ctrl-C arrives while this module is being imported by the console script, as pyproject.toml names it."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    place, _, name = project["scripts"]["voxline"].partition(":")
    code = f"""
import os, signal, sys

class Finder:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finder())
sys.argv = ["voxline", "bases", "list"]
from {place} import {name}
{name}()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (130, "", "")
