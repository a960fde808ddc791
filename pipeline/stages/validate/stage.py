"""validate: judge the recordings of a voice before anything is trained on them.

`work` reads a folder one recording at a time, writes what is accepted as `clips/*.flac` and the report in four forms.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypedDict, TypeVar

from pipeline.errors import TransientError
from pipeline.io.answers import remembered
from pipeline.io.audio import AudioLimits, write_audio
from pipeline.io.recordings import Folder, list_recordings, read_recording
from pipeline.io.validation_report import ReportWriter
from pipeline.records.clip import Clip
from pipeline.records.clip_report import ClipReport, ClipResult
from pipeline.records.job import Job, Reporter
from pipeline.records.settings import ValidateSettings
from pipeline.signal.folder_rules import Judged
from pipeline.stages.validate.judge import judge_recording
from pipeline.stages.validate.tools import Terms, load_tools
from pipeline.stages.validate.voice import conclude

_WORKERS = 2

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(function: Callable[[Item], Result], items: Iterable[Item], workers: int = _WORKERS) -> Iterator[Result]:
    """Results in the order of the items, with only a few items in flight: a folder of ten hours streams through."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class Spread(Protocol):
    """How the recordings are gone through: side by side, or one after the other as ``map`` does."""

    def __call__(self, function: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]: ...


def judge_folder(
    folder: Folder,
    terms: Terms,
    *,
    spread: Spread = in_parallel,
    keep: Callable[[Judged], None] = lambda one: None,
) -> ClipReport:
    """Judge every recording, then all of them together. A bad recording is a finding, never an exception.

    Args:
        keep: is handed each recording as it is judged; afterwards its samples are forgotten.
    """
    settings = terms.settings
    limits = AudioLimits(max_bytes=settings.file_max_bytes, max_duration_s=settings.file_max_s)

    def judge(numbered: tuple[int, Clip]) -> Judged:
        index, clip = numbered
        known, audio = read_recording(folder, clip, limits)
        return judge_recording(known, audio, index, terms, folder.has_transcripts)

    judged: list[Judged] = []
    with one_thread_each():
        for one in spread(judge, enumerate(folder.clips)):
            keep(one)
            judged.append(one.without_sound())
    return conclude(judged, terms, folder)


def validate_folder(
    folder: Folder,
    terms: Terms,
    writer: ReportWriter,
    *,
    reporter: Reporter,
    is_stopping: Callable[[], bool] = lambda: False,
) -> ClipReport:
    """Read, judge and write one recording after the other, then the report. Originals are only read.

    Raises:
        TransientError: stopped by SIGTERM; nothing is half-written, the next run begins again.
    """
    kept: list[ClipResult] = []

    def shown(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        stream = in_parallel(function, items)
        return iter(reporter.track(stream, description=f"{terms.voice}: validate", total=len(folder.clips)))

    def keep(one: Judged) -> None:
        if is_stopping():
            raise TransientError(f"stopped after {len(kept)} of {len(folder.clips)} recordings", hint="run again")
        _keep(one, writer)
        kept.append(one.result)

    report = judge_folder(folder, terms, spread=shown, keep=keep)
    _remove_left_out(writer.folder, kept, report)
    writer.finish(report)
    return report


def _keep(one: Judged, writer: ReportWriter) -> None:
    """Write the training clips of one recording and draw it; then its samples can go."""
    for prepared, samples in zip(one.result.prepared, one.prepared, strict=True):
        target = writer.folder / prepared.file
        target.parent.mkdir(parents=True, exist_ok=True)
        write_audio(target, samples, prepared.sample_rate_hz)
    if one.seen is not None and one.original is not None:
        writer.add(one.result, one.original, one.seen, one.prepared)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Recordings are judged side by side, so a network must not start threads of its own for each."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _remove_left_out(folder: Path, before: Sequence[ClipResult], report: ClipReport) -> None:
    """Training clips of recordings that only the comparison with the others has rejected."""
    kept = {prepared.file for prepared in report.prepared}
    for result in before:
        for prepared in result.prepared:
            if prepared.file not in kept:
                (folder / prepared.file).unlink(missing_ok=True)


class Inputs(TypedDict):
    """It comes first, and reads the voice itself."""


class Parameters(TypedDict):
    """``language``: of recordings that name none. ``statement``: the spoken consent, which is no recording."""

    language: str
    statement: str | None


def work(job: Job[ValidateSettings, Inputs, Parameters]) -> ClipReport:
    """The stage: `voices/<voice>` -> `clips/*.flac`, `clip_report.json`, `junit.xml`, `report.md`, `report.html`."""
    settings, language, statement = job.settings, job.parameters["language"], job.parameters["statement"]
    left_out = frozenset([statement] if statement else [])
    folder = list_recordings(job.voice_folder, language, leave_out=left_out, needs_texts=True)
    answers = remembered(job.machine.answers)
    terms = Terms(settings, load_tools(settings, job.machine.cache, answers), job.voice, language)
    writer = ReportWriter(job.folder)
    report = validate_folder(folder, terms, writer, reporter=job.reporter, is_stopping=job.is_stopping)
    answers.save()
    return report
