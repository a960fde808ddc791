"""The one place where a stage starts and ends: key, lock, timing, progress, log folding, result.json.

Later traces hang here and nowhere else. Nothing in this module imports torch: a stage's code is imported only when it
has to run, so a run in which everything is done already costs milliseconds.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

from models.errors import ModelsError
from pipeline.errors import Interrupted, SettingsError, TransientError
from pipeline.io.ci import fold
from pipeline.io.files import disk_full_is_transient
from pipeline.io.store import CHECKPOINT, Store, check_marks, digest_of_marks, list_marks, stage_key
from pipeline.line import table
from pipeline.line.table import Stage, load
from pipeline.records.base import Record
from pipeline.records.job import Destination, FileMark, Input, Job, Machine, Reporter, Served, StageResult

AnyJob = Job[Any, Any, Any]  # a stage names the types of its own; a test holds them against its row


@dataclass(frozen=True)
class Outcome:
    """A finished stage.

    Attributes:
        was_cached: nothing had to be done.
    """

    result: StageResult
    record: Any
    folder: Path
    was_cached: bool

    def as_input(self) -> Input[Any]:
        return Input(record=self.record, folder=self.folder, files=self.handed_on, read=self.result.read)

    @property
    def handed_on(self) -> dict[str, FileMark]:
        """Of the files that the stage left, those that others read."""
        entries = table.STAGES[self.result.stage].hands_on
        return {name: mark for name, mark in (self.result.files or {}).items() if name.partition("/")[0] in entries}

    @property
    def page(self) -> Path:
        """The report that a person opens."""
        return self.folder / table.STAGES[self.result.stage].page

    def check(self) -> None:
        """Raises DamagedResult where the files that others read are not those the stage left."""
        check_marks(self.folder, self.handed_on, table.STAGES[self.result.stage].hands_on)


@dataclass(frozen=True)
class Task:
    """One stage of one voice, by everything that decides what it leaves: the same of all these, the same key.

    Attributes:
        settings: the stage's own section.
        digests: digests of what the stage reads besides earlier stages: the voice's content, the base.
        inputs: outcomes of earlier stages; their keys are part of this one's key.
        parameters: further plain data that the stage needs.
    """

    stage: Stage
    voice: str
    settings: Record
    digests: Mapping[str, str]
    inputs: Mapping[str, Outcome] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        return stage_key(self.stage.name, self.stage.version, self.plain_settings, self.all_digests)

    @property
    def plain_settings(self) -> dict[str, Any]:
        return {**self.settings.model_dump(mode="json"), "parameters": dict(self.parameters)}

    @property
    def all_digests(self) -> dict[str, str]:
        return {**self.digests, **{earlier: outcome.result.key for earlier, outcome in self.inputs.items()}}

    @cached_property
    def read(self) -> dict[str, str]:
        """Earlier stage -> digest of the files that it hands on."""
        return {earlier: digest_of_marks(outcome.handed_on) for earlier, outcome in self.inputs.items()}

    def job(self, place: Place, folder: Path, is_stopping: Callable[[], bool]) -> AnyJob:
        """What the stage is handed to write its files into a folder."""
        return Job(
            voice=self.voice,
            key=self.key,
            voice_folder=place.voice_folder,
            settings=self.settings,
            inputs={earlier: outcome.as_input() for earlier, outcome in self.inputs.items()},
            parameters=self.parameters,
            folder=folder,
            checkpoint=folder / CHECKPOINT,
            reporter=place.reporter,
            is_stopping=is_stopping,
            machine=place.machine,
            destination=place.destination,
            served=place.find_served(),
            voxline_version=voxline_version(),
        )


@dataclass(frozen=True)
class Place:
    """Where a task runs, and who watches. None of it decides what the task leaves, so no key covers it.

    Attributes:
        destination: where a stage that writes to the registry puts it.
        find_served: asked for what production serves when the stage runs.
        check: called before the result is kept; raises when what the stage read has changed meanwhile.
    """

    store: Store
    voice_folder: Path
    reporter: Reporter
    machine: Machine = field(default_factory=Machine)
    destination: Destination | None = None
    find_served: Callable[[], Served | None] = lambda: None
    check: Callable[[], None] = lambda: None


def find_stage(task: Task, store: Store) -> Outcome | None:
    """What an earlier run of this very task left; None where there was none, or it was made of other files.

    What writes to the registry is not looked for: the registry says whether it was done. Earlier versions listed no
    files: what they left counts as it lies, but a verdict of theirs names nothing it holds for and is given again.
    """
    stage = task.stage
    result = None if stage.writes else store.find(task.voice, stage.name, task.key)
    if result is None or (result.read != task.read if result.read else stage.is_verdict):
        return None
    folder = store.folder(task.voice, stage.name, task.key)
    if result.files is None:
        result = result.model_copy(update={"files": list_marks(folder, stage.hands_on)})
    record = load(stage.record).model_validate(result.output)
    return Outcome(result, record, folder, was_cached=True)


def run_stage(task: Task, place: Place) -> Outcome:
    """Run one stage of one voice, or find that it was run before.

    What writes to the registry always runs: the registry says whether it is still to be done, and the result that is
    kept here is a note of what was done from here. It compares what it copies itself.

    Raises:
        Interrupted, TransientError: the job stopped early; its checkpoint stays.
        DamagedResult: an earlier stage's files are not what it left.
    """
    stage, store = task.stage, place.store
    found = find_stage(task, store)
    if found is not None:
        return found
    with disk_full_is_transient(store.root), store.lock(task.voice, stage.name, task.key):
        found = find_stage(task, store)  # another run may have finished it while this one waited
        if found is not None:
            return found
        for outcome in () if stage.writes else task.inputs.values():
            outcome.check()
        partial = store.begin(task.voice, stage.name, task.key)
        started_at, clock = datetime.now(UTC), time.perf_counter()
        with _cleared_after_failure(store, partial), stage_span(task.voice, stage.name) as is_stopping:
            record: Record = load(stage.entry)(task.job(place, partial, is_stopping))
            place.check()
            if stage.writes:
                store.clear(partial)  # the files lie in the registry now
            result = StageResult(
                stage=stage.name,
                stage_version=stage.version,
                key=task.key,
                voice=task.voice,
                voxline_version=voxline_version(),
                started_at=started_at.isoformat(timespec="seconds"),
                duration_s=round(time.perf_counter() - clock, 3),
                inputs=task.all_digests,
                settings=task.plain_settings,
                output=record.model_dump(mode="json"),
                files=list_marks(partial),
                read=task.read,
            )
            folder = store.commit(partial, result)
    return Outcome(result, record, folder, was_cached=False)


@contextmanager
def _cleared_after_failure(store: Store, partial: Path) -> Iterator[None]:
    """A job that failed leaves its checkpoint and nothing else: on a full disk every byte counts."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # gone when the result was moved in; else the next run clears it
            store.clear(partial)
        raise


