"""A voice that was trained here and is not published: who it is, why it is silent, and how it can be heard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.errors import UsageError
    from pipeline.io.registry.registry import Registry
    from pipeline.io.speakers import Speaker
    from pipeline.line.workspace import Workspace
    from pipeline.records.quality import QualityReport

ELSEWHERE = "run it in the repository that trained the voice"


def find_candidate(voice: str, flags: Mapping[str, Any], registry: Registry) -> tuple[Speaker, str]:
    """The adapter that was trained here for the present version of a voice folder, and what to know about it.

    Where nothing was trained here, the registry's candidate that waits for review.

    Raises:
        UsageError: there is neither.
    """
    from pipeline.errors import UsageError
    from pipeline.io.speakers import published_speaker

    workspace = _find_workspace(voice, flags)
    found = _trained_here(workspace) if workspace else None
    if found is not None:
        return found
    pointer = registry.pointer(voice, "candidate")
    if pointer is not None and pointer.version is not None:
        return published_speaker(registry, voice, "candidate"), "waits for review: for listening, not for use"
    version = f" of version {workspace.version}" if workspace else ""
    place = f"in {workspace.store.root}" if workspace else f"here, and {registry.url} has no candidate"
    raise UsageError(
        f"{voice}: nothing trained{version} {place}",
        hint=f"voxline run {voice} --until evaluate" if workspace else ELSEWHERE,
    )


def _trained_here(workspace: Workspace) -> tuple[Speaker, str] | None:
    from pipeline.io.speakers import Speaker
    from pipeline.line.run_stage import voxline_version
    from pipeline.line.walk import find_until
    from pipeline.records.adapter import ADAPTER_FOLDER
    from pipeline.records.reference import REFERENCE_FOLDER

    outcomes = find_until(workspace, "evaluate")
    if "evaluate" not in outcomes:  # the clip to be prompted with comes from there
        return None
    trained, evaluated = outcomes["finetune"], outcomes["evaluate"]
    for outcome in (trained, evaluated):
        outcome.check()
    speaker = Speaker(
        voice=workspace.voice.name,
        version=workspace.version,
        language=workspace.voice.manifest.language,
        base=workspace.base.name,
        base_digest=workspace.base.digest,
        voxline_version=voxline_version(),
        consent=workspace.voice.manifest.consent,
        adapter=trained.folder / ADAPTER_FOLDER,
        reference=evaluated.folder / REFERENCE_FOLDER,
        is_published=False,
    )
    return speaker, f"{_standing(workspace, evaluated.record)}: for listening, not for use"


def _standing(workspace: Workspace, report: QualityReport) -> str:
    if not report.passed:
        return f"blocked by the gate ({'; '.join(report.reasons)})"
    candidate = workspace.registry.pointer(workspace.voice.name, "candidate")
    if candidate is not None and candidate.version == workspace.version:
        return "waits for review"
    return "trained here, passed its gate, spoken without the registry"


def why_silent(error: UsageError, voice: str, flags: Mapping[str, Any], registry: Registry) -> UsageError:
    """Why nothing of this voice is on production, and the next step that leads somewhere."""
    from pipeline.errors import UsageError
    from pipeline.line import table
    from pipeline.line.walk import find_until

    candidate = registry.pointer(voice, "candidate")
    if candidate is not None and candidate.version is not None:
        hint = f'voxline say {voice} "TEXT" --channel candidate, or voxline registry promote {voice}'
        return UsageError(f"{error.message}; {candidate.version} waits for review", hint=hint)
    workspace = _find_workspace(voice, flags)
    if workspace is None:
        known = ", ".join(registry.voices()[:10])
        hint = f"published there: {known}" if known else "name the registry it was published in with --registry"
        return UsageError(error.message, hint=hint)
    evaluated = find_until(workspace, "evaluate").get("evaluate")
    if evaluated is not None and not evaluated.record.passed:
        told = f"{voice} {workspace.version} was blocked by the gate: {'; '.join(evaluated.record.reasons)}"
        return UsageError(told, hint=f'voxline say {voice} "TEXT" --candidate speaks it all the same')
    refusal = registry.refusals().get(voice)
    if refusal is not None and refusal.version == workspace.version:
        hint = f"voxline {table.refusing(refusal.exit_code).name} {voice}"
        return UsageError(
            f"{voice} {workspace.version} was refused on {refusal.at:%Y-%m-%d}: {refusal.reason}", hint=hint
        )
    return error


def _find_workspace(voice: str, flags: Mapping[str, Any]) -> Workspace | None:
    """The voice's folder with its settings; None where there is no such folder, or it cannot be used."""
    from pipeline.cli.common import ConsoleReporter, repository_root, resolve_settings
    from pipeline.cli.line import open_workspace
    from pipeline.io.voices import MANIFEST_FILE

    if not (repository_root() / resolve_settings(flags).settings.voxline.voices / voice / MANIFEST_FILE).is_file():
        return None
    return open_workspace(voice, flags, ConsoleReporter(quiet=True))
