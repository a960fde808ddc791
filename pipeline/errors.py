"""Every way voxline ends other than well, each with its own exit code (docs/cli.md lists them).

A voice that is not good enough is a report; these exceptions are how a command leaves. One handler in
``pipeline/cli/main.py`` prints the message and exits with ``exit_code``.
"""

from __future__ import annotations

from typing import ClassVar


class PipelineError(Exception):
    """Something the user can act on.

    Args:
        message: what is wrong: the file, the value, the limit.
        hint: the next step, as a sentence or a command.
    """

    exit_code: ClassVar[int] = 1
    title: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PipelineError):
    """The command line asks for something that does not exist or cannot be combined."""

    exit_code = 2
    title = "usage"


class SettingsError(PipelineError):
    """voice.yaml, pipeline.toml, a base.yaml, a flag or an environment variable holds a value we cannot take."""

    exit_code = 3
    title = "settings"


class MissingExtraError(SettingsError):
    """A command needs an optional part of voxline that is not installed. The hint is the one line to type."""

    title = "not installed"


class NoAccessError(SettingsError):
    """The system does not let us read or write a file: rights, a read-only disk, a file where a folder is needed."""

    title = "no access"


class VoiceRefused(PipelineError):
    """The recordings are not good enough, or too few."""

    exit_code = 10
    title = "voice refused"


class TextRefused(VoiceRefused):
    """A voice is asked to say what its base never learned to pronounce."""

    title = "text refused"


class GateBlocked(PipelineError):
    """The adapter was trained but its quality is not proven."""

    exit_code = 11
    title = "gate blocked"


class ReviewPending(PipelineError):
    """The candidate waits for a person to promote it."""

    exit_code = 12
    title = "waits for review"


class ConsentError(PipelineError):
    """Consent is missing, incomplete or has expired."""

    exit_code = 13
    title = "consent"


class OutOfMemoryError(PipelineError):
    """Out of memory even with the smallest micro-batch."""

    exit_code = 20
    title = "out of memory"


class TransientError(PipelineError):
    """The network, a full disk or a preempted machine: worth another try, so CI retries on it."""

    exit_code = 75
    title = "temporary failure"


class Interrupted(PipelineError):
    """Ctrl-C. What was finished stays; the next run continues."""

    exit_code = 130
    title = "interrupted"
