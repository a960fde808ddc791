"""extract: accepted recordings become what the networks learn from, at the base's rate.

Phones, BERT features, semantic tokens and speaker vector of every clip, as far as the base has them, in one safetensors
file. What a recording itself says (wave, spectrogram, mel) is computed from it again where it is needed, bit for bit.
Tokens come from the base's own frozen quantizer, so they stay valid while the voice is fine-tuned. Where the codes of a
base tell their phone, the transcript corrects what its encoder misheard.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.clip_tensors import ClipTensors, pack_clips, unpack_clips
from models.configs.speaker import FbankConfig
from models.encoders.bert import BertFeatures
from models.encoders.eres2net import SpeakerEncoder
from models.encoders.ge2e import EMBEDDING_SIZE, embed_speaker
from models.errors import WeightsError
from models.loading.bases import Base, find_base
from models.loading.family import family_of
from models.loading.listening import CONTENT_RATE_HZ, Listener
from models.loading.networks import load_bert, load_speaker_encoder, load_text2semantic, prepare_device
from models.loading.recordings import AtRate, Recordings
from models.phones.symbols import phones_to_ids
from models.sound.fbank import fbank
from models.sound.upstream_audio import resample_sinc
from models.text2semantic.guidance import TextGuide
from pipeline.errors import SettingsError, TransientError, VoiceRefused
from pipeline.io.audio import read_audio, resample
from pipeline.io.files import write_atomically
from pipeline.records.clip import PreparedClip
from pipeline.records.clip_report import ClipReport
from pipeline.records.feature import FEATURES_FILE, ClipFeatures, FeatureRecord, LeftOutClip
from pipeline.records.job import Input, Job
from pipeline.records.phones import Phones
from pipeline.records.settings import ExtractSettings
from pipeline.signal.speaker import speaker_mel
from pipeline.text.frontend import is_silent, phonemize
from pipeline.text.languages import known_language

MIN_TOKENS = 12  # half a second; the shortest stretch with a syllable on either side of a cut
MIN_CLIPS = 3  # one to train on, one held out, one as the reference of the other two


@dataclass(frozen=True)
class Networks:
    """What extraction computes with, on one device."""

    base: Base
    listener: Listener
    speaker: SpeakerEncoder | None
    bert: BertFeatures | None
    guide: TextGuide | None  # of a base whose codes tell their phone
    recordings: Recordings
    device: torch.device


Found = tuple[ClipFeatures, ClipTensors]


def load_networks(base: Base, cache: Path, device: torch.device) -> Networks:
    """Raises ``models.errors.ModelsError`` where weights are missing or do not fit."""
    family = family_of(base)
    speaker = load_speaker_encoder(base, cache)
    return Networks(
        base=base,
        listener=family.listener(family.load(base, cache, device)),
        speaker=speaker.to(device) if speaker else None,
        bert=load_bert(base, cache, device),
        guide=_load_guide(base, cache, device),
        recordings=family.recordings(base, device),
        device=device,
    )


def _load_guide(base: Base, cache: Path, device: torch.device) -> TextGuide | None:
    if base.text2semantic is None or base.text2semantic.guide is None:
        return None
    return load_text2semantic(base, cache).to(device).guide


def extract_clip(clip: PreparedClip, samples: npt.NDArray[np.float32], networks: Networks) -> Found | LeftOutClip:
    """All features of one clip; ``samples`` mono at ``clip.sample_rate_hz``. A clip that cannot be used is no error."""
    if not clip.text:
        return LeftOutClip(clip=clip.name, code="no_transcript", detail="there is no text to learn from")
    phones = phonemize(clip.text, known_language(clip.language))
    if is_silent(phones):
        return LeftOutClip(clip=clip.name, code="no_phones", detail=f"nothing to pronounce in {clip.text[:40]!r}")

    @cache
    def at(wanted_hz: int) -> npt.NDArray[np.float32]:
        return resample(samples, clip.sample_rate_hz, wanted_hz)

    extracted, frames = _tensors(at, phones, networks)
    if len(extracted.tokens) < MIN_TOKENS:
        return LeftOutClip(clip=clip.name, code="too_short", detail=f"{clip.duration_s:.2f} s")
    record = ClipFeatures(
        clip=clip.name,
        file=clip.file,
        text=clip.text,
        language=clip.language,
        duration_s=round(networks.recordings.samples_of(at, frames) / networks.base.sample_rate_hz, 4),
        frames=frames,
        tokens=len(extracted.tokens),
        symbols=phones.symbols,
        content_sha256=clip.sha256,
        split=clip.split,
        unknown_characters=phones.unknown,
    )
    return record, extracted


@torch.inference_mode()
def _tensors(at: AtRate, phones: Phones, networks: Networks) -> tuple[ClipTensors, int]:
    """What is stored of a clip, and how many frames of 20 ms its tokens cover."""
    ids = torch.tensor(phones_to_ids(list(phones.symbols), networks.base.text.symbols), dtype=torch.int32)
    tokens, frames = networks.listener.transcribe(at, ids, networks.guide)
    rate_hz = networks.listener.speaker_rate_hz
    speaker = speaker_vector(at(rate_hz), rate_hz, networks)
    bert = networks.bert.of(phones.bert_spans) if networks.bert else None
    extracted = ClipTensors(
        tokens=_stored(tokens.to(torch.int32)),
        phones=_stored(ids),
        speaker=None if speaker is None else _stored(speaker),
        bert=None if bert is None else _stored(bert),
    )
    return extracted, frames


def _stored(tensor: Tensor) -> Tensor:
    return tensor.cpu().contiguous()


@torch.inference_mode()
def speaker_vector(samples: npt.NDArray[np.float32], sample_rate_hz: int, networks: Networks) -> Tensor | None:
    """Who speaks: by the base's own encoder, else GE2E's unit vector; None for a base without such vectors.

    Raises SettingsError for a base that wants vectors of another size.
    """
    wanted, encoder = networks.listener.speaker_dim, networks.speaker
    if wanted is None:
        return None
    if encoder is not None:
        speech = resample_sinc(torch.from_numpy(samples).to(networks.device), sample_rate_hz, CONTENT_RATE_HZ)
        vector: Tensor = encoder(fbank(speech, FbankConfig())[None])[0]  # (T, bins) -> (speaker_dim,)
        return vector
    if wanted != EMBEDDING_SIZE:
        raise SettingsError(
            f"base {networks.base.name}: speaker_dim is {wanted}, vectors of GE2E have {EMBEDDING_SIZE}"
        )
    return embed_speaker(torch.from_numpy(speaker_mel(resample(samples, sample_rate_hz, CONTENT_RATE_HZ))))


class Inputs(TypedDict):
    """What validation accepted."""

    validate: Input[ClipReport]


class Parameters(TypedDict):
    """``base``: its name."""

    base: str


ExtractJob = Job[ExtractSettings, Inputs, Parameters]


def work(job: ExtractJob) -> FeatureRecord:
    """Read the clips that validation prepared, extract each, and write ``features.safetensors``.

    A killed run continues with the clips that are not in its checkpoint yet.

    Raises:
        VoiceRefused: fewer than three clips can be used.
    """
    report = job.inputs["validate"].record
    base = find_base(job.parameters["base"], job.machine.bases, job.machine.replaced_bases)
    networks = load_networks(base, job.machine.cache, prepare_device(job.machine.device, job.machine.threads))
    results = list(_extract_all(report.prepared, networks, job))
    left_out = tuple(one for one in results if isinstance(one, LeftOutClip))
    found = [one for one in results if not isinstance(one, LeftOutClip)]
    clips = tuple(clip for clip, _ in found)
    if len(found) < MIN_CLIPS:
        reasons = "; ".join(f"{one.clip}: {one.detail}" for one in left_out[:3])
        raise VoiceRefused(
            f"{job.voice}: {len(found)} clips can be trained on, {MIN_CLIPS} are needed. {reasons}",
            hint="add recordings with transcripts",
        )
    write_atomically(job.folder / FEATURES_FILE, pack_clips([extracted for _, extracted in found]))
    return FeatureRecord(
        base=base.name,
        base_digest=base.digest,
        sample_rate_hz=base.sample_rate_hz,
        hop_samples=base.hop_samples,
        clips=clips,
        left_out=left_out,
        unknown_characters=tuple(dict.fromkeys(letter for clip in clips for letter in clip.unknown_characters)),
        duration_s=round(sum(clip.duration_s for clip in clips), 3),
    )


def _extract_all(clips: Sequence[PreparedClip], networks: Networks, job: ExtractJob) -> Iterable[Found | LeftOutClip]:
    folder = job.inputs["validate"].folder
    tracked = job.reporter.track(list(enumerate(clips)), description=f"{job.voice}: extract", total=len(clips))
    for index, clip in tracked:
        if job.is_stopping():
            raise TransientError(f"stopped after {index} of {len(clips)} clips", hint="run again: it continues there")
        kept = _read_checkpoint(job.checkpoint / f"{index}", clip)
        if kept is not None:
            yield kept
            continue
        audio = read_audio(folder / clip.file)
        result = extract_clip(clip, audio.mono, networks)
        if not isinstance(result, LeftOutClip):
            _write_checkpoint(job.checkpoint / f"{index}", result)
        yield result


def _write_checkpoint(path: Path, found: Found) -> None:
    record, extracted = found
    write_atomically(path, pack_clips([extracted], {"record": record.model_dump_json()}))


def _read_checkpoint(path: Path, clip: PreparedClip) -> Found | None:
    """What an earlier, killed run of this very job extracted. The key covers all inputs, so a whole file is right."""
    try:
        (extracted,), notes = unpack_clips(path)
        record = ClipFeatures.model_validate_json(notes["record"])
    except (WeightsError, ValueError, KeyError):  # none yet, cut short, or of an earlier version
        return None
    return (record, extracted) if record.file == clip.file else None
