import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from models.encoders.ge2e import EMBEDDING_SIZE, embed_partials, embed_speaker, partial_starts
from pipeline.io.audio import read_audio, resample
from pipeline.signal.mel import mel_power

pytestmark = pytest.mark.processor


def voice(repository, number):
    audio = read_audio(sorted((repository / "voices" / "sample" / "wavs").glob("*"))[number])
    return resample(audio.mono, audio.sample_rate_hz, 16000)


def test_mel_and_embeddings_are_those_of_resemblyzer(repository):
    golden = json.loads((repository / "tests" / "golden" / "ge2e.json").read_text())
    mel = mel_power(voice(repository, 0), 16000, 400, 160, 40)
    assert len(mel) == golden["frames"]
    assert np.abs(mel[::40] - golden["every_40th_frame"]).max() < 1e-5 * golden["mel_max"]
    found = embed_partials(torch.from_numpy(mel), step_frames=77).numpy()
    expected = np.array(golden["partials"])
    assert golden["partials_made"] > len(expected), "the last partial is padded in another place"
    assert np.abs(found[: len(expected)] - expected).max() < 1e-5


def test_embeddings_are_unit_vectors_and_near_for_one_voice(repository):
    one, two = (embed_speaker(torch.from_numpy(mel_power(voice(repository, n), 16000, 400, 160, 40))) for n in (0, 1))
    assert one.shape == (EMBEDDING_SIZE,)
    assert abs(float(one.norm()) - 1) < 1e-5
    assert float(one @ two) > 0.8


def test_partials_cover_a_recording_of_any_length():
    assert partial_starts(10, 50) == [0]
    assert partial_starts(161, 50)[0] == 0
    starts = partial_starts(1000, 50)
    assert starts[-1] + 160 >= 960
    assert all(later - earlier == 50 for earlier, later in pairwise(starts))
