"""How well a base draws a voice's recordings, told before training: what training cannot change belongs there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from models.clip_tensors import unpack_clips
from models.loading.bases import Base
from models.loading.family import family_of
from models.loading.networks import choose_device
from pipeline.io.audio import read_at_rates, resample
from pipeline.records.copies import Copies, CopyScore
from pipeline.records.feature import FEATURES_FILE, FeatureRecord
from pipeline.records.job import Input, Machine
from pipeline.records.metrics import METRICS, Metric
from pipeline.stages.evaluate.ears import RATE_HZ
from pipeline.stages.evaluate.measures import MEASURES, Pair

CLIPS = 3  # spread over the voice


def judge_copies(voice: str, base: Base, extract: Input[FeatureRecord], clips: Path, machine: Machine) -> Copies:
    """Draw a few recordings again by the bare base, as the gate does. ``clips``: the folder that validation left."""
    features = extract.record
    device = choose_device(machine.device)
    family = family_of(base)
    again = family.resynthesizer(family.load(base, machine.cache, device))
    recordings, tensors = family.recordings(base, device), unpack_clips(extract.folder / FEATURES_FILE)[0]
    pairs = {}
    for index in _spread(len(features.clips)):
        clip = features.clips[index]
        whole = recordings.complete(tensors[index], read_at_rates(clips / clip.file), clip.frames)
        sounds = (whole.wave.numpy(), again.copy(whole).float().cpu().numpy())
        pairs[clip.clip] = Pair(*(resample(sound, features.sample_rate_hz, RATE_HZ) for sound in sounds))
    rows = [metric for metric in METRICS.values() if metric.evidence == "copy_synthesis"]
    return Copies(voice=voice, base=base.name, scores=tuple(_score(metric, base, pairs) for metric in rows))


def _score(metric: Metric, base: Base, pairs: Mapping[str, Pair]) -> CopyScore:
    scores = {clip: MEASURES[metric.id](pair) for clip, pair in pairs.items()}
    known = [score for score in scores.values() if score is not None]
    return CopyScore(
        id=metric.id,
        title=metric.title,
        value=float(np.mean(known)) if known else None,
        limit=base.gate.floors.get(metric.floor, metric.limit),
        official=metric.official,
        per_clip=scores,
    )


def _spread(count: int) -> Sequence[int]:
    return sorted({round(at) for at in np.linspace(0, count - 1, min(CLIPS, count))})
