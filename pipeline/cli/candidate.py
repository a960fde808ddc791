"""A voice that was trained here and is not published: who it is, why it is silent, and how it can be heard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.cli.line import Line
    from pipeline.errors import UsageError
    from pipeline.io.registry import Registry
    from pipeline.io.speakers import Speaker
    from pipeline.records.quality import QualityReport


def find_candidate(voice: str, flags: Mapping[str, Any], registry: Registry) -> tuple[Speaker, str]:
    """The adapter that was trained here for the present version of a voice folder, and what to know about it.

    Where nothing was trained here, the registry's candidate that waits for review.

    Raises:
        UsageError: there is neither.
    """
    from pipeline.errors import UsageError
    from pipeline.io.speakers import published_speaker

    line = _find_line(voice, flags)
    found = _trained_here(line) if line else None
    if found is not None:
        return found
    pointer = registry.pointer(voice, "candidate")
    if pointer is not None and pointer.version is not None:
        return published_speaker(registry, voice, "candidate"), "waits for review: for listening, not for use"
    version = f" of version {line.version}" if line else ""
    place = f"in {line.store.root}" if line else f"here, and {registry.url} has no candidate"
    raise UsageError(
        f"{voice}: nothing trained{version} {place}",
        hint=f"voxline run {voice} --until evaluate" if line else "run it in the repository that trained the voice",
    )


def _trained_here(line: Line) -> tuple[Speaker, str] | None:
    from pipeline.io.speakers import Speaker
    from pipeline.records.adapter import ADAPTER_FOLDER
    from pipeline.records.reference import REFERENCE_FOLDER

    outcomes = line.find_until("evaluate")
    if "evaluate" not in outcomes:  # the clip to be prompted with comes from there
        return None
    for name in ("finetune", "evaluate"):
        outcomes[name].check()
    speaker = Speaker(
        voice=line.voice.name,
        version=line.version,
        language=line.voice.manifest.language,
        base=line.base.name,
        base_digest=line.base.digest,
        consent=line.voice.manifest.consent,
        adapter=outcomes["finetune"].folder / ADAPTER_FOLDER,
        reference=outcomes["evaluate"].folder / REFERENCE_FOLDER,
        is_published=False,
    )
    return speaker, f"{_standing(line, outcomes['evaluate'].record)}: for listening, not for use"


def _standing(line: Line, report: QualityReport) -> str:
    if not report.passed:
        return f"blocked by the gate ({'; '.join(report.reasons)})"
    candidate = line.registry.pointer(line.voice.name, "candidate")
    if candidate is not None and candidate.version == line.version:
        return "waits for review"
    return "trained here, passed its gate, spoken without the registry"


def why_silent(error: UsageError, voice: str, flags: Mapping[str, Any], registry: Registry) -> UsageError:
    """Why nothing of this voice is on production, and the next step that leads somewhere."""
    from pipeline.errors import UsageError

    candidate = registry.pointer(voice, "candidate")
    if candidate is not None and candidate.version is not None:
        hint = f'voxline say {voice} "TEXT" --channel candidate, or voxline registry promote {voice}'
        return UsageError(f"{error.message}; {candidate.version} waits for review", hint=hint)
    line = _find_line(voice, flags)
    if line is None:
        known = ", ".join(registry.voices()[:10])
        hint = f"published there: {known}" if known else "name the registry it was published in with --registry"
        return UsageError(error.message, hint=hint)
    evaluated = line.find_until("evaluate").get("evaluate")
    if evaluated is not None and not evaluated.record.passed:
        told = f"{voice} {line.version} was blocked by the gate: {'; '.join(evaluated.record.reasons)}"
        return UsageError(told, hint=f'voxline say {voice} "TEXT" --candidate speaks it all the same')
    refusal = registry.refusals().get(voice)
    if refusal is not None and refusal.version == line.version:
        hint = f"voxline validate {voice}" if refusal.exit_code == 10 else f"voxline evaluate {voice}"
        return UsageError(f"{voice} {line.version} was refused on {refusal.at:%Y-%m-%d}: {refusal.reason}", hint=hint)
    return error


def _find_line(voice: str, flags: Mapping[str, Any]) -> Line | None:
    """The voice's folder with its settings; None where there is no such folder, or it cannot be used."""
    from pipeline.cli.common import ConsoleReporter, repository_root, resolve_settings
    from pipeline.cli.line import open_line
    from pipeline.io.voices import MANIFEST_FILE

    if not (repository_root() / resolve_settings(flags).settings.voxline.voices / voice / MANIFEST_FILE).is_file():
        return None
    return open_line(voice, flags, ConsoleReporter(quiet=True))
