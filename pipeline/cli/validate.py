"""voxline validate"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.common import (
    BaseOption,
    JsonOption,
    RecordOption,
    RegistryOption,
    UntrustedOption,
    VoiceArgument,
    WorkOption,
)
from pipeline.cli.terminal import print_json, tell

if TYPE_CHECKING:
    from pipeline.records.clip_report import ClipReport


SHOWN_NAMES = 3


def register(app: typer.Typer) -> None:
    app.command("validate", rich_help_panel="The line")(validate)


def validate(
    voice: VoiceArgument,
    language: Annotated[
        str | None,
        typer.Option(help="Language of a folder without voice.yaml: zh, en, ja, ko, yue.", show_default=False),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write report.html, report.md, junit.xml and the clips here.", show_default=False),
    ] = None,
    denoise_weights: Annotated[
        str | None, typer.Option(help="Folder with DeepFilterNet weights.", show_default=False)
    ] = None,
    write_metadata: Annotated[
        bool,
        typer.Option(
            "--write-metadata", help="Write a metadata.csv that names the recordings, to fill in their texts."
        ),
    ] = False,
    copies: Annotated[
        bool,
        typer.Option("--copies", help="Also let the voice's base draw three recordings: advice, which blocks nothing."),
    ] = False,
    base: BaseOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse what could not be measured.")] = False,
    record: RecordOption = False,
    registry: RegistryOption = None,
    work: WorkOption = None,
    untrusted: UntrustedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Judge the recordings of a voice before anything is trained on them, and say what to record again.

    Takes a voice, or any folder with audio and, if it has one, a metadata.csv. Originals are never changed.

        voxline validate sample
        voxline validate recordings/ --language en --json
        voxline validate ana --report out/
        voxline validate ana --write-metadata
        voxline validate ana --copies --base nano2
    """
    from pipeline.cli.common import ConsoleReporter, is_untrusted_here, require_trusted, resolve_settings
    from pipeline.errors import UsageError, VoiceRefused
    from pipeline.io.ci import summarise
    from pipeline.io.validation_report import headline, render_markdown
    from pipeline.line.verdict import tell_refused

    if record:
        require_trusted("validate --record", "leave --record out: the registry belongs to the protected branch")
    if base is not None and not copies:
        raise UsageError("--base: the same recordings are judged for every base", hint="with --copies it draws them")
    if write_metadata:
        _write_metadata(voice, language)
        return
    flags = {
        "voxline.work": work,
        "voxline.registry": registry,
        "validate.denoise_weights": denoise_weights,
        "validate.strict": True if strict else None,
    }
    found, folder = _run(voice, language, report, flags, record=record, quiet=as_json)
    summarise(render_markdown(found), os.environ)
    if as_json:
        print_json(found)
    else:
        for line in _lines(found, folder):
            tell(line)
    if not found.accepted:
        settings = resolve_settings(flags).settings.notify
        tell_refused(found, settings, ConsoleReporter(), is_untrusted=is_untrusted_here())
        hint = "record again what the report names"
        if found.lacks_texts_only:
            hint = f"voxline validate {voice} --write-metadata writes the lines to fill in, where there are none"
        raise VoiceRefused(f"{found.voice}: {headline(found)}", hint=hint)
    if copies:
        _tell_copies(voice, {**flags, "voxline.base": base})


def _tell_copies(voice: str, flags: dict[str, Any]) -> None:
    """How well the base draws the recordings: what training will not change, said before it."""
    from pipeline.cli.common import ConsoleReporter
    from pipeline.cli.line import open_workspace
    from pipeline.jobs.copies import judge_copies
    from pipeline.line.walk import run_until

    workspace = open_workspace(voice, flags, ConsoleReporter())
    done = run_until(workspace, "extract")
    extract, clips = done["extract"].as_input(), done["validate"].folder
    found = judge_copies(workspace.voice.name, workspace.base, extract, clips, workspace.machine)
    for line in found.lines:
        workspace.reporter.log(f"{found.voice}: {line}")


