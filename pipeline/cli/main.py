"""The ``voxline`` command: collects the commands, and turns every PipelineError into its exit code.

Command modules import only typer and the standard library at their top (a test holds them to it), so ``voxline --help`` stays
fast; everything else is imported inside the command.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from pipeline.cli import settings
from pipeline.errors import PipelineError

app = typer.Typer(
    name="voxline",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# In the order of --help. Each module has register(app), which adds its command or group of commands.
for module in (settings,):
    module.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from pipeline.run import voxline_version

        typer.echo(f"voxline {voxline_version()}")
        raise typer.Exit()


@app.callback()
def voxline(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Tested, revocable synthetic voices out of a Git repository.

    A folder [bold]voices/NAME/[/bold] with a minute of speech, its transcripts and consent becomes a published voice:

        voxline import recordings/ --name ana --language en --license CC-BY-4.0
        voxline run ana
        voxline say ana "Good morning." -o out.wav
    """


def main() -> None:
    """Entry point of the console script: runs the command and exits with the code of DESIGN section 4."""
    sys.exit(run_command())


def run_command(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code; every expected failure is one clear message on stderr."""
    try:
        result = app(arguments, standalone_mode=False)
    except PipelineError as error:
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; finished work is kept, run again to continue\n")
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `voxline plan | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _usage_or_raise(error)
    return result if isinstance(result, int) else 0


def _usage_or_raise(error: Exception) -> int:
    """Typer's own errors (unknown option, missing argument) are usage; anything else is a bug and shows its traceback."""
    show = getattr(error, "show", None)
    if show is not None:
        show()
        return int(getattr(error, "exit_code", 2))
    if type(error).__name__ == "Abort":
        sys.stderr.write("aborted\n")
        return 130
    raise error


def print_error(error: PipelineError) -> None:
    """``voxline: <kind>: <message>`` and the next step, on stderr; as an annotation too where the CI engine has them."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True)
    console.print(Text.assemble((f"voxline: {error.title}: ", "bold red"), error.message))
    if error.hint:
        console.print(Text.assemble(("  next: ", "bold"), error.hint))


if __name__ == "__main__":
    main()
