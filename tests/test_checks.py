"""`make test` runs everything, whatever fails, tells all of it and ends with the closing line of the tests."""

from __future__ import annotations

import sys

import checks
import pytest


def says(word: str, code: int = 0) -> checks.Command:
    return checks.Command((sys.executable, "-c", f"import sys; print({word!r}, flush=True); sys.exit({code})"))


@pytest.mark.parametrize(("lint", "types", "tests", "code"), [(0, 0, 0, 0), (1, 0, 0, 1), (0, 2, 0, 2), (0, 0, 1, 1)])
def test_one_failure_fails_and_all_is_told(monkeypatch, capfd, lint, types, tests, code) -> None:
    beside = (says("linted", lint), says("typed", types))
    monkeypatch.setitem(checks.RUNS, "all", (beside, says("some failed\n7 passed", tests)))
    assert checks.main("all") == code
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "some failed" and lines[-1] == "7 passed"
    assert lines.index("linted") < lines.index("typed")


def test_a_command_that_was_killed_fails(monkeypatch, capfd) -> None:
    killed = checks.Command((sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    monkeypatch.setitem(checks.RUNS, "all", ((killed,), says("7 passed")))
    assert checks.main("all") != 0


def test_compiled_files_are_kept_whatever_the_shell_says(monkeypatch, capfd) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    asks = checks.Command((sys.executable, "-c", "import sys; print('keeps', not sys.dont_write_bytecode)"))
    monkeypatch.setitem(checks.RUNS, "all", ((asks,), asks))
    assert checks.main("all") == 0
    assert capfd.readouterr().out.count("keeps True") == 2


def test_every_place_of_a_marker_is_found(monkeypatch, tmp_path) -> None:
    (tmp_path / "marking").mkdir()
    (tmp_path / "marking" / "conftest.py").write_text("import pytest\nhere = pytest.mark.processor\n")
    (tmp_path / "test_marked.py").write_text("import pytest\npytestmark = [pytest.mark.processor]\n")
    (tmp_path / "test_other.py").write_text("def test_nothing(): ...\n")
    monkeypatch.setattr(checks, "TESTS_OF", tmp_path)
    assert checks.places_marked("processor") == (str(tmp_path / "marking"), str(tmp_path / "test_marked.py"))


def test_what_a_quick_look_leaves_out_is_there() -> None:
    names = checks.LONGER.read_text(encoding="utf-8").splitlines()[1:]
    gone = [
        name
        for name in names
        if f"def {name.split('::')[-1]}(" not in (checks.TESTS_OF.parent / name.split("::")[0]).read_text()
    ]
    assert names and not gone, "measure again: python scripts/checks.py longer"