def _run(
    voice: str, language: str | None, report: Path | None, flags: dict[str, Any], *, record: bool, quiet: bool
) -> tuple[ClipReport, Path | None]:
    """The report, and the folder with its files: the stage's, the one asked for, or none."""
    from pipeline.cli.common import ConsoleReporter
    from pipeline.cli.voices import find_voice_folder, is_among_voices
    from pipeline.errors import UsageError, VoiceRefused
    from pipeline.io.validation_report import headline
    from pipeline.io.voices import MANIFEST_FILE

    reporter = ConsoleReporter(quiet=quiet)
    folder = find_voice_folder(voice)
    is_voice = (folder / MANIFEST_FILE).exists() or is_among_voices(folder)
    if is_voice and language is not None:
        raise UsageError(
            f"--language {language}: the language of a voice stands in its {MANIFEST_FILE}",
            hint="leave --language out; it is for a folder of recordings that is not a voice yet",
        )
    if not is_voice:
        return _bare_folder(folder, language, report, flags, reporter), report
    from pipeline.cli.line import open_workspace
    from pipeline.line import table
    from pipeline.line.verdict import record_refusal

    workspace = open_workspace(voice, flags, reporter)
    outcome = workspace.run(table.first(), {})
    if record and not outcome.record.accepted:
        record_refusal(workspace, VoiceRefused(headline(outcome.record)))
    if report is not None:
        _copy(outcome.folder, report)
    return outcome.record, report or outcome.folder


def _bare_folder(
    folder: Path, language: str | None, report: Path | None, flags: dict[str, Any], reporter: Any
) -> ClipReport:
    """Judge a folder that is not a voice yet; its files go to `report`, or nowhere."""
    import tempfile

    from pipeline.cli.common import resolve_settings
    from pipeline.io.recordings import list_recordings
    from pipeline.io.validation_report import ReportWriter
    from pipeline.stages.validate.stage import validate_folder
    from pipeline.stages.validate.tools import Terms, load_tools

    settings = resolve_settings(flags).settings
    recordings = list_recordings(folder, language)
    tools = load_tools(settings.validate_, settings.voxline.cache_folder)
    terms = Terms(settings.validate_, tools, folder.name, language)
    with tempfile.TemporaryDirectory(prefix="voxline-") as scratch:
        target = report or Path(scratch)
        target.mkdir(parents=True, exist_ok=True)
        writer = ReportWriter(target, with_page=report is not None)
        return validate_folder(recordings, terms, writer, reporter=reporter)


def _write_metadata(voice: str, language: str | None) -> None:
    """Name every recording in a metadata.csv; what is said in them is for a person to write."""
    from pipeline.cli.terminal import tell
    from pipeline.cli.voices import find_voice_folder
    from pipeline.errors import UsageError
    from pipeline.io.recordings import list_recordings
    from pipeline.io.voice_writer import write_table
    from pipeline.io.voices import MANIFEST_FILE, load_voice

    folder = find_voice_folder(voice)
    left_out = frozenset[str]()
    if (folder / MANIFEST_FILE).exists():
        manifest = load_voice(folder).manifest
        language, left_out = manifest.language, frozenset(filter(None, [manifest.consent.statement]))
    recordings = list_recordings(folder, language, leave_out=left_out).clips
    if not recordings:
        raise UsageError(f"{folder}: holds no recordings", hint="put them into its folder wavs/")
    path = write_table(folder, [clip.file_name for clip in recordings], recordings[0].language)
    tell(f"{path}: {len(recordings)} lines; write what is said into the column 'text', then: voxline validate {voice}")


def _copy(source: Path, target: Path) -> None:
    from pipeline.io.files import write_atomically

    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        write_atomically(target / path.relative_to(source), path.read_bytes())


def _lines(found: ClipReport, folder: Path | None) -> list[str]:
    """What a person reads: the decision, what to do, and what was found where."""
    from pipeline.io.ci import address_of
    from pipeline.io.validation_report import headline, plain_words, told

    lines = [f"{found.voice}: {headline(found)}", *(f"  {line}" for line in plain_words(found))]
    lines += [f"  {finding.severity:<7} {told(finding)}" for finding in found.findings]
    lines += _by_finding(found)
    lines += [f"  not measured: {what}: {why}" for what, why in found.not_measured.items()]
    if folder is not None:
        lines.append(f"  report: {address_of(folder / 'report.html', os.environ)}")
    return lines


def _by_finding(found: ClipReport) -> list[str]:
    """A line for each thing that was found, with its recordings: the report has them one by one."""
    from pipeline.io.validation_report import SEVERITIES, told

    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for result in found.clips:
        for finding in result.findings:
            place = groups.setdefault((finding.severity, finding.code), [])
            place.append((result.clip.file_name, told(finding)))
    lines = []
    for (severity, code), places in sorted(groups.items(), key=lambda group: SEVERITIES.index(group[0][0])):
        names = list(dict.fromkeys(name for name, _ in places))
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        what = places[0][1] if len(names) == 1 else f"{code} in {len(names)} recordings"
        lines.append(f"  {severity:<7} {what}: {', '.join(names[:SHOWN_NAMES])}{more}")
    return lines
