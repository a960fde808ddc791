"""What another synthesizer says is planned the same way every time, and kept only where it can be read back."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import speak_corpus

TEXTS = (
    "# where they are from\n\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002\n\n\u4ed6\u4eec\u8fd8\u5728\u8def\u4e0a\u3002\n"
)


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text(TEXTS, encoding="utf-8")
    return speak_corpus.read_lines(path)


def test_a_list_gives_the_same_clips_every_time(lines, tmp_path):
    assert lines == speak_corpus.read_lines(tmp_path / "texts.txt")
    assert [line.file for line in lines] == ["zf_xiaobei/0000.flac", "zf_xiaoxiao/0001.flac"]
    assert all(speak_corpus.SLOWEST <= line.tempo <= speak_corpus.FASTEST for line in lines)
    assert lines[0].tempo != lines[1].tempo


@pytest.mark.parametrize("text", ["\u7b2c3\u8bfe", "\u7528GPT"])
def test_what_can_be_read_in_several_ways_is_refused(tmp_path, text):
    path = tmp_path / "texts.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match=text):
        speak_corpus.read_lines(path)


def test_a_clip_that_is_misread_is_left_out_and_homophones_are_no_errors(lines, tmp_path):
    for line in lines:
        (tmp_path / line.file).parent.mkdir()
        soundfile.write(tmp_path / line.file, np.zeros(8000), 16000)
    heard = iter(["\u4eca\u5929\u5929\u5668\u5f88\u597d", "\u6211\u4eec\u8fd8\u5728|\u8def\u4e0a"])
    assert list(speak_corpus.heard_well(lines, lambda samples: next(heard), tmp_path)) == [(lines[0], 0.5)]
    again = speak_corpus.heard_well(lines, lambda samples: pytest.fail("it was heard already"), tmp_path)
    assert list(again) == [(lines[0], 0.5)]
