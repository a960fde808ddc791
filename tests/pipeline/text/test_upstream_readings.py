"""Our sentences against stored readings of upstream's front ends (made by make_upstream_readings.py)."""

import json
from pathlib import Path

import pytest

from pipeline.text.frontend import phonemize

CASES = json.loads(Path(__file__).with_name("upstream_readings.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("language", CASES)
def test_our_sentences_are_read_as_upstream_reads_them(language, installed):
    installed(language)
    assert len(CASES[language]) >= 5
    for case in CASES[language]:
        ours = phonemize(case["text"], language, mixed=False, as_upstream=True)
        assert " ".join(ours.symbols) == case["phones"], case["text"]
        assert ours.normalised_text == case["normalised"]
        assert case["word2ph"] == (None if ours.word2ph is None else "".join(map(str, ours.word2ph)))