@contextmanager
def stage_span(voice: str, name: str) -> Iterator[Callable[[], bool]]:
    """Around every stage, cached in the store or not: log folding, signals, and networks' errors told as settings."""
    with fold(f"{voice}: {name}"), _stop_flag() as is_stopping:
        try:
            yield is_stopping
        except ModelsError as error:
            raise SettingsError(str(error), hint="voxline doctor says what can be used here") from error


@cache
def voxline_version() -> str:
    """The installed version, or 'source' when run from an uninstalled tree."""
    try:
        return metadata.version("voxline")
    except metadata.PackageNotFoundError:
        return "source"


def judging_code() -> str:
    """Version of the code that judges voices: a refusal by another one does not prevent a retry."""
    return " ".join([voxline_version(), *(f"{stage.name}:{stage.version}" for stage in table.stored())])


@contextmanager
def _stop_flag() -> Iterator[Callable[[], bool]]:
    """SIGTERM asks the stage to save and leave (exit 75, CI retries); a second one, or Ctrl-C, leaves at once."""
    stopping = False

    def ask(_: int, __: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            raise TransientError("stopped by SIGTERM", hint="run again: it continues from its last checkpoint")
        stopping = True

    try:
        previous = signal.signal(signal.SIGTERM, ask)
    except ValueError:  # not the main thread: the owner of the process handles signals
        yield lambda: False
        return
    try:
        yield lambda: stopping
        if stopping:
            raise TransientError("stopped by SIGTERM", hint="run again: finished work is kept")
    except KeyboardInterrupt:
        raise Interrupted("stopped by Ctrl-C", hint="run again: it continues where it stopped") from None
    finally:
        signal.signal(signal.SIGTERM, previous)
