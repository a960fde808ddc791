from __future__ import annotations

from pipeline import errors
from pipeline.cli.main import run_command


def kinds() -> list[type[errors.PipelineError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PipelineError)]


def test_exit_codes_are_the_designs_and_distinct():
    codes = {
        kind.__name__: kind.exit_code
        for kind in kinds()
        if kind not in (errors.PipelineError, errors.MissingExtraError, errors.NoAccessError)
    }
    assert sorted(codes.values()) == [2, 3, 10, 11, 12, 13, 20, 75, 130]


def test_a_wrong_option_is_usage_and_shows_no_traceback(capfd):
    assert run_command(["settings", "--no-such-option"]) == 2
    assert "Traceback" not in capfd.readouterr().err


def test_an_error_prints_what_is_wrong_and_the_next_step(capfd, monkeypatch):
    monkeypatch.setenv("VOXLINE_NO_SUCH", "1")
    assert run_command(["settings"]) == 3
    printed = capfd.readouterr().err
    assert "VOXLINE_NO_SUCH" in printed
    assert "next:" in printed
