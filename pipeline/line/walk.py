"""The walk through the table for one voice: every stage that is still to be done, and what comes of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pipeline.errors import Interrupted, PipelineError
from pipeline.io.files import explain
from pipeline.io.git import find_repository
from pipeline.io.provenance import find_mover
from pipeline.io.store import DamagedResult
from pipeline.line import table
from pipeline.line.run_stage import Outcome
from pipeline.line.verdict import judge, recording_refusal, review_pending
from pipeline.line.workspace import Workspace
from pipeline.records.release import CHANNELS, Release
from pipeline.stages.plan import FoundVoice, decide

Made = TypeVar("Made")

# Which exit code speaks for a run of several voices: what a person must mend comes before what another try may mend.
SEVERITY = (130, 1, 3, 2, 13, 10, 11, 20, 75, 12, 0)


@dataclass(frozen=True)
class StageLine:
    """One stage of one voice, as the summary shows it."""

    stage: str
    duration_s: float
    was_cached: bool


@dataclass
class VoiceRun:
    """What became of one voice.

    Attributes:
        status: published, republished, unchanged, superseded (a later commit was faster), done (stopped at --until), or
            the title of an error.
        channel: the one that serves the version now; none when nothing does.
        report: the quality report, where there is one.
    """

    voice: str
    version: str = ""
    status: str = ""
    exit_code: int = 0
    message: str = ""
    hint: str = ""
    channel: str = ""
    report: str = ""
    stages: list[StageLine] = field(default_factory=list)

    def fail(self, error: PipelineError) -> None:
        self.status, self.exit_code, self.message, self.hint = error.title, error.exit_code, error.message, error.hint


def worst_exit_code(runs: list[VoiceRun]) -> int:
    """The exit code that speaks for all."""
    return min((run.exit_code for run in runs), key=SEVERITY.index, default=0)


def run_voice(name: str, open_workspace: Callable[[], Workspace], until: str) -> VoiceRun:
    """Walk the line for one voice. Every expected failure is an outcome; Ctrl-C is not."""
    run = VoiceRun(voice=Path(name).name)
    try:
        workspace = open_workspace()
        run.voice, run.version = workspace.voice.name, workspace.version
        if table.STAGES[until].writes:
            walk(workspace, run)
        else:
            run_until(workspace, until, run)
            run.status = "done"
    except Interrupted:
        raise
    except PipelineError as error:
        run.fail(error)
    except OSError as error:
        told = explain(error)
        if told is None:
            raise
        run.fail(told)
    return run


def run_until(workspace: Workspace, last: str, run: VoiceRun | None = None) -> dict[str, Outcome]:
    """Run the stored stages up to ``last``, each only if it was not done before.

    Raises:
        VoiceRefused, GateBlocked: the report says no; it is kept and can be looked at.
    """
    return _mending(workspace, lambda: _run_stages(workspace, last, run))


def find_until(workspace: Workspace, last: str) -> dict[str, Outcome]:
    """What earlier runs of the present version left, up to ``last`` or the first stage that was not done."""
    outcomes: dict[str, Outcome] = {}
    for stage in table.until(last):
        found = workspace.find(stage, outcomes)
        if found is None:
            break
        outcomes[stage.name] = found
    return outcomes


def walk(workspace: Workspace, run: VoiceRun) -> None:
    """Do what the plan says for this version: nothing, put it back on its channel, or train and publish it.

    Raises:
        ReviewPending: the version waits on the candidate channel for a person.
    """
    name, version, channel = workspace.voice.name, workspace.version, workspace.channel
    found = FoundVoice(name, version, needs_review=channel == "candidate")
    states = workspace.registry.states()
    entry = decide({name: found}, {}, states)[0]
    run.channel = channel
    if entry.action == "skip":
        run.status, run.message, run.channel = "unchanged", entry.reason, _present_channel(workspace)
        is_reviewed = name in states and states[name].is_reviewed
        channel = "candidate" if is_reviewed else channel
    elif _is_superseded(workspace):
        run.status, run.message = "superseded", f"{channel} holds the work of a later commit"
        return
    elif entry.action == "republish" and (release := _republish(workspace, entry.reason)):
        run.status, run.message = "republished", entry.reason
        channel = run.channel = release.channel(channel)
    else:
        _mending(workspace, lambda: _train_and_publish(workspace, run))
    if channel == run.channel == "candidate":
        pointer = workspace.registry.pointer(name, "candidate")
        raise review_pending(name, version, pointer.why_published if pointer else "")


def _mending(workspace: Workspace, attempt: Callable[[], Made]) -> Made:
    """Make a stage again whose files are not what it left: a cache cut short, or somebody else's.

    Raises:
        DamagedResult: it happens again and again.
    """
    for _ in table.STAGES:
        try:
            return attempt()
        except DamagedResult as damaged:
            workspace.reporter.log(f"{workspace.voice.name}: warning: {damaged.message}; made again")
            workspace.store.discard(damaged)
    return attempt()


def _run_stages(workspace: Workspace, last: str, run: VoiceRun | None) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    if run is not None:
        run.stages.clear()
    for stage in table.until(last):
        _run_next(workspace, stage, outcomes, run)
    return outcomes


def _run_next(workspace: Workspace, stage: table.Stage, outcomes: dict[str, Outcome], run: VoiceRun | None) -> None:
    clock = time.perf_counter()
    outcome = outcomes[stage.name] = workspace.run(stage, outcomes)
    if run is not None:
        run.stages.append(StageLine(stage.name, round(time.perf_counter() - clock, 2), outcome.was_cached))
        if stage.is_verdict:
            run.report = str(outcome.page)
        if stage.writes:
            run.status, run.channel = "published", outcome.record.channel(workspace.channel)
    judge(workspace, stage, outcome)


def _train_and_publish(workspace: Workspace, run: VoiceRun) -> None:
    with recording_refusal(workspace):
        outcomes = _run_stages(workspace, table.stored()[-1].name, run)
    _run_next(workspace, table.last(), outcomes, run)


def _republish(workspace: Workspace, reason: str) -> Release | None:
    """Put what the registry holds back on its channel; None where it holds no more than a folder of that name."""
    mover = find_mover(workspace.root, os.environ, reason)
    name, version, channel = workspace.voice.name, workspace.version, workspace.channel
    release = workspace.registry.republish(name, version, channel=channel, mover=mover)
    if release is None:
        told = f"{name}: warning: {workspace.registry.url} holds {version} without release.json; made again"
        workspace.reporter.log(told)
    return release


def _present_channel(workspace: Workspace) -> str:
    """The channel that serves this version, production before candidate; none when a person took it off."""
    for channel in reversed(CHANNELS):
        pointer = workspace.registry.pointer(workspace.voice.name, channel)
        if pointer is not None and pointer.version == workspace.version:
            return channel
    return ""


def _is_superseded(workspace: Workspace) -> bool:
    """Whether a pipeline of a later commit was faster than this one: an old voice must not come back by itself."""
    pointer = workspace.registry.pointer(workspace.voice.name, workspace.channel)
    repository = find_repository(workspace.root)
    here = repository.commit("HEAD") if repository else None
    if repository is None or here is None or pointer is None or pointer.event.git_revision in ("", here):
        return False
    return repository.is_ancestor(here, pointer.event.git_revision)
