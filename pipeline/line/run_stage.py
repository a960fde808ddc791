"""The one place where a stage starts and ends: key, lock, timing, progress, log folding, result.json.

Later traces hang here and nowhere else. Nothing in this module imports torch: a stage's code is imported only when it
has to run, so a run in which everything is done already costs milliseconds.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

from models.errors import ModelsError
from pipeline.errors import Interrupted, SettingsError, TransientError
from pipeline.io.ci import fold
from pipeline.io.files import disk_full_is_transient
from pipeline.io.store import Store, check_marks, digest_of_marks, list_marks, stage_key
from pipeline.line import table
from pipeline.line.table import Stage, load
from pipeline.records.base import Record
from pipeline.records.job import Destination, FileMark, Input, Job, Machine, Reporter, Served, StageResult


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


def find_stage(
    name: str,
    *,
    store: Store,
    voice: str,
    settings: Record,
    digests: Mapping[str, str],
    inputs: Mapping[str, Outcome] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Outcome | None:
    """What an earlier run of this very job left; None when there was none. Arguments as for ``run_stage``."""
    stage = table.STAGES[name]
    key = stage_key(stage.name, stage.version, _plain(settings, parameters), _all_digests(digests, inputs))
    return _find(store, stage, voice, key, _read(inputs))


def _all_digests(digests: Mapping[str, str], inputs: Mapping[str, Outcome] | None) -> dict[str, str]:
    return {**digests, **{earlier: outcome.result.key for earlier, outcome in (inputs or {}).items()}}


def _read(inputs: Mapping[str, Outcome] | None) -> dict[str, str]:
    return {earlier: digest_of_marks(outcome.handed_on) for earlier, outcome in (inputs or {}).items()}


def _plain(settings: Record, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    return {**settings.model_dump(mode="json"), "parameters": dict(parameters or {})}


def run_stage(
    name: str,
    *,
    store: Store,
    voice: str,
    voice_folder: Path,
    settings: Record,
    digests: Mapping[str, str],
    reporter: Reporter,
    inputs: Mapping[str, Outcome] | None = None,
    parameters: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    destination: Destination | None = None,
    find_served: Callable[[], Served | None] = lambda: None,
    check: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run one stage of one voice, or find that it was run before.

    What writes to the registry always runs: the registry says whether it is still to be done, and the result that is
    kept here is a note of what was done from here. It compares what it copies itself.

    Args:
        settings: the stage's own section.
        digests: digests of what the stage reads besides earlier stages: the voice's content, the base.
        inputs: outcomes of earlier stages; their keys are part of this one's key.
        parameters: further plain data that the stage needs and its key must cover.
        machine: where it runs; not part of the key.
        find_served: asked for what production serves when the stage runs; not part of the key.
        destination: where a stage that writes to the registry puts it; not part of the key.
        check: called before the result is kept; raises when what the stage read has changed meanwhile.

    Raises:
        Interrupted, TransientError: the job stopped early; its checkpoint stays.
        DamagedResult: an earlier stage's files are not what it left.
    """
    stage = table.STAGES[name]
    inputs, parameters = inputs or {}, parameters or {}
    all_digests, plain_settings = _all_digests(digests, inputs), _plain(settings, parameters)
    key = stage_key(stage.name, stage.version, plain_settings, all_digests)
    read = _read(inputs)
    found = _find(store, stage, voice, key, read)
    if found is not None:
        return found
    with disk_full_is_transient(store.root), store.lock(voice, name, key):
        found = _find(store, stage, voice, key, read)  # another run may have finished it while this one waited
        if found is not None:
            return found
        for outcome in () if stage.writes else inputs.values():
            outcome.check()
        partial = store.begin(voice, name, key)
        started_at, clock = datetime.now(UTC), time.perf_counter()
        with _cleared_after_failure(store, partial), stage_span(voice, name) as is_stopping:
            job: Job[Record, Mapping[str, Input[Any]], Mapping[str, Any]] = Job(
                voice=voice,
                key=key,
                voice_folder=voice_folder,
                settings=settings,
                inputs={earlier: outcome.as_input() for earlier, outcome in inputs.items()},
                parameters=parameters,
                folder=partial,
                checkpoint=partial / "checkpoint",
                reporter=reporter,
                is_stopping=is_stopping,
                machine=machine or Machine(),
                destination=destination,
                served=find_served(),
                voxline_version=voxline_version(),
            )
            record: Record = load(stage.entry)(job)
            check()
            if stage.writes:
                store.clear(partial)  # the files lie in the registry now
            result = StageResult(
                stage=name,
                stage_version=stage.version,
                key=key,
                voice=voice,
                voxline_version=voxline_version(),
                started_at=started_at.isoformat(timespec="seconds"),
                duration_s=round(time.perf_counter() - clock, 3),
                inputs=all_digests,
                settings=plain_settings,
                output=record.model_dump(mode="json"),
                files=list_marks(partial),
                read=read,
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


def _find(store: Store, stage: Stage, voice: str, key: str, read: Mapping[str, str]) -> Outcome | None:
    """The result of this key, unless it was made of other files than the earlier stages hold now, or lies elsewhere.

    Earlier versions listed no files: what they left counts as it lies, but a verdict of theirs names nothing it holds
    for and is given again.
    """
    result = None if stage.writes else store.find(voice, stage.name, key)
    if result is None or (result.read != read if result.read else stage.is_verdict):
        return None
    folder = store.folder(voice, stage.name, key)
    if result.files is None:
        result = result.model_copy(update={"files": list_marks(folder, stage.hands_on)})
    record = load(stage.record).model_validate(result.output)
    return Outcome(result, record, folder, was_cached=True)


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
