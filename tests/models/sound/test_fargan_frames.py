"""FARGAN's signal network in ONNX Runtime, against the same in torch."""

import numpy as np
import pytest
import soundfile
import torch

from models.sound.fargan import load_fargan
from models.sound.fargan_analysis import analyse
from models.sound.fargan_frames import load_frame_vocoder
from models.sound.onnx_graph import GraphWriter
from models.speaking.fargan import vocode


@pytest.fixture(scope="module")
def wave(shared):
    samples, _ = soundfile.read(shared / "data/voices/en_arctic_slt/wavs/slt_arctic_a0001.wav", dtype="float32")
    return torch.from_numpy(samples)


@pytest.fixture(scope="module")
def features(wave):
    return analyse(wave)


def test_a_frame_after_the_same_past_is_torchs_but_for_rounding(features):
    fargan, frames, stream = load_fargan(), load_frame_vocoder(), None
    errors = []
    for first in range(0, 80, 8):
        expected, after = fargan(features[None, first : first + 1], stream)
        made, _ = frames(features[None, first : first + 1], stream)
        errors.append(float((made - expected).abs().max() / expected.abs().max().clamp(min=1e-3)))
        _, stream = fargan(features[None, first + 1 : first + 8], after)
    assert np.median(errors) < 1e-4  # a rounded input that tips over to the next step moves a frame by a percent
    assert max(errors) < 0.1


def test_a_long_stretch_is_the_same_speech(features):
    expected, made = load_fargan()(features[None, :120])[0][0], load_frame_vocoder()(features[None, :120])[0][0]
    levels = [one.reshape(-1, 160).square().mean(1).add(1e-7).log() for one in (expected, made)]
    assert (levels[0] - levels[1]).abs().mean() < 0.1


def test_a_copy_has_the_length_of_its_features_and_comes_in_time(wave, features):
    copy = torch.cat(list(vocode(features)))
    assert len(copy) == 160 * len(features)
    levels = [one[: len(copy)].reshape(-1, 160).square().mean(1).add(1e-6).log() for one in (copy, wave)]
    alike = [
        float(torch.corrcoef(torch.stack([levels[0][3 + lag : lag - 3], levels[1][3:-3]]))[0, 1])
        for lag in (-2, -1, 0, 1, 2)
    ]
    assert alike.index(max(alike)) == 2 and max(alike) > 0.98


def test_a_graph_computes_what_was_written():
    onnxruntime = pytest.importorskip("onnxruntime")
    graph = GraphWriter()
    two = graph.constant("two", np.array([[2.0, 3.0]], np.float32))
    (product,) = graph.node("Mul", ["x", two])
    first, second = graph.node(
        "Split", [product, graph.constant("ones", np.array([1, 1], np.int64))], axis=1, outputs=2
    )
    graph.named_node("Sub", [second, first], ["y"])
    session = onnxruntime.InferenceSession(
        graph.model({"x": (1, 2)}, {"y": (1, 1)}), providers=["CPUExecutionProvider"]
    )
    assert session.run(None, {"x": np.array([[5.0, 7.0]], np.float32)})[0].tolist() == [[11.0]]
