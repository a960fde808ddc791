"""The ``voxline`` command: collects the commands, and turns every PipelineError into its exit code.

Command modules import only typer and the standard library at their top (a test holds them to it), so ``voxline --help``
stays fast; everything else is imported inside the command.
"""

from __future__ import annotations

import io
import os
import sys
from contextvars import copy_context
from typing import Annotated

import typer
from typer._click.exceptions import ClickException, NoArgsIsHelpError

from pipeline.cli import (
    artifacts,
    bases,
    cache,
    doctor,
    exchange,
    gate,
    import_,
    keys,
    new,
    plan,
    pretrain,
    registry,
    run,
    say,
    schema,
    serve,
    settings,
    stage,
    transcribe,
)
from pipeline.cli.common import signing_key_withheld
from pipeline.cli.terminal import print_bug, print_error, tell
from pipeline.errors import MissingExtraError, PipelineError, UsageError

app = typer.Typer(
    name="voxline",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# In the order of --help. Each module has register(app), which adds its command or group of commands; `stage` adds those
# of the stages.
for module in (
    new,
    import_,
    transcribe,
    plan,
    stage,
    run,
    say,
    serve,
    registry,
    keys,
    exchange,
    bases,
    artifacts,
    cache,
    gate,
    pretrain,
    settings,
    doctor,
    schema,
):
    module.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from pipeline.line.run_stage import voxline_version

        tell(f"voxline {voxline_version()}")
        raise typer.Exit()


@app.callback()
def voxline(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Tested, revocable synthetic voices out of a Git repository.

    A folder [bold]voices/NAME/[/bold] with a minute of speech, its transcripts and consent becomes a published voice:

        voxline import recordings/ --name ana --language en --license CC-BY-4.0 \\
            --consent-speaker "Ana Example" --consent-date 2026-01-09
        voxline run ana
        voxline say ana "Good morning." -o out.wav
    """


def main() -> None:
    """Entry point of the console script: runs the command and exits with its code."""
    from models.machine.threads import choose_waiting

    choose_waiting(os.environ)  # read when torch is first imported
    sys.excepthook = print_bug
    for stream in (sys.stdout, sys.stderr):  # a terminal in another encoding shows \u5f20 for what it cannot
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run_command())


def run_command(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code; every expected failure is one clear message on stderr.

    Typer's own errors (unknown option, missing argument) quote what was typed and are told like ours. A package that is
    not there is an extra that was not installed; what is left over is a bug, and shows its traceback.
    """
    try:
        # One context: what one command line says is forgotten with it.
        with signing_key_withheld(os.environ):
            code = copy_context().run(app, arguments, prog_name="voxline", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except NoArgsIsHelpError:  # it has printed the help
        return 2
    except ClickException as error:
        told_wrong = _usage_error(error)
        print_error(told_wrong)
        return told_wrong.exit_code
    except PipelineError as error:
        print_error(error)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has gone, as in `voxline plan | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        from pipeline.io.files import explain

        told = explain(error)
        if told is None:
            raise
        print_error(told)
        return told.exit_code
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "pipeline", "models"):
            raise
        absent = MissingExtraError(
            f"this command needs the package {missing}, which is not installed",
            hint="pip install 'voxline[all]'; voxline doctor says what else is missing",
        )
        print_error(absent)
        return absent.exit_code
    except typer.Abort:
        return 130
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return 0


def _usage_error(error: ClickException) -> UsageError:
    """What typer found wrong with the command line; ``Did you mean`` included."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "voxline"
    return UsageError(error.format_message(), hint=f"{command} --help")


if __name__ == "__main__":
    main()
