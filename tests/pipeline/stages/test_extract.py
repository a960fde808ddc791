"""Features of real recordings: one grid for all of them, and what cannot be used is told."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.clip_tensors import unpack_clips
from models.loading.bases import find_base
from models.loading.family import family_of
from pipeline.errors import TransientError, VoiceRefused
from pipeline.io.audio import read_at_rates
from pipeline.records.feature import FEATURES_FILE
from pipeline.records.job import Input
from pipeline.records.settings import ExtractSettings
from pipeline.stages import extract

pytestmark = pytest.mark.slow

FEATURES = torch.ones(16, 9)


@pytest.fixture
def job(walked, tmp_path):
    return walked.job(tmp_path, ("validate",), ExtractSettings())


def with_clips(job, change):
    """The same job with another report: ``change`` gets each prepared clip and returns it, changed."""
    report = job.inputs["validate"].record
    clips = tuple(
        result.model_copy(update={"prepared": tuple(map(change, result.prepared))}) for result in report.clips
    )
    return replace(
        job, inputs={"validate": Input(report.model_copy(update={"clips": clips}), job.inputs["validate"].folder)}
    )


def test_everything_lies_on_one_grid_of_twenty_milliseconds(walked) -> None:
    record = walked.outcomes["extract"].record
    extracted, _ = unpack_clips(walked.outcomes["extract"].folder / FEATURES_FILE)
    base = find_base("tiny", walked.root / "bases")
    recordings = family_of(base).recordings(base, torch.device("cpu"))
    assert len(record.clips) == 6
    for stored, clip in zip(extracted, record.clips, strict=True):
        at = read_at_rates(walked.outcomes["validate"].folder / clip.file)
        tensors = recordings.complete(stored, at, clip.frames)
        assert tensors.wave.shape == (clip.frames * 320,)
        assert torch.equal(tensors.wave, torch.from_numpy(at(16_000)[: clip.frames * 320]))
        assert tensors.acoustic_features.shape == (513, clip.frames)
        assert tensors.tokens.shape == (clip.tokens,) == (clip.frames // 2,)
        assert len(tensors.phones) == len(clip.symbols)
        assert float(tensors.speaker.norm()) == pytest.approx(1.0, abs=1e-4)
        assert (tensors.bert, tensors.mel) == (None, None)
        for tensor in (tensors.wave, tensors.acoustic_features, tensors.tokens, tensors.phones, tensors.speaker):
            assert torch.isfinite(tensor).all()


def test_the_same_recordings_give_the_same_bytes(walked, job) -> None:
    assert extract.work(job) == walked.outcomes["extract"].record
    ours = (job.folder / FEATURES_FILE).read_bytes()
    assert ours == (walked.outcomes["extract"].folder / FEATURES_FILE).read_bytes()


def test_a_stopped_extraction_continues_with_the_clips_that_are_missing(walked, job, monkeypatch) -> None:
    asked = iter([False, False, False, True])
    with pytest.raises(TransientError):
        extract.work(replace(job, is_stopping=lambda: next(asked)))
    done = []
    original = extract.extract_clip
    monkeypatch.setattr(extract, "extract_clip", lambda clip, *rest: done.append(clip.file) or original(clip, *rest))
    assert extract.work(job) == walked.outcomes["extract"].record
    assert len(done) == 3


def test_a_clip_without_text_is_left_out_and_named(job) -> None:
    first = job.inputs["validate"].record.prepared[0].file
    assert first == "clips/00000.flac"
    record = extract.work(
        with_clips(job, lambda clip: clip.model_copy(update={"text": None}) if clip.file == first else clip)
    )
    assert [(one.clip, one.code) for one in record.left_out] == [("wavs/001.flac", "no_transcript")]
    assert len(record.clips) == 5


def test_chinese_text_has_bert_features_where_the_base_has_a_bert_and_other_text_needs_none(walked) -> None:
    pytest.importorskip("pypinyin")
    clip = walked.input("validate").record.prepared[0]
    base = find_base("tiny", walked.root / "bases")
    networks = extract.load_networks(base, walked.root, torch.device("cpu"))
    silence = np.zeros(clip.sample_rate_hz * 2, np.float32)
    heard = {}
    for language, text in (("zh", "你好，hello。"), ("en", "Hello there.")):
        asked: list[tuple[object, ...]] = []
        told = replace(networks, bert=SimpleNamespace(of=lambda spans, asked=asked: asked.append(spans) or FEATURES))
        one = clip.model_copy(update={"text": text, "language": language})
        extracted = extract.extract_clip(one, silence, told)
        heard[language] = (asked[0], extracted[1].bert)
    spans = heard["zh"][0]
    assert [span[0] for span in spans if span[1]] == ["你好,"]
    assert [sum(counts) == phones for _, counts, phones in spans if counts] == [True]
    assert not any(span[1] for span in heard["en"][0])
    assert torch.equal(heard["zh"][1], FEATURES)


def test_too_few_usable_clips_refuse_the_voice(job) -> None:
    with pytest.raises(VoiceRefused, match="0 clips can be trained on") as error:
        extract.work(with_clips(job, lambda clip: clip.model_copy(update={"text": "..."})))
    assert error.value.exit_code == 10
