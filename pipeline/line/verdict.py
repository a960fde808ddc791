"""The verdict on a voice: what a report that says no is told as, who hears of it, and the note in the registry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from pipeline.errors import GateBlocked, ReviewPending, SettingsError, TransientError, VoiceRefused
from pipeline.io.ci import address_of
from pipeline.io.provenance import find_mover
from pipeline.line import table
from pipeline.line.run_stage import Outcome, judging_code
from pipeline.line.served import compared_again
from pipeline.line.workspace import Workspace
from pipeline.records.clip_report import ClipReport
from pipeline.records.job import Reporter
from pipeline.records.quality import QualityReport
from pipeline.records.release import Refusal, Release, judges_digest
from pipeline.records.settings import NotifySettings


def judge(workspace: Workspace, stage: table.Stage, outcome: Outcome) -> None:
    """Let the stage's own report speak. Raises the error with the exit code that the table names."""
    if stage.is_verdict and outcome.was_cached:
        record = compared_again(outcome.record, workspace.registry, workspace.reporter)
        outcome = replace(outcome, record=record)
    if stage.notice and not outcome.was_cached:
        table.load(stage.notice)(workspace, outcome)
    if stage.verdict:
        table.load(stage.verdict)(workspace.voice.name, outcome)


def refuse_recordings(voice: str, outcome: Outcome) -> None:
    """Raises VoiceRefused where the report on the recordings says no."""
    record: ClipReport = outcome.record
    if record.accepted:
        return
    found = f"{record.speech_usable_s:.1f} s of good speech found, {record.speech_needed_s:.0f} s needed"
    details = [finding.detail or finding.code for finding in record.findings if finding.severity == "reject"]
    told = [detail for detail in dict.fromkeys(details) if detail != found]
    first = [] if record.lacks_texts_only else [found]
    raise VoiceRefused(f"{voice}: {'; '.join([*first, *told])}", hint=f"voxline validate {voice} lists every finding")


def block_voice(voice: str, outcome: Outcome) -> None:
    """Raises GateBlocked where the quality report says no."""
    record: QualityReport = outcome.record
    if record.passed:
        return
    page = address_of(outcome.page, os.environ)
    hint = f'{what_helps(record)}; listen: voxline say {voice} "TEXT" --candidate; look: {page}'
    raise GateBlocked(f"{voice}: {'; '.join(record.reasons)}", hint=hint)


def wait_for_review(voice: str, outcome: Outcome) -> None:
    """Raises ReviewPending where the release went to the channel on which a person hears it first."""
    record: Release = outcome.record
    if record.channel(outcome.result.settings["parameters"]["channel"]) == "candidate":
        raise review_pending(voice, record.version)


def review_pending(voice: str, version: str, why: str = "") -> ReviewPending:
    told = f": {why}" if why else ""
    return ReviewPending(
        f"{voice} {version} is on channel candidate{told}", hint=f"listen to it, then: voxline registry promote {voice}"
    )


def what_helps(report: QualityReport) -> str:
    """The advice for the first check that blocks this voice."""
    told = [check.advice for check in report.checks if check.blocks and check.advice]
    return told[0] if told else "see the report"


def tell_of_recordings(workspace: Workspace, outcome: Outcome) -> None:
    """The notice of a report on recordings."""
    tell_refused(outcome.record, workspace.settings.notify, workspace.reporter, is_untrusted=workspace.is_untrusted)


def tell_refused(report: ClipReport, settings: NotifySettings, reporter: Reporter, *, is_untrusted: bool) -> None:
    """Tell whoever asked to be told that a voice was refused. Nothing that happens here changes the verdict."""
    from pipeline.io.notify import notify_refused  # numpy and pictures: not where everything is done already

    if is_untrusted and settings.command:
        reporter.log("notify.command is not run with a stranger's files: what it starts may lie among them")
        settings = settings.model_copy(update={"command": ()})
    notify_refused(report, settings, os.environ, reporter.log)


@contextmanager
def recording_refusal(workspace: Workspace, *, wanted: bool = True) -> Iterator[None]:
    """Note in the registry that this version was refused, so that the next plan does not try the same again."""
    try:
        yield
    except (VoiceRefused, GateBlocked) as error:
        if wanted:
            record_refusal(workspace, error)
        raise


def record_refusal(workspace: Workspace, error: VoiceRefused | GateBlocked) -> None:
    """Whatever happens here, the verdict stays: without the note the next plan only tries again."""
    mover = find_mover(workspace.root, os.environ, error.message)
    refusal = Refusal(
        voice=workspace.voice.name,
        version=workspace.version,
        judges=judges_digest(workspace.settings, judging_code()),
        exit_code=error.exit_code,
        reason=mover.reason.removeprefix(f"{workspace.voice.name}: "),
        at=datetime.now(UTC),
        actor=mover.actor,
        git_revision=mover.git_revision,
        pipeline=mover.pipeline,
    )
    try:
        workspace.registry.refuse(refusal)
    except (SettingsError, TransientError) as failure:
        workspace.reporter.log(f"the refusal could not be noted in {workspace.registry.url}: {failure.message}")
