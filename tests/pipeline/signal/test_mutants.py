"""Broken speech is broken in the way that it says, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.io.audio import read_audio, resample
from pipeline.signal.mutants import SOUND_MUTANTS, swapped_words

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def speech(shared) -> np.ndarray:
    audio = read_audio(sorted((shared / "data" / "voices" / "en_vctk_p226" / "wavs").iterdir())[0])
    return resample(audio.mono, audio.sample_rate_hz, RATE_HZ)[: 4 * RATE_HZ]


def broken(name: str, speech: np.ndarray) -> np.ndarray:
    wave = SOUND_MUTANTS[name](speech, RATE_HZ, np.random.default_rng(0))
    assert wave.dtype == np.float32 and np.all(np.isfinite(wave)) and np.max(np.abs(wave)) <= 1.0
    return wave


def share_above(wave: np.ndarray, hz: float) -> float:
    power = np.abs(np.fft.rfft(wave)) ** 2
    return float(power[np.fft.rfftfreq(len(wave), 1 / RATE_HZ) > hz].sum() / power.sum())


def test_lengths_say_what_was_cut_repeated_and_hurried(speech) -> None:
    length = len(speech)
    assert len(broken("sentences truncated", speech)) == int(0.55 * length)
    assert len(broken("sentences repeated", speech)) == length // 2 + length
    assert len(broken("8 % faster", speech)) == pytest.approx(length / 1.08, abs=2)


def test_noise_lies_ten_decibels_below_the_speech(speech) -> None:
    noise = broken("noise 10 dB below", speech) - speech
    assert 10 * np.log10(np.mean(noise**2) / np.mean(speech**2)) == pytest.approx(-10, abs=0.3)


def test_sound_is_clipped_narrowed_and_silenced(speech) -> None:
    assert np.mean(np.abs(broken("clipped", speech)) >= 0.999) > 0.05
    assert share_above(broken("nothing above 3.4 kHz", speech), 3_600) < 0.01 * share_above(speech, 3_600)
    assert not np.any(broken("silence", speech))


def test_a_robot_has_one_pitch_and_the_level_of_the_speaker(speech) -> None:
    wave = broken("one pitch", speech)
    assert np.std(wave) == pytest.approx(np.std(speech), rel=0.2)
    loud = wave[RATE_HZ : 3 * RATE_HZ]
    period = RATE_HZ // 125
    repeats = [float(np.corrcoef(loud[:-lag], loud[lag:])[0, 1]) for lag in (period, period * 3 // 2)]
    assert repeats[0] > 0.5 and repeats[0] > repeats[1] + 0.2


def test_a_fifth_of_the_words_come_from_other_texts() -> None:
    text, others = "one two three four five six seven eight nine ten", "apple pear plum cherry"
    words = swapped_words(text, others, 0.2, np.random.default_rng(0)).split()
    changed = [word for word, was in zip(words, text.split(), strict=True) if word != was]
    assert len(changed) == 2 and set(changed) <= set(others.split())
    chinese = swapped_words("今天天气很好我们去公园", "他从来没有告诉别人", 0.2, np.random.default_rng(0))
    assert len(chinese) == 11 and chinese != "今天天气很好我们去公园"
