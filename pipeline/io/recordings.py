"""A folder of recordings, read one by one: metadata and audio matched, every file opened safely, nothing kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from pipeline.errors import SettingsError
from pipeline.io.audio import Audio, AudioFileError, AudioLimits, read_audio
from pipeline.io.files import open_regular, walk_files
from pipeline.io.metadata import Metadata, Problem, read_metadata
from pipeline.io.voices import METADATA_FILE, UNCOUNTED, UNCOUNTED_HINT, find_uncounted, is_part_of_voice
from pipeline.records.clip import Clip
from pipeline.records.clip_report import ClipResult, Finding, Repair, verdict_of

MAX_FILES = 200_000
_COMPRESSED = (
    ".flac",
    ".ogg",
    ".oga",
    ".opus",
    ".mp3",
    ".m4a",
    ".m4b",
    ".mp4",
    ".3gp",
    ".aac",
    ".webm",
    ".mka",
    ".wma",
)
_PLAIN = (".wav", ".wave", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64")
_SUFFIXES = frozenset((*_COMPRESSED, *_PLAIN))
_FAULT_CODES = {
    "empty": "empty",
    "corrupt": "corrupt",
    "too_large": "too_long",
    "too_long": "too_long",
    "unsupported_format": "format",
    "unreadable": "corrupt",
    "unsafe_path": "bad_metadata",
}


@dataclass(frozen=True)
class Folder:
    """What a folder holds, before any audio is opened.

    Attributes:
        clips: in the order of metadata.csv, then files that no line names.
        uncounted: files that metadata.csv names and no digest of the folder covers; they are never opened.
        findings: of the folder; `clip_findings`: of single recordings, by file name.
        has_transcripts: there is a metadata.csv, so recordings without a text are left out.
    """

    path: Path
    clips: tuple[Clip, ...]
    findings: tuple[Finding, ...] = ()
    repairs: tuple[Repair, ...] = ()
    clip_findings: Mapping[str, tuple[Finding, ...]] = field(default_factory=dict)
    has_transcripts: bool = False
    uncounted: frozenset[str] = frozenset()


def list_recordings(
    path: Path, language: str | None, *, leave_out: frozenset[str] = frozenset(), needs_texts: bool = False
) -> Folder:
    """Match metadata.csv with the audio files of a folder.

    Args:
        language: of lines that name none, and of files without a line.
        leave_out: files that are no recordings of the voice, such as the spoken consent.
        needs_texts: a folder without a metadata.csv is one whose texts are missing, not one to be judged by its sound.

    Raises:
        SettingsError: a language is needed and none is given.
    """
    left_out = {PurePosixPath(name).as_posix() for name in leave_out}
    files = [name for name in _audio_files(path) if name not in left_out]
    source = path / METADATA_FILE
    if not _is_ordinary(source):
        needed = _language(language, None, source) if files else language or ""
        clips = tuple(Clip(file_name=name, language=needed) for name in files)
        detail = "there is no metadata.csv" if needs_texts else "there is no metadata.csv: only the sound is judged"
        finding = Finding(code="no_transcript", severity="reject" if needs_texts else "warn", detail=detail)
        return Folder(path, clips, (finding,), has_transcripts=needs_texts)
    metadata = read_metadata(source, language)
    named = {row.file_name for row in metadata.rows}
    listed = [row.model_copy(update={"language": _language(row.language, language, source)}) for row in metadata.rows]
    clip_findings, findings, repairs = _problems(metadata, set(files) - named)
    spare = [name for name in files if name not in named]
    for name in spare:
        if name not in clip_findings:
            detail = "no line of metadata.csv names it; left out"
            clip_findings[name] = (Finding(code="no_transcript", severity="warn", detail=detail),)
    fallback = language or _commonest(listed)
    extra = [Clip(file_name=name, language=fallback) for name in spare]
    folder = Folder(path, (*listed, *extra), findings, repairs, clip_findings, has_transcripts=True)
    return replace(folder, uncounted=frozenset(find_uncounted(path, named)))


def read_recording(folder: Folder, clip: Clip, limits: AudioLimits) -> tuple[ClipResult, Audio | None]:
    """What is known of a recording before anything is measured, and its sound: None where it cannot be read."""
    known = folder.clip_findings.get(clip.file_name, ())

    def refused(code: str, detail: str) -> tuple[ClipResult, None]:
        return _known(clip, (*known, Finding(code=code, severity="reject", detail=detail))), None

    path = _inside(folder.path, clip.file_name)
    if path is None:
        detail = "leads through a symbolic link" if _is_linked(folder.path, clip.file_name) else "the file is missing"
        return refused("bad_metadata", detail)
    if clip.file_name in folder.uncounted:
        return refused("bad_metadata", f"{UNCOUNTED}; {UNCOUNTED_HINT}")
    try:
        audio = read_audio(path, limits)
        return _known(clip, known, _digest(path)), audio
    except AudioFileError as error:
        return refused(_FAULT_CODES[error.fault], error.detail)


def _known(clip: Clip, findings: tuple[Finding, ...], sha256: str | None = None) -> ClipResult:
    return ClipResult(clip=clip, verdict=verdict_of(findings), sha256=sha256, findings=findings)


def _language(given: str | None, fallback: str | None, source: Path) -> str:
    language = given or fallback
    if not language:
        raise SettingsError(f"{source.parent}: the language is not known", hint="give it: --language en")
    return language.lower()[:20]


def _commonest(clips: list[Clip]) -> str:
    languages = [clip.language for clip in clips]
    return max(set(languages), key=languages.count) if languages else ""


def _problems(
    metadata: Metadata, unlisted: set[str]
) -> tuple[dict[str, tuple[Finding, ...]], tuple[Finding, ...], tuple[Repair, ...]]:
    """Problems as findings: of the recording that a bad line names, else of the folder."""
    clips: dict[str, tuple[Finding, ...]] = {}
    folder: list[Finding] = []
    repairs = []
    for problem in metadata.problems:
        finding = _as_finding(problem, metadata.is_hostile)
        if problem.severity == "repair":
            repairs.append(Repair(code=finding.code, before=problem.before, after=problem.after))
        if problem.severity == "reject" and problem.file_name in unlisted and not metadata.is_hostile:
            clips[problem.file_name] = (*clips.get(problem.file_name, ()), finding)
        else:
            folder.append(finding)
    return clips, tuple(folder), tuple(repairs)


def _as_finding(problem: Problem, is_hostile: bool) -> Finding:
    """A bad line costs its recording; only a line that points outside, or a file without lines, costs the voice."""
    is_fatal = is_hostile or problem.line in (None, 1)
    severity = (
        "warn" if problem.severity == "reject" and not is_fatal and problem.file_name is None else problem.severity
    )
    where = f"metadata.csv line {problem.line}: " if problem.line else "metadata.csv: "
    return Finding(code=problem.code, severity=severity, detail=where + problem.detail)


def _audio_files(path: Path) -> list[str]:
    """Audio files by name, from `wavs/` where there is one; hidden ones and links are no part of a voice."""
    start = PurePosixPath("wavs") if _is_ordinary(path / "wavs", folder=True) else PurePosixPath()
    found: list[PurePosixPath] = []
    for inside, _ in walk_files(path / start, is_part_of_voice):
        if inside.suffix.lower() not in _SUFFIXES:
            continue
        if not str(inside).isprintable():  # a report must be able to name it
            raise SettingsError(
                f"{path}: {str(start / inside)!a} cannot be a file's name here",
                hint="rename it with letters and digits",
            )
        found.append(start / inside)
        if len(found) > MAX_FILES:
            raise SettingsError(f"{path}: more than {MAX_FILES} recordings")
    return [str(name) for name in sorted(found, key=_order)]


def _order(path: PurePosixPath) -> tuple[object, ...]:
    """Files of a folder before the folders in it, each by name: the order in which recordings were always read."""
    return (*((True, part) for part in path.parts[:-1]), (False, path.name))


def _is_ordinary(path: Path, *, folder: bool = False) -> bool:
    return not path.is_symlink() and (path.is_dir() if folder else path.is_file())


def _inside(folder: Path, name: str) -> Path | None:
    """The file, None where it is missing or a link is on the way to it."""
    path = folder.joinpath(*PurePosixPath(name).parts)
    return None if _is_linked(folder, name) or not os.path.lexists(path) else path


def _is_linked(folder: Path, name: str) -> bool:
    path = folder
    for part in PurePosixPath(name).parts:
        path = path / part
        if path.is_symlink():
            return True
    return False


def _digest(path: Path) -> str:
    with open_regular(path, follow_links=False) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
