"""Sentences through our front ends and upstream's: phones, phones per character, ids, normalised text."""

from importlib.metadata import PackageNotFoundError, version

import pytest

from pipeline.text.frontend import phonemize
from pipeline.text.symbols import symbol_ids

# What decides the phones of a language; our front ends do without the other packages of the fixture's list.
LIBRARIES = {
    "zh": ("jieba", "pypinyin"),
    "yue": ("ToJyutping",),
    "ko": ("g2pk2", "jamo", "python-mecab-ko", "python-mecab-ko-dic"),
    "ja": ("pyopenjtalk-plus",),
    "en": ("g2p-en", "wordsegment"),
}


@pytest.mark.reference("text_frontend")
@pytest.mark.parametrize("language", LIBRARIES)
def test_every_sentence_is_read_as_upstream_reads_it(fixture, language):
    _skip_other_libraries(fixture.meta.get("library_versions", {}), language)
    cases = fixture.meta["cases"].get(language, [])
    differences = [difference for case in cases for difference in _differences(case, language, fixture.meta["symbols"])]
    assert not differences, "\n".join(differences)


def _differences(case, language, table):
    ours = phonemize(case["text"], language, mixed=False, as_upstream=True)
    pairs = {
        "phones": (list(ours.symbols), case["phones"]),
        "ids": (symbol_ids(ours.symbols, table), case["ids"]),
        "word2ph": (None if ours.word2ph is None else list(ours.word2ph), case["word2ph"]),
        "norm_text": (ours.normalised_text, case["norm_text"]),
    }
    return [f"{case['text']} {name}\n  ours {a}\n  theirs {b}" for name, (a, b) in pairs.items() if a != b]


def _skip_other_libraries(theirs, language):
    """The phones are comparable only between the same versions of the libraries that make them."""
    for package in LIBRARIES[language]:
        try:
            ours = version(package)
        except PackageNotFoundError:
            pytest.skip(f"needs voxline[lang-{language}]: {package} is missing")
        if ours != theirs.get(package, ours):
            pytest.skip(f"{package} is {ours} here and {theirs[package]} in the fixture")
