"""What only shows when the recordings of a voice are looked at together: speakers, copies, transcripts out of step.

Everything here works on two kilobytes per recording, so a folder of ten hours needs little more than its report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt

from pipeline.records.clip_report import ClipResult, Finding, rejects
from pipeline.records.settings import ValidateSettings
from pipeline.signal.examine import Examination
from pipeline.signal.frames import Floats
from pipeline.signal.reading_rules import Reading, judge_readings, reading_findings
from pipeline.signal.similarity import Fingerprint, bit_error_rate
from pipeline.text.transcripts import guess_latin_language

Vector = npt.NDArray[np.float32]

_SAME_RECORDING = 0.30  # share of differing bits; copies 0 to 0.15 even through MP3, other recordings above 0.43
_SAME_LENGTH_S = 0.35
_ALL_PAIRS_MAX = 100
_COMMON_MARK = 8
_TWO_VOICES = 0.80  # cosine of the means of two groups; halves of one voice 0.9 and more, two people 0.5 to 0.7
_MIN_GROUP_SHARE = 0.2
_PACE_SPREAD_MAX = 0.35  # of the logarithm of phones per second; one reader's sentences 0.10 to 0.24
_PACE_FACTOR_MAX = 2.0
_PACE_CLIPS_MIN = 4
_SHIFTS = (-2, -1, 1, 2)


@dataclass(frozen=True)
class Judged:
    """One recording after the rules that need no other one: what is told of it, remembered of it and heard of it.

    Attributes:
        result: what the report says of it so far.
        phones: that its text takes, None without text.
        reading: what its text is and what was heard, None where no acoustic model listens.
        embedding: unit vector of the speaker (256,), None where it was not measured.
        seen: all measures, None where it cannot be read; `original`: the chosen channel as decoded, (n,).
        prepared: samples (n,) of the clips that go on to training, in the order of `result.prepared`.
    """

    result: ClipResult
    speech_s: float = 0.0
    phones: float | None = None
    reading: Reading | None = None
    embedding: Vector | None = None
    fingerprint: Fingerprint | None = None
    seen: Examination | None = None
    original: Floats | None = None
    prepared: tuple[Floats, ...] = ()

    @property
    def name(self) -> str:
        return self.result.clip.file_name

    @property
    def usable(self) -> bool:
        """Nothing rejected it so far."""
        return not rejects(self.result.findings)

    def without_sound(self) -> Judged:
        """The two kilobytes that comparing it with the others takes."""
        return replace(self, seen=None, original=None, prepared=())


@dataclass(frozen=True)
class FolderFindings:
    """`voice`: of the folder as a whole; `clips`: by index; `similarity`: cosine of each clip to the voice's mean."""

    voice: tuple[Finding, ...]
    clips: Mapping[int, tuple[Finding, ...]]
    similarity: Mapping[int, float]


def folder_findings(judged: Sequence[Judged], language: str | None, settings: ValidateSettings) -> FolderFindings:
    """All rules over all recordings of a voice."""
    clips: dict[int, list[Finding]] = {}
    voice: list[Finding] = []
    for index, original in find_duplicates(judged).items():
        detail = f"the same recording as {judged[original].name}"
        clips.setdefault(index, []).append(Finding(code="duplicate", severity="repair", detail=detail))
    similarity, strangers, speaker_finding = judge_speakers(judged, settings)
    voice += [speaker_finding] if speaker_finding else []
    for index in strangers:
        clips.setdefault(index, []).append(
            Finding(
                code="multiple_speakers",
                severity="reject",
                value=round(similarity[index], 3),
                limit=settings.speaker_similarity_min,
                unit="cosine",
                detail="another voice than most of the folder",
            )
        )
    pace_finding, outliers = judge_paces(judged)
    voice += [pace_finding] if pace_finding else []
    for index, finding in outliers.items():
        clips.setdefault(index, []).append(finding)
    known = {i: one.reading for i, one in enumerate(judged) if one.usable and one.reading is not None}
    reading_finding, others = judge_readings(known)
    voice += [reading_finding] if reading_finding else []
    for index, finding in reading_findings([one.name for one in judged], others).items():
        clips.setdefault(index, []).append(finding)
    voice += judge_language(judged, language)
    return FolderFindings(tuple(voice), {index: tuple(found) for index, found in clips.items()}, similarity)


