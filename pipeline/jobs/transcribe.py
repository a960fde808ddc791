"""Writes down what recordings without a text seem to say, for a person to review: nothing of it is trained on before.

Lines of ``metadata.csv`` that nobody has reviewed carry ``no`` in its column ``reviewed`` and count as lines without a
text; lines that were there keep theirs.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from models.judges.whisper import LANGUAGES, LONGEST_S, SAMPLE_RATE_HZ, Whisper
from pipeline.errors import SettingsError
from pipeline.io.artifacts.ears import EARS, ear_digests, ear_folder
from pipeline.io.audio import AudioLimits, resample
from pipeline.io.metadata import NO_TEXT, UNREVIEWED, Metadata, read_metadata
from pipeline.io.recordings import Folder, list_recordings, read_recording
from pipeline.io.voice_writer import write_reviewed_table
from pipeline.io.voices import METADATA_FILE
from pipeline.records.clip import Clip
from pipeline.records.job import Reporter

HEARD_AT_ONCE = 2  # recordings


def transcribe(
    path: Path, language: str | None, leave_out: frozenset[str], limits: AudioLimits, cache: Path, reporter: Reporter
) -> int:
    """Hear the recordings of a folder that have no text and write their lines into its metadata.csv.

    Args:
        leave_out: files that are no recordings, such as the spoken consent.

    Returns:
        how many lines were written; 0: all recordings have one, and the table was left alone.

    Raises:
        SettingsError: there is no Whisper, it does not know the language, or the table has other faults.
    """
    table = read_metadata(path / METADATA_FILE, language) if (path / METADATA_FILE).is_file() else Metadata((), ())
    faults = [one for one in table.problems if one.severity == "reject" and one.detail not in (NO_TEXT, UNREVIEWED)]
    if faults:
        hint = "mend it first: this command writes the table again"
        raise SettingsError(f"{path / METADATA_FILE}:{faults[0].line}: {faults[0].detail}", hint=hint)
    folder = list_recordings(path, language, leave_out=leave_out)
    waiting = {clip.file_name for clip in table.unreviewed}
    missing = [clip for clip in folder.clips if clip.text is None and clip.file_name not in waiting]
    if not missing:
        return 0
    heard = hear(folder, missing, limits, _whisper(cache, missing), reporter)
    rows = [(clip, True) for clip in table.rows] + [(clip, False) for clip in (*table.unreviewed, *heard)]
    write_reviewed_table(path / METADATA_FILE, sorted(rows, key=lambda row: row[0].file_name))
    return len(heard)


def _whisper(cache: Path, clips: Iterable[Clip]) -> Whisper:
    unknown = sorted({clip.language for clip in clips} - set(LANGUAGES))
    if unknown:
        raise SettingsError(
            f"language {unknown[0]!r}: Whisper is asked for {', '.join(LANGUAGES)}", hint="write these texts yourself"
        )
    if "words" not in ear_digests(cache):
        hint = f"voxline artifacts pull {EARS['words']}; pip install 'voxline[ears]' where voxline doctor names it"
        raise SettingsError("there is no Whisper here to hear the words", hint=hint)
    return Whisper(ear_folder(cache, "words"), HEARD_AT_ONCE)


def hear(folder: Folder, clips: list[Clip], limits: AudioLimits, whisper: Whisper, reporter: Reporter) -> list[Clip]:
    """The clips with what is heard as their text; empty where nobody speaks, or where it cannot be read or is long."""

    def one(clip: Clip) -> Clip:
        _, audio = read_recording(folder, clip, limits)
        if audio is None or audio.duration_s > LONGEST_S:
            reporter.log(
                f"{clip.file_name}: cannot be read, or is longer than {LONGEST_S:.0f} s: write its text yourself"
            )
            return clip.model_copy(update={"text": ""})
        samples = resample(audio.mono, audio.sample_rate_hz, SAMPLE_RATE_HZ)
        return clip.model_copy(update={"text": whisper.hear(samples, clip.language).text})

    with ThreadPoolExecutor(HEARD_AT_ONCE) as pool:
        return list(reporter.track(pool.map(one, clips), description="transcribe", total=len(clips)))
