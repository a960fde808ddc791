"""What a stage is handed, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from pydantic import Field

from pipeline.records.base import Record
from pipeline.records.quality import QualityReport
from pipeline.records.release import Channel, Provenance, Release

Item = TypeVar("Item")
MadeT = TypeVar("MadeT", bound=Record, covariant=True)  # a stage's record
SettingsT = TypeVar("SettingsT", bound=Record, covariant=True)  # its section of the settings
InputsT = TypeVar("InputsT", covariant=True)  # a TypedDict: an earlier stage's name -> Input of its record
ParametersT = TypeVar("ParametersT", covariant=True)  # a TypedDict of plain data


class FileMark(Record):
    """By what a file is known again."""

    size_bytes: int
    sha256: str


class StageResult(Record):
    """``result.json`` of a stage folder: written last, so a folder that has one is complete.

    Attributes:
        files: what the stage wrote, by the path in its folder; None in results of versions that did not list it.
        read: earlier stage -> digest of the files that this one read of it.
    """

    stage: str
    stage_version: str
    key: str
    voice: str
    voxline_version: str
    started_at: str
    duration_s: float
    inputs: dict[str, str]
    settings: dict[str, Any]
    output: dict[str, Any]
    files: dict[str, FileMark] | None = None
    read: dict[str, str] = Field(default_factory=dict)


class Reporter(Protocol):
    """How a stage tells the person or the CI log what it is doing. Never changes a result."""

    def track(self, items: Iterable[Item], *, description: str, total: int | None = None) -> Iterable[Item]:
        """Iterate with a progress bar in a terminal, with a line now and then in a log."""
        ...

    def log(self, message: str) -> None:
        """One line of the log. No secrets, no speaker's name."""
        ...


@dataclass(frozen=True)
class Input(Generic[MadeT]):
    """A finished earlier stage: its record and the folder with its files.

    Attributes:
        files: those that it hands on, by their paths in the folder, as it left them.
        read: what it read itself, as in ``StageResult``.
    """

    record: MadeT
    folder: Path
    files: Mapping[str, FileMark] = field(default_factory=dict)
    read: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """How and where a stage computes. It never decides what comes out, so no key covers it.

    Attributes:
        device: ``auto`` takes CUDA where there is one.
        threads: CPU threads for networks; 0 leaves the choice to torch.
        cache: folder of pulled bases. ``bases``: folder of the repository's own bases, beside those of the package.
        replaced_bases: bases of the package whose place an own one takes.
        answers: the user's own file of what judges said of recordings; None: nothing is remembered, as for strangers.
    """

    device: str = "auto"
    threads: int = 0
    cache: Path = Path("~/.cache/voxline")
    bases: Path = Path("bases")
    replaced_bases: tuple[str, ...] = ()
    answers: Path | None = None


class Publisher(Protocol):
    """A registry, for who has a release to publish."""

    def publish(
        self,
        voice: str,
        release: Release,
        files: Mapping[str, Path],
        *,
        channel: Channel,
        actor: str,
        reason: str = "",
    ) -> Release:
        """Store a release and move the channel to it."""
        ...


@dataclass(frozen=True)
class Destination:
    """Where a release goes, and what it says of where it comes from. Like the machine, no key covers it."""

    registry: Publisher
    provenance: Provenance


@dataclass(frozen=True)
class Served:
    """What production serves: the quality report of the release, and its page, which plays its sentences."""

    report: QualityReport
    page: Path


@dataclass(frozen=True)
class Job(Generic[SettingsT, InputsT, ParametersT]):
    """One stage of one voice, ready to run. What a stage writes in the brackets, a test holds against its row.

    Attributes:
        voice: the voice's name; ``voice_folder`` is only read.
        key: names the job: the same of everything that decides, the same key.
        settings: the stage's own section of the settings.
        inputs: finished earlier stages by name.
        parameters: what else the key covers (base name, gate section ...), plain data.
        folder: where the stage writes its files; becomes visible when the stage is complete.
        checkpoint: survives a kill of this very job; removed when it completes.
        served: what production serves now, for a stage that gives a verdict. Like the machine, no key covers it: a
            verdict is not given again because a voice was published.
        destination: for a stage that writes to the registry; None for the others.
        is_stopping: true after SIGTERM or Ctrl-C: save a checkpoint and raise ``TransientError`` or return.
    """

    voice: str
    key: str
    voice_folder: Path
    settings: SettingsT
    inputs: InputsT
    parameters: ParametersT
    folder: Path
    checkpoint: Path
    reporter: Reporter
    is_stopping: Callable[[], bool]
    machine: Machine = Machine()
    destination: Destination | None = None
    served: Served | None = None
    voxline_version: str = ""