def find_duplicates(judged: Sequence[Judged]) -> dict[int, int]:
    """Index of every copy, with the index of the recording that it is a copy of: same bytes, or same sound."""
    copies: dict[int, int] = {}
    first_with: dict[str, int] = {}
    for index, one in enumerate(judged):
        if one.result.sha256 is not None and one.usable:
            original = first_with.setdefault(one.result.sha256, index)
            if original != index:
                copies[index] = original
    heard = {i: one.fingerprint for i, one in enumerate(judged) if one.fingerprint is not None and one.usable}
    heard = {i: marks for i, marks in heard.items() if i not in copies}
    for left, right in _candidates(judged, heard):
        if left in copies or right in copies or bit_error_rate(heard[left], heard[right]) > _SAME_RECORDING:
            continue
        copies[max(left, right)] = min(left, right)
    return copies


def _candidates(judged: Sequence[Judged], heard: Mapping[int, Fingerprint]) -> Iterator[tuple[int, int]]:
    """Pairs of nearly equal length; in a large folder only those that share a 32-bit mark, as copies do."""
    ordered = sorted(heard, key=lambda i: judged[i].speech_s)
    sharing = _sharing_pairs(heard) if len(ordered) > _ALL_PAIRS_MAX else None
    for position, index in enumerate(ordered):
        for other in ordered[position + 1 :]:
            if judged[other].speech_s - judged[index].speech_s > _SAME_LENGTH_S:
                break
            if sharing is None or (min(index, other), max(index, other)) in sharing:
                yield index, other


def _sharing_pairs(heard: Mapping[int, Fingerprint]) -> set[tuple[int, int]]:
    """Pairs that have a mark in common; marks that many recordings have say nothing."""
    unique = [np.unique(marks.view(np.uint32)) for marks in heard.values()]
    if not unique:
        return set()
    marks = np.concatenate(unique)
    owners = np.repeat(np.array(list(heard)), [len(one) for one in unique])
    order = np.argsort(marks, kind="stable")  # numbers, not sets: ten hours have a million marks
    marks, owners = marks[order], owners[order]
    starts = np.flatnonzero(np.diff(marks, prepend=marks[:1] - 1))
    sizes = np.diff(starts, append=len(marks))
    pairs: set[tuple[int, int]] = set()
    for group in np.flatnonzero((sizes > 1) & (sizes <= _COMMON_MARK)):
        start = starts[group]
        pairs.update(combinations(sorted(owners[start : start + sizes[group]].tolist()), 2))
    return pairs


def judge_speakers(
    judged: Sequence[Judged], settings: ValidateSettings
) -> tuple[dict[int, float], list[int], Finding | None]:
    """Cosine of each clip to the voice's mean, clips of somebody else, and whether the folder holds two voices."""
    known = [i for i, one in enumerate(judged) if one.usable and one.embedding is not None]
    if len(known) < 2:
        return {}, [], None
    vectors = np.stack([_vector(judged[i]) for i in known])
    weights = np.array([max(judged[i].speech_s, 0.1) for i in known])
    larger = _larger_group(vectors, weights)
    between = float(_mean(vectors[larger], weights[larger]) @ _mean(vectors[~larger], weights[~larger]))
    share = float(weights[~larger].sum() / weights.sum())
    is_mixed = between < _TWO_VOICES and (~larger).any()
    core = larger if is_mixed else np.ones(len(known), bool)
    mean = _mean(vectors[core], weights[core])
    similarity = {index: float(vector @ mean) for index, vector in zip(known, vectors, strict=True)}
    strangers = [i for i in known if similarity[i] < settings.speaker_similarity_min]
    if not is_mixed or share < _MIN_GROUP_SHARE or not strangers:
        return similarity, strangers, None
    detail = f"two voices: {int((~larger).sum())} of {len(known)} recordings are of somebody else"
    finding = Finding(
        code="multiple_speakers",
        severity="reject",
        value=round(between, 3),
        limit=_TWO_VOICES,
        unit="cosine",
        detail=detail,
    )
    return similarity, strangers, finding


