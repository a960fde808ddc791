"""DNSMOS in torch: what ONNX Runtime gives on its window, at every other length too, and nothing read from other files."""

import numpy as np
import pytest
import torch

import models.judges.dnsmos
from models.errors import WeightsError
from models.judges.dnsmos import Dnsmos, load_dnsmos
from models.judges.onnx_weights import read_onnx_constants
from pipeline.signal.dnsmos import WINDOW_SAMPLES, _run
from pipeline.signal.packaged import dnsmos_file

pytestmark = pytest.mark.slow


def speech_like(samples):
    rng = np.random.default_rng(0)
    t = np.arange(samples) / 16000
    tone = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 12)) * (np.sin(5 * t) > -0.2)
    return (0.05 * tone + 0.002 * rng.standard_normal(samples)).astype(np.float32)


def test_the_network_says_what_onnxruntime_says_about_a_whole_window():
    window = speech_like(WINDOW_SAMPLES)
    network = Dnsmos(read_onnx_constants(dnsmos_file()), torch.float32)
    np.testing.assert_allclose(
        network(torch.from_numpy(window)).numpy(), _run("sig_bak_ovr", window[None])[0], atol=1e-5
    )


@pytest.mark.processor
def test_quick_numbers_change_the_opinion_by_less_than_listeners_could_tell():
    window = speech_like(WINDOW_SAMPLES)
    exact = Dnsmos(read_onnx_constants(dnsmos_file()), torch.float32)(torch.from_numpy(window))
    assert (load_dnsmos(dnsmos_file())(torch.from_numpy(window)) - exact).abs().max() < 0.05


@pytest.mark.parametrize("frames", [1, 30, 112, 113, 114, 225, 337])
def test_a_recording_of_any_length_has_an_opinion(frames):
    network = load_dnsmos(dnsmos_file())
    scores = network(torch.from_numpy(speech_like(160 * (frames + 1))))
    assert scores.shape == (3,)
    assert torch.isfinite(scores).all()


def test_tiles_leave_no_seam(monkeypatch):
    network = Dnsmos(read_onnx_constants(dnsmos_file()), torch.float32)
    samples = torch.from_numpy(speech_like(160 * 301))
    tiled = network(samples)
    monkeypatch.setattr(models.judges.dnsmos, "_TILE_FRAMES", 10_000)
    torch.testing.assert_close(tiled, network(samples), atol=1e-5, rtol=0)


def test_a_file_that_is_no_network_is_refused(tmp_path):
    for name, data in (
        ("empty.onnx", b""),
        ("text.onnx", b"hello, this is no network"),
        ("huge.onnx", b"\x3a" + b"\xff" * 20),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(WeightsError):
            read_onnx_constants(tmp_path / name)
