from __future__ import annotations

from pipeline import errors
from pipeline.cli.main import run_command


def kinds() -> list[type[errors.PipelineError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PipelineError)]


def test_exit_codes_are_the_designs_and_distinct():
    directly = [kind for kind in kinds() if errors.PipelineError in kind.__bases__]
    assert sorted(kind.exit_code for kind in directly) == [2, 3, 10, 11, 12, 13, 20, 75, 130]
    finer = [kind for kind in kinds() if kind not in (*directly, errors.PipelineError)]
    assert all(kind.exit_code == kind.__bases__[0].exit_code for kind in finer)


def test_a_wrong_option_is_usage_and_shows_no_traceback(capfd):
    assert run_command(["settings", "--no-such-option"]) == 2
    assert "Traceback" not in capfd.readouterr().err


def test_an_error_prints_what_is_wrong_and_the_next_step(capfd, monkeypatch):
    monkeypatch.setenv("VOXLINE_NO_SUCH", "1")
    assert run_command(["settings"]) == 3
    printed = capfd.readouterr().err
    assert "VOXLINE_NO_SUCH" in printed
    assert "next:" in printed