def _vector(one: Judged) -> Vector:
    if one.embedding is None:
        raise ValueError(f"{one.name}: no speaker embedding")
    return one.embedding


def _mean(vectors: Vector, weights: npt.NDArray[np.float64]) -> Vector:
    if not len(vectors):
        return np.zeros(vectors.shape[1], np.float32)
    mean = (vectors * weights[:, None]).sum(axis=0)
    unit: Vector = (mean / max(float(np.linalg.norm(mean)), 1e-9)).astype(np.float32)
    return unit


def _larger_group(vectors: Vector, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Two groups by spherical 2-means, begun from the clip farthest from the mean; True for the larger in seconds."""
    overall = _mean(vectors, weights)
    one = vectors[int((vectors @ overall).argmin())]
    two = vectors[int((vectors @ one).argmin())]
    is_one = np.zeros(len(vectors), bool)
    for _ in range(20):
        assigned = vectors @ one > vectors @ two
        if (assigned == is_one).all() and is_one.any():
            break
        is_one = assigned
        if not is_one.any() or is_one.all():
            break
        one, two = _mean(vectors[is_one], weights[is_one]), _mean(vectors[~is_one], weights[~is_one])
    larger = is_one if weights[is_one].sum() >= weights[~is_one].sum() else ~is_one
    return np.asarray(larger)


def judge_paces(judged: Sequence[Judged]) -> tuple[Finding | None, dict[int, Finding]]:
    """Do texts and recordings belong together? One reader keeps one pace, so long texts must be long recordings.

    Finds transcripts in a wrong order, and single texts more than twice too long or too short. Two swapped sentences of
    equal length stay unseen: that takes an acoustic model.
    """
    known = [i for i, one in enumerate(judged) if one.usable and one.phones and one.speech_s > 0]
    if len(known) < _PACE_CLIPS_MIN:
        return None, {}
    phones = np.log([judged[i].phones or 1.0 for i in known])
    seconds = np.log([judged[i].speech_s for i in known])
    pace = phones - seconds
    spread = _spread(pace)
    if spread > _PACE_SPREAD_MAX:
        shifted = {shift: _spread(np.roll(phones, shift) - seconds) for shift in _SHIFTS}
        best = min(shifted, key=lambda shift: shifted[shift])
        detail = "texts and recordings do not belong together"
        if shifted[best] < 0.6 * spread and shifted[best] < _PACE_SPREAD_MAX:
            detail += f"; they fit when moved by {abs(best)} line{'s' if abs(best) > 1 else ''}"
        finding = Finding(
            code="text_audio_mismatch",
            severity="reject",
            value=round(spread, 3),
            limit=_PACE_SPREAD_MAX,
            unit="spread of log pace",
            detail=detail,
        )
        return finding, {}
    return None, _pace_outliers(known, pace)


def _spread(values: npt.NDArray[np.float64]) -> float:
    """Root mean square around the median: one wrong clip in many moves it little."""
    return float(np.sqrt(np.mean(np.square(values - np.median(values)))))


def _pace_outliers(known: Sequence[int], pace: npt.NDArray[np.float64]) -> dict[int, Finding]:
    factors = np.exp(pace - np.median(pace))
    found = {}
    for index, factor in zip(known, factors, strict=True):
        if max(factor, 1 / factor) > _PACE_FACTOR_MAX:
            found[index] = Finding(
                code="text_audio_mismatch",
                severity="reject",
                value=round(float(factor), 2),
                limit=_PACE_FACTOR_MAX,
                unit="times the usual pace",
                detail="the text is not what is said, or only part of it",
            )
    return found


def judge_language(judged: Sequence[Judged], language: str | None) -> list[Finding]:
    """A folder said to be English whose commonest words are those of another language."""
    texts = [one.result.clip.text for one in judged if one.result.clip.text and one.result.clip.language == "en"]
    guessed = guess_latin_language(texts) if language == "en" or language is None else None
    if guessed in (None, "en"):
        return []
    return [
        Finding(code="unsupported_language", severity="reject", detail=f"the texts look like {guessed!r}, not English")
    ]
