"""Answers that are given again."""

from __future__ import annotations

from pipeline.serve.kept_answers import Answers, Kept, Whole


def kept(size: int) -> Kept:
    return Kept(b"x" * size, 16000, 8, ())


def test_the_least_recently_used_answers_leave():
    answers = Answers(10)
    for name in ("a", "b"):
        answers.keep(name, kept(4))
    assert answers.find("a") is not None
    answers.keep("c", kept(4))
    assert [answers.find(name) is not None for name in "abc"] == [True, False, True]
    assert answers.size_bytes == 8


def test_nothing_is_kept_where_nobody_asked_for_it():
    answers = Answers(0)
    answers.keep("a", kept(1))
    assert answers.find("a") is None
    whole = Whole(answers)
    whole.add(b"abc")
    assert whole.content == b""


def test_an_answer_is_named_by_everything_that_decides():
    names = {Answers.name_of("ana", version, text, speed) for version in "12" for text in "xy" for speed in (1.0, 2.0)}
    assert len(names) == 8
