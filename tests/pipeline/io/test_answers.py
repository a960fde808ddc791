"""What judges said of recordings is asked once for a content and a judge, by nobody else's word."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.io.answers import MOST_ANSWERS, Answers, remembered
from pipeline.io.memory import Memory

WAVE = np.linspace(-0.5, 0.5, 100, dtype=np.float32)


def never():
    raise AssertionError("asked again")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "voxline" / "answers.json"


def test_a_later_run_reads_the_very_same_answers(path) -> None:
    vector = np.random.default_rng(0).standard_normal(192).astype(np.float32)
    cold = remembered(path)
    cold.text("words 1", WAVE, lambda: "Straße 第一")
    cold.number("mos", WAVE, lambda: 1 / 3)
    cold.vector("who", WAVE, lambda: vector)
    cold.save()
    warm = remembered(path)
    assert warm.text("words 1", WAVE, never) == "Straße 第一"
    assert warm.number("mos", WAVE, never) == 1 / 3
    assert np.array_equal(warm.vector("who", WAVE, never), vector)


@pytest.mark.parametrize("other", [WAVE[:-1], WAVE + np.float32(1e-7), np.zeros(0, np.float32)])
def test_another_sound_or_another_judge_is_asked(path, other) -> None:
    known = remembered(path)
    known.number("mos 1", WAVE, lambda: 3.0)
    assert known.number("mos 1", other, lambda: 2.0) == 2.0
    assert known.number("mos 2", WAVE, lambda: 1.0) == 1.0


def test_nothing_is_kept_without_a_memory_and_two_runs_keep_both_their_answers(path) -> None:
    Answers().save()
    first, second = remembered(path), remembered(path)
    first.number("mos", WAVE, lambda: 1.0)
    second.number("mos", -WAVE, lambda: 2.0)
    first.save()
    second.save()
    later = remembered(path)
    assert (later.number("mos", WAVE, never), later.number("mos", -WAVE, never)) == (1.0, 2.0)


@pytest.mark.parametrize("planted", ["no vector", "", "AAAA", 7, None, [1.0], float("inf")])
def test_what_is_no_answer_is_asked_again(path, planted) -> None:
    known = remembered(path)
    known.vector("who", WAVE, lambda: np.ones(4, np.float32))
    known.save()
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict.fromkeys(content, planted)))
    found = remembered(path).vector("who", WAVE, lambda: np.full(4, 2, np.float32))
    assert found.tolist() == [2.0] * 4


def test_what_others_could_have_written_counts_as_nothing(path) -> None:
    known = remembered(path)
    known.number("mos", WAVE, lambda: 1.0)
    known.save()
    path.chmod(0o666)
    assert remembered(path).number("mos", WAVE, lambda: 2.0) == 2.0


def test_the_oldest_answers_go_first(path) -> None:
    Memory(path).save({str(number): 1.0 for number in range(MOST_ANSWERS)})
    known = remembered(path)
    known.number("mos", WAVE, lambda: 4.0)
    known.save()
    kept = Memory(path).load()
    assert len(kept) == MOST_ANSWERS and "0" not in kept and list(kept.values())[-1] == 4.0


def test_an_answer_of_another_voxline_that_said_more_is_asked_again(path) -> None:
    earlier = remembered(path)
    earlier.several("opinion", WAVE, 4, lambda: [1.0, 2.0, 3.0, 4.0])
    earlier.save()
    assert remembered(path).several("opinion", WAVE, 3, lambda: [1.0, 2.0, 3.0]) == [1.0, 2.0, 3.0]
    assert remembered(path).several("opinion", WAVE, 4, never) == [1.0, 2.0, 3.0, 4.0]
