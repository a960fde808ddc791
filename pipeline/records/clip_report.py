"""What validation found: per clip and for the voice, in codes, numbers, limits and advice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from pipeline.records.base import Record
from pipeline.records.clip import Clip, PreparedClip

Severity = Literal["reject", "repair", "warn"]
TEXTS_MISSING = "texts_missing"  # the code of good recordings that only lack their texts
Verdict = Literal["pass", "warn", "repair", "reject"]
SEVERITIES: tuple[Severity, ...] = ("reject", "repair", "warn")


class Finding(Record):
    """One thing that is wrong, was mended or deserves a look.

    Attributes:
        code: stable name for scripts, explained in docs/validation.md.
        value, limit, unit: the number behind it, where there is one.
        detail: what was found, in a short English sentence.
    """

    code: str
    severity: Severity
    detail: str = ""
    value: float | None = None
    limit: float | None = None
    unit: str = ""


def verdict_of(findings: Iterable[Finding]) -> Verdict:
    """The severest finding, or `pass`."""
    found = {finding.severity for finding in findings}
    return next((severity for severity in SEVERITIES if severity in found), "pass")


def rejects(findings: Iterable[Finding]) -> bool:
    """Whether anything found keeps a recording, or a folder, from being used."""
    return any(finding.severity == "reject" for finding in findings)


class Repair(Record):
    """Something that was changed on the way to training; the original file is as it was."""

    code: str
    before: str
    after: str


class Span(Record):
    """Part of a recording."""

    start_s: float
    end_s: float


class Measures(Record):
    """The numbers of one recording. None: not measured. docs/notes/validation.md explains each.

    Levels are as recorded, in dB relative to full scale.
    """

    duration_s: float | None = None
    sample_rate_hz: int | None = None
    channels: int | None = None
    container: str | None = None
    subtype: str | None = None
    speech_s: float | None = None
    speech_share: float | None = None
    silero_share: float | None = None
    peak_dbfs: float | None = None
    true_peak_dbfs: float | None = None
    speech_dbfs: float | None = None
    dc_offset: float | None = None
    clipped_share: float | None = None
    clipped_events: int | None = None
    bandwidth_hz: float | None = None
    snr_db: float | None = None
    range_snr_db: float | None = None
    noise_dbfs: float | None = None
    hum_db: float | None = None
    hum_hz: int | None = None
    rt60_s: float | None = None
    dropouts: int | None = None
    voiced_share: float | None = None
    pitch_hz: float | None = None
    syllables: int | None = None
    phones_per_s: float | None = None
    phone_error: float | None = None
    word_error: float | None = None
    dnsmos_sig: float | None = None
    dnsmos_bak: float | None = None
    dnsmos_ovr: float | None = None
    speaker_similarity: float | None = None
    within_similarity: float | None = None
    gain_db: float | None = None
    limited_db: float | None = None


class ClipResult(Record):
    """One recording, judged.

    Attributes:
        verdict: the severest finding; `repair` means usable after what `repairs` lists.
        prepared: what goes on to training: nothing, the recording, or its slices.
    """

    clip: Clip
    verdict: Verdict
    sha256: str | None = None
    findings: tuple[Finding, ...] = ()
    repairs: tuple[Repair, ...] = ()
    measures: Measures = Measures()
    speech: tuple[Span, ...] = ()
    prepared: tuple[PreparedClip, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        """The codes of what it was rejected, repaired or warned for."""
        return tuple(dict.fromkeys(finding.code for finding in self.findings))


class ClipReport(Record):
    """A voice, judged.

    Attributes:
        verdict: of the recordings, whatever their length: `reject` where nothing can be used, or where the folder as a
            whole is at fault (two speakers, a hostile metadata.csv, mismatched transcripts).
        accepted: enough good speech remains, and the recordings are not rejected.
        reasons: codes behind the verdict, severest first.
        findings: of the folder as a whole.
        speech_found_s: speech in all readable recordings; `speech_usable_s`: in the clips kept.
        not_measured: what could not be measured here, and why.
        tools: networks used, with the sha256 of their weights.
    """

    voice: str
    language: str | None
    accepted: bool
    verdict: Verdict
    reasons: tuple[str, ...]
    speech_found_s: float = Field(ge=0)
    speech_usable_s: float = Field(ge=0)
    speech_needed_s: float = Field(gt=0)
    findings: tuple[Finding, ...] = ()
    repairs: tuple[Repair, ...] = ()
    clips: tuple[ClipResult, ...] = ()
    not_measured: dict[str, str] = Field(default_factory=dict)
    tools: dict[str, str] = Field(default_factory=dict)

    @property
    def lacks_texts_only(self) -> bool:
        """Refused, but nothing has to be recorded again."""
        return any(finding.code == TEXTS_MISSING for finding in self.findings)

    @property
    def prepared(self) -> tuple[PreparedClip, ...]:
        """Everything that goes on to training, in the order of the folder."""
        return tuple(clip for result in self.clips for clip in result.prepared)
