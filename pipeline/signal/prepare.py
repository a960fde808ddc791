"""From a judged recording to sentences for training: choose, cut, shorten pauses, one loudness. Nothing is guessed.

Edges keep a little air, pauses keep their natural length up to a limit, cuts fall into pauses and are faded over 5 ms.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.signal.frames import FRAMES_PER_S, Floats, moving_mean
from pipeline.signal.levels import Normalised, normalise
from pipeline.signal.vad import Region, kept_seconds
from pipeline.text.transcripts import estimate_phones

LEAD_S = 0.15
TAIL_S = 0.25
SLICE_MIN_S = 2.0
_FADE_S = 0.005
_QUIET_REACH_S = 2.0
_QUIET_FRAMES = 8
_SENTENCE_END = re.compile(r"(?<=[.!?。！？；;])\s*")
_FIT = 0.25  # how far a sentence may be from the length its phones predict


@dataclass(frozen=True)
class Piece:
    """A stretch of a recording that becomes one training clip, with its share of the transcript."""

    start_s: float
    end_s: float
    speech_s: float
    text: str | None


def whole_piece(regions: Sequence[Region], duration_s: float, text: str | None, pause_max_s: float) -> Piece:
    """The recording from its first to its last speech, with a little air."""
    start_s = max(0.0, regions[0].start_s - LEAD_S)
    end_s = min(duration_s, regions[-1].end_s + TAIL_S)
    return Piece(start_s, end_s, kept_seconds(regions, pause_max_s), text)


def slice_pieces(
    speech: tuple[Sequence[Region], Floats],
    duration_s: float,
    text: tuple[str | None, str],
    slice_max_s: float,
    pause_max_s: float,
) -> tuple[Piece, ...]:
    """Cut a long recording in its pauses into slices of 2 to `slice_max_s` seconds that do not overlap.

    The transcript goes along only where every sentence can be told to belong to one slice; otherwise the slices have no
    text, and somebody has to write it. `speech`: regions between which even short pauses lie, and the level of every
    10 ms in dB; `text`: transcript and its language.
    """
    groups = _groups(*speech, slice_max_s)
    texts = _share_text(groups, *text)
    borders = [(before[-1].end_s + after[0].start_s) / 2 for before, after in pairwise(groups)]
    pieces = []
    for group, share, first_s, last_s in zip(groups, texts, [0.0, *borders], [*borders, duration_s], strict=True):
        start_s, end_s = max(first_s, group[0].start_s - LEAD_S), min(last_s, group[-1].end_s + TAIL_S)
        if end_s - start_s >= SLICE_MIN_S:
            pieces.append(Piece(start_s, end_s, kept_seconds(group, pause_max_s), share))
    return tuple(pieces)


def covered_seconds(pieces: Sequence[Piece], regions: Sequence[Region]) -> float:
    """How much of the speech lies in the pieces."""
    overlaps = (min(p.end_s, r.end_s) - max(p.start_s, r.start_s) for p in pieces for r in regions)
    return sum(overlap for overlap in overlaps if overlap > 0)


def prepare_piece(
    samples: Floats,
    sample_rate_hz: int,
    piece: Piece,
    regions: Sequence[Region],
    pause_max_s: float,
    levels: tuple[float, float, float],
) -> tuple[Normalised, float]:
    """One piece, cut, its pauses shortened and levelled; and how many seconds of the recording are not in it.

    `levels`: speech, target and true peak ceiling, in dBFS.
    """
    inside = [region for region in regions if region.end_s > piece.start_s and region.start_s < piece.end_s]
    kept = [(piece.start_s, piece.end_s)]
    for one, following in pairwise(inside):
        excess = following.start_s - one.end_s - pause_max_s
        if excess > 0:
            middle = one.end_s + pause_max_s / 2
            kept[-1:] = [(kept[-1][0], middle), (middle + excess, kept[-1][1])]
    parts = [samples[round(start * sample_rate_hz) : round(end * sample_rate_hz)] for start, end in kept]
    joined = _join(parts, sample_rate_hz)
    kept_s = sum(end - start for start, end in kept)
    shortened_s = piece.end_s - piece.start_s - kept_s
    trimmed_s = len(samples) / sample_rate_hz - (piece.end_s - piece.start_s)
    return normalise(joined, sample_rate_hz, *levels), trimmed_s + shortened_s


def _join(parts: Sequence[Floats], sample_rate_hz: int) -> Floats:
    fade = max(1, round(_FADE_S * sample_rate_hz))
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    faded = []
    for part in parts:
        if len(part) < 2 * fade:
            continue
        copy = part.copy()
        copy[:fade] *= ramp
        copy[-fade:] *= ramp[::-1]
        faded.append(copy)
    return np.concatenate(faded) if faded else np.zeros(0, np.float32)


def _groups(regions: Sequence[Region], level_db: Floats, slice_max_s: float) -> list[list[Region]]:
    """Neighbouring regions together, as long as a slice allows; cuts fall into the longer pauses."""
    room_s = slice_max_s - LEAD_S - TAIL_S
    pending = [[region for long in regions for region in _divide(long, level_db, room_s)]]
    done: list[list[Region]] = []
    while pending:
        group = pending.pop(0)
        if group[-1].end_s - group[0].start_s <= room_s or len(group) == 1:
            done.append(group)
            continue
        gaps = np.array([after.start_s - before.end_s for before, after in pairwise(group)])
        middle = (group[0].start_s + group[-1].end_s) / 2
        places = np.array([abs(before.end_s - middle) for before in group[:-1]])
        length = group[-1].end_s - group[0].start_s
        cut = int(np.argmax(np.minimum(gaps, 1.0) - places / length)) + 1
        pending[:0] = [group[:cut], group[cut:]]
    return done


def _divide(region: Region, level_db: Floats, room_s: float) -> list[Region]:
    """Speech without any pause for longer than a slice: cut where it is quietest, near equal parts."""
    count = int(np.ceil(region.duration_s / room_s))
    if count == 1:
        return [region]
    reach = min(_QUIET_REACH_S, room_s / 4)
    even = np.linspace(region.start_s, region.end_s, int(np.ceil(region.duration_s / (room_s - reach))) + 1)
    smooth = moving_mean(level_db, _QUIET_FRAMES)
    cuts = []
    for place in even[1:-1]:
        first, last = (round((place + side * reach / 2) * FRAMES_PER_S) for side in (-1, 1))
        cuts.append((first + int(smooth[first:last].argmin())) / FRAMES_PER_S)
    edges = [region.start_s, *cuts, region.end_s]
    return [Region(float(start), float(end)) for start, end in pairwise(edges)]


def _share_text(groups: Sequence[Sequence[Region]], text: str | None, language: str) -> list[str | None]:
    """The sentences of each slice, or None for all where that is not certain.

    Certain means: punctuation gives the sentences, their predicted lengths fill the slices one after the other, and no
    slice is off by more than a quarter from what its phones take at the recording's own pace.
    """
    nothing: list[str | None] = [None] * len(groups)
    sentences = [part for part in _SENTENCE_END.split(text or "") if part.strip()]
    if len(sentences) < len(groups):
        return nothing
    speech_s = np.array([sum(region.duration_s for region in group) for group in groups])
    phones = np.array([estimate_phones(sentence, language) for sentence in sentences])
    if phones.min() <= 0:
        return nothing
    ends = np.cumsum(phones) / phones.sum()
    borders = np.cumsum(speech_s)[:-1] / speech_s.sum()
    cuts = [int(np.abs(ends[:-1] - border).argmin()) + 1 for border in borders]
    edges = [0, *cuts, len(sentences)]
    if any(end <= start for start, end in pairwise(edges)):
        return nothing
    shares = np.array([phones[start:end].sum() for start, end in pairwise(edges)]) / phones.sum()
    if np.abs(np.log(shares / (speech_s / speech_s.sum()))).max() > np.log(1 + _FIT):
        return nothing
    return [" ".join(sentences[start:end]).strip() for start, end in pairwise(edges)]
