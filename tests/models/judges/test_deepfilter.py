import hashlib

import numpy as np
import pytest
import torch

from models.compat import prepare_deepfilternet
from models.configs.deepfilter import weights_digest
from models.errors import WeightsError
from models.judges.deepfilter import Denoiser, filter_bank
from pipeline.io.audio import read_audio, resample


def write_random_weights(folder, seed=0):
    """A DeepFilterNet3 of random weights in the layout that its authors publish."""
    prepare_deepfilternet()
    from df.config import config
    from df.deepfilternet3 import ModelParams, init_model

    torch.manual_seed(seed)
    config.use_defaults(allow_reload=True)  # another test of this process may have loaded one
    config.set("model", "deepfilternet3", str, "train")
    model = init_model(filter_bank(ModelParams()), run_df=True, train_mask=True)
    (folder / "checkpoints").mkdir(parents=True)
    config.save(str(folder / "config.ini"))
    torch.save(model.state_dict(), folder / "checkpoints" / "model_1.ckpt.best")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_random_weights(tmp_path_factory.mktemp("dfn") / "DeepFilterNet3")


def noise(seconds, rate=48000):
    return (0.05 * np.random.default_rng(0).standard_normal(int(seconds * rate))).astype(np.float32)


def test_weights_in_the_published_layout_load_and_denoise_with_their_digest(weights):
    denoiser = Denoiser(weights)
    content = (weights / "config.ini").read_bytes() + (weights / "checkpoints" / "model_1.ckpt.best").read_bytes()
    assert weights_digest(weights) == hashlib.sha256(content).hexdigest()
    assert denoiser.sample_rate_hz == 48000
    cleaned = denoiser(noise(1.5))
    assert cleaned.shape == (72000,)
    assert np.isfinite(cleaned).all()
    assert np.abs(cleaned - noise(1.5)).max() > 1e-3  # the network has spoken
    assert np.array_equal(cleaned, denoiser(noise(1.5)))


def test_a_long_recording_is_denoised_in_blocks_without_a_seam(weights, monkeypatch):
    denoiser = Denoiser(weights)
    monkeypatch.setattr(denoiser, "_enhance", lambda samples: samples * np.float32(0.5))
    long = noise(65)
    assert np.abs(denoiser(long) - 0.5 * long).max() < 1e-6


@pytest.mark.slow
def test_the_authors_graphs_take_noise_off_and_leave_clean_speech_alone(artifacts, repository):
    denoiser = Denoiser(artifacts("deepfilternet3"))
    audio = read_audio(sorted((repository / "voices/sample/wavs").glob("*"))[0])
    speech = resample(audio.mono, audio.sample_rate_hz, 48_000)[: 3 * 48_000]
    speech = speech - speech.mean()
    noisy = speech + noise(3)[: len(speech)] / 0.05 * speech.std() * np.float32(10**-0.5)  # 10 dB
    assert distortion_db(speech, noisy) == pytest.approx(10, abs=0.2)
    assert distortion_db(speech, denoiser(noisy)) > 15  # a frame too early or late would be negative
    assert distortion_db(speech, denoiser(speech)) > 11
    assert len(weights_digest(artifacts("deepfilternet3"))) == 64


def distortion_db(clean, other):
    """Scale-invariant signal to distortion."""
    kept = (clean @ other) / (clean @ clean) * clean
    return float(10 * np.log10(kept @ kept / np.sum((other - kept) ** 2)))


def test_missing_foreign_and_hostile_weights_are_refused_by_name(weights, tmp_path):
    with pytest.raises(WeightsError, match=r"config\.ini"):
        Denoiser(tmp_path)
    (tmp_path / "config.ini").write_bytes((weights / "config.ini").read_bytes())
    with pytest.raises(WeightsError, match="checkpoints"):
        Denoiser(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    torch.save({"foreign": torch.zeros(1)}, tmp_path / "checkpoints" / "model_2.ckpt.best")
    with pytest.raises(WeightsError, match="not weights of this network"):
        Denoiser(tmp_path)
    (tmp_path / "checkpoints" / "model_3.ckpt.best").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(WeightsError, match="checkpoint"):
        Denoiser(tmp_path)
    for name in ("enc.onnx", "erb_dec.onnx", "df_dec.onnx"):
        (tmp_path / name).write_bytes(b"no graph")
    with pytest.raises(WeightsError, match=r"enc\.onnx: not an ONNX graph"):
        Denoiser(tmp_path)
    (tmp_path / "config.ini").write_text("[train]\nmodel = os\n")
    with pytest.raises(WeightsError, match="known are"):
        Denoiser(tmp_path)
