"""Silero in torch against the package's own ONNX graph."""

import numpy as np
import pytest
import torch

from models.errors import WeightsError
from models.judges.silero import load_silero
from pipeline.io.audio import read_audio, resample
from pipeline.signal.packaged import silero_file
from pipeline.signal.vad import silero_probabilities

pytestmark = pytest.mark.processor


def recordings(voices):
    for path in sorted((voices / "sample" / "wavs").glob("*"))[:3]:
        audio = read_audio(path)
        yield resample(audio.mono, audio.sample_rate_hz, 16000)
    random = np.random.default_rng(0)
    yield (0.1 * random.standard_normal(16000 * 3)).astype(np.float32)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.03)])
def test_probabilities_are_those_of_the_package(request, dtype, tolerance):
    network = load_silero(silero_file(), dtype)
    heard = []
    for samples in recordings(request.config.rootpath / "voices"):
        ours = network(torch.from_numpy(samples)).numpy()
        theirs = silero_probabilities(samples)
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() < tolerance
        heard.append(theirs.max())
    assert max(heard) > 0.9 > 0.5 > min(heard)  # speech and noise: agreement about nothing would prove nothing


def test_less_than_one_window_has_no_probability():
    assert load_silero(silero_file())(torch.zeros(511)).shape == (0,)


def test_another_network_is_refused(tmp_path):
    (tmp_path / "other.onnx").write_bytes(b"not a network")
    with pytest.raises(WeightsError):
        load_silero(tmp_path / "other.onnx")
