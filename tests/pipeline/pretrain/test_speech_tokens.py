from pathlib import Path

import numpy as np
import pytest
import torch

from models.configs.speech_tokens import SpeechTokensConfig
from models.encoders.speech_tokens import SpeechTokens
from pipeline.pretrain.align import Phone
from pipeline.pretrain.loop import Run
from pipeline.pretrain.prepare import ALL_USES, Clip, Corpus
from pipeline.pretrain.recipe import Stage
from pipeline.pretrain.speech_tokens import TaughtSegments, judge_tokens, open_teacher, train_speech_tokens

DIM = 6
CONFIG = SpeechTokensConfig(
    channels=32,
    front_blocks=1,
    layers=1,
    heads=2,
    feedforward=64,
    position_groups=4,
    reader_blocks=1,
    teacher_dim=DIM,
    dropout=0,
)
STAGE = Stage(steps=60, batch=4, lr=4e-3, segment_s=1.0, warmup_steps=5)


@pytest.fixture
def corpus() -> Corpus:
    """Two clips of tones that change every 200 ms; the first is transcribed."""
    rng = np.random.default_rng(0)
    sound, clips, start = [], [], 0
    for number, seconds in enumerate((2.0, 1.4)):
        pitch = np.repeat(rng.choice([300, 900, 2000], int(seconds * 5)), 3200)
        sound.append((8000 * np.sin(2 * np.pi * np.cumsum(pitch) / 16000)).astype(np.int16))
        phones = [Phone("AA1", 0.0, 1.0, 0), Phone(".", 1.0, 2.0, -1)] if number == 0 else []
        clips.append(Clip(f"{number}.wav", f"s{number}", "en", "", ALL_USES, start, len(sound[-1]), phones))
        start += len(sound[-1])
    return Corpus(clips, np.concatenate(sound))


@pytest.fixture
def rows(corpus, tmp_path) -> Path:
    """What a teacher who hears the tone would say: one direction per pitch."""
    frames = np.abs(np.fft.rfft(corpus.sound.astype(float).reshape(-1, 320), axis=1)).argmax(1)
    directions = np.random.default_rng(1).normal(size=(161, DIM))
    directions[frames].astype(np.float16).tofile(tmp_path / "teacher.f16")
    return tmp_path / "teacher.f16"


def test_a_segment_carries_what_the_teacher_heard_there(corpus, rows):
    teacher = open_teacher(rows, corpus, DIM)
    raw = np.fromfile(rows, np.float16).reshape(-1, DIM)
    second = corpus.clips[1]
    assert np.allclose(teacher.vectors(second, 3, 5) * teacher.spread + teacher.mean, raw[103:108], atol=1e-2)
    batch = TaughtSegments(corpus, teacher, [second], CONFIG.classes, STAGE).batch(np.random.default_rng(0))
    assert batch.waves.shape == (4, 16000) and batch.vectors.shape == (4, 50, DIM)
    assert (batch.labels == -100).all() and batch.orders == [[]] * 4


def test_a_clip_shorter_than_a_segment_is_padded_and_the_padding_teaches_nothing(corpus, rows):
    stage = Stage(steps=1, batch=2, lr=1e-3, segment_s=3.0)
    segments = TaughtSegments(corpus, open_teacher(rows, corpus, DIM), corpus.clips[:1], CONFIG.classes, stage)
    batch = segments.batch(np.random.default_rng(0))
    assert batch.inside[:, :100].all() and not batch.inside[:, 100:].any()
    assert (batch.labels[:, 100:] == -100).all() and not batch.vectors[:, 100:].any()
    assert all(batch.orders)


def test_tokens_learn_what_the_teacher_says(corpus, rows, tmp_path):
    teacher = open_teacher(rows, corpus, DIM)
    torch.manual_seed(0)
    network = SpeechTokens(CONFIG)
    before = judge_tokens(network.eval(), corpus, teacher)
    train_speech_tokens(network, corpus, teacher, (corpus, teacher), Run(STAGE, tmp_path, 1, torch.device("cpu")))
    after = judge_tokens(network.eval(), corpus, teacher)
    assert after["unexplained"] < 0.6 * before["unexplained"]
    assert after["frame_accuracy"] > before["frame_accuracy"]
    assert after["perplexity"] > 1.5
    log = (tmp_path / "log.csv").read_text()
    assert all(name in log for name in ("teacher", "ctc", "held_out/unexplained", "held_out/perplexity"))
