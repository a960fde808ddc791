"""Whisper's words on real speech: what it hears, when, and that silence says nothing."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from models.errors import WeightsError
from pipeline.io.audio import read_audio, resample
from pipeline.text.listening import compare

pytest.importorskip("ctranslate2", reason="Whisper needs the extra ears: pip install 'voxline[ears]'")
from models.judges.whisper import Heard, Whisper, load_whisper

pytestmark = pytest.mark.slow

SAID = "He waded into the edge of the water and began scrubbing himself."
SAID_ZH = "中国房地产市场的泡沫会破灭吗"


@pytest.fixture(scope="module")
def whisper(artifacts) -> Whisper:
    return load_whisper(artifacts("whisper-base"), threads=2)


@pytest.fixture(scope="module")
def speech(shared) -> np.ndarray:
    return clip(shared / "data/corpus/cmu_arctic_slt/slt/slt_arctic_a0108.flac")


@pytest.fixture(scope="module")
def heard(whisper, speech) -> Heard:
    return whisper.hear(speech, "en", timed=True)


def clip(path) -> np.ndarray:
    audio = read_audio(path)
    return resample(audio.mono, audio.sample_rate_hz, 16_000)


def test_english_is_heard_with_times_and_probabilities(heard, speech):
    assert compare(SAID, heard.text, "en").rate < 0.05
    assert [word.text.strip(".") for word in heard.words][-2:] == ["scrubbing", "himself"]
    times = [(word.start_s, word.end_s) for word in heard.words]
    assert all(start <= end for start, end in times)
    assert times == sorted(times)
    assert times[-1][1] == pytest.approx(len(speech) / 16_000, abs=0.15)
    assert np.mean([word.probability for word in heard.words]) > 0.8
    assert heard.mean_logprob > -0.4


def test_mandarin_is_heard_in_characters_and_their_times(whisper, shared):
    found = whisper.hear(clip(shared / "data/corpus/aishell1_S0150/S0150/BAC009S0150W0152.flac"), "zh", timed=True)
    assert compare(SAID_ZH, found.text, "zh").rate < 0.1
    assert "".join(word.text for word in found.words) == found.text
    assert len(found.words) >= len(SAID_ZH) - 2


def test_two_threads_hear_what_one_does(whisper, speech, heard):
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(lambda _: whisper.hear(speech, "en", timed=True), range(2))) == {heard}


def test_without_times_the_same_is_heard(whisper, speech, heard):
    assert whisper.hear(speech, "en") == replace(heard, words=())


def test_a_sentence_cut_short_lacks_its_end(whisper, speech):
    found = compare(SAID, whisper.hear(speech[: len(speech) * 6 // 10], "en").text, "en")
    assert found.dropped_at_end > 15
    assert found.dropped_at_start == 0


def test_a_sentence_said_twice_is_heard_twice(whisper, speech):
    found = compare(SAID, whisper.hear(np.concatenate([speech, speech]), "en").text, "en")
    assert found.repeated > 40
    assert found.rate > 0.9


@pytest.mark.parametrize("samples", [0, 1, 64_000])
def test_silence_says_nothing(whisper, samples):
    found = whisper.hear(np.zeros(samples, np.float32), "en", timed=True)
    assert found.text == ""
    assert found.words == ()
    assert found.no_speech > 0.6


def test_languages_that_were_not_tried_and_folders_of_something_else_are_refused(whisper, repository):
    with pytest.raises(ValueError, match="en, zh, ja, ko"):
        whisper.hear(np.zeros(16_000, np.float32), "de")
    with pytest.raises(WeightsError, match="not a Whisper model for CTranslate2"):
        load_whisper(repository / "docs")


def test_what_is_written_twice_and_was_said_once_is_asked_for_again(whisper, speech, monkeypatch):
    once, model, asked = whisper.hear(speech, "en"), whisper._model, []

    class BeginsAnew:
        def __getattr__(self, name):
            return getattr(model, name)

        def generate(self, *arguments, **options):
            told = model.generate(*arguments, **options)[0]
            asked.append("no_repeat_ngram_size" in options)
            again = 1 if asked[-1] else 2
            return [
                SimpleNamespace(
                    sequences_ids=[told.sequences_ids[0] * again],
                    scores=told.scores,
                    no_speech_prob=told.no_speech_prob,
                )
            ]

    monkeypatch.setattr(whisper, "_model", BeginsAnew())
    assert whisper.hear(speech, "en").text == once.text
    assert asked == [False, True]


def test_words_without_end_are_not_waited_for(whisper):
    chance = np.random.default_rng(0)
    noise = np.repeat(chance.standard_normal(4000), 8).astype(np.float32) * 0.2  # a rumble of two seconds
    found = whisper.hear(noise, "en")
    assert len(found.text) < 300
