"""Which phone is spoken when: forced alignment of transcripts with PocketSphinx' bundled English model.

Only the times and the choice among a word's pronunciations come from the aligner; the phones are the dictionary's.
Mandarin syllables are aligned by the nearest English sounds (`models/phones/phone_classes.py`). Speech without a
transcript gets PocketSphinx' guess, good enough to teach the content encoder other speakers.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.phones.phone_classes import sounds_of_symbols
from pipeline.text.frontend import phonemize
from pipeline.text.symbols import PAUSES as PAUSE_SYMBOLS

FRAMES_PER_SECOND = 100  # of the aligner
SILENCE = "SIL"
PAUSE_S = 0.24  # a silence this long inside a clip is written as a comma
WORD = re.compile(r"'*[a-z][a-z']*")  # an apostrophe alone is none
VARIANT = re.compile(r"\(\d+\)")  # at the end of the second and later pronunciations of a word

Pronounce = Callable[[str], list[list[str]]]
"""A lower-case word to its pronunciations, ARPAbet with stress digits."""


@dataclass(frozen=True)
class Phone:
    """One phone, comma or full stop and the time it takes; symbols are those of the v2 table."""

    symbol: str
    start_s: float
    end_s: float
    word: int  # index of the word (in Mandarin: syllable) it belongs to, -1 for pauses
    sound_starts_s: tuple[float, ...] = ()  # of each of its sounds, where it has not just one

    def sounds(self) -> Iterator[tuple[str, float, float]]:
        """The classes of `models.phones.phone_classes` it is made of, with their times; a pause gives silence."""
        spelled = sounds_of_symbols()[self.symbol]
        if self.word < 0:
            yield SILENCE, self.start_s, self.end_s
            return
        starts = (self.sound_starts_s or (self.start_s,)) if spelled else ()
        yield from zip(spelled, starts, (*starts[1:], self.end_s), strict=False)


@dataclass(frozen=True)
class _Variant:
    """One way to say a word: its symbols, and the aligner's phones for each of them."""

    symbols: tuple[str, ...]
    sounds: tuple[tuple[str, ...], ...]


class Recogniser:
    """Words of English speech by PocketSphinx' bundled models, at a setting that favours speed."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder  # an optional package, needed for this step alone

        self._decoder = Decoder(
            loglevel="FATAL", fwdflat=False, bestpath=False, maxhmmpf=1500, maxwpf=10, pl_window=5, ds=2
        )

    def words(self, samples: NDArray[np.int16]) -> str:
        """What is said in a 16 kHz clip, words separated by blanks."""
        self._decoder.start_utt()
        self._decoder.process_raw(samples.tobytes(), full_utt=True)
        self._decoder.end_utt()
        heard = [VARIANT.sub("", entry.word) for entry in self._decoder.seg()]
        return " ".join(word for word in heard if not word.startswith(("<", "[", "+")))


class Aligner:
    """Aligns English and Mandarin clips; numbers must be spelled out in English."""

    def __init__(self, pronounce: Pronounce) -> None:
        from pocketsphinx import Decoder  # an optional package, needed for this step alone

        self._pronounce = pronounce
        self._decoder = Decoder(lm=None, loglevel="FATAL", bestpath=False)
        self._variants: dict[str, _Variant] = {}  # by name in the aligner's dictionary

    def align(self, samples: NDArray[np.int16], text: str, language: str = "en") -> list[Phone] | None:
        """Phones of a 16 kHz clip, or None where the words cannot be laid over the sound."""
        words = self._mandarin(text) if language == "zh" else self._english(text)
        if not words or any(word is None for word in words):
            return None
        decoder, data = self._decoder, samples.tobytes()
        try:
            decoder.set_align_text(" ".join(word for word in words if word))
            self._run(data)
            if decoder.hyp() is None:
                return None
            decoder.set_alignment()
            self._run(data)
        except RuntimeError:  # what the aligner raises when no path fits
            return None
        return self._read(len(samples) / 16000)

    def _run(self, data: bytes) -> None:
        self._decoder.start_utt()
        self._decoder.process_raw(data, full_utt=True)
        self._decoder.end_utt()

    def _english(self, text: str) -> list[str | None]:
        """Names in the aligner's dictionary of the words; None for one without a pronunciation."""
        return [
            self._add(f"vx_{word}", [tuple(phones) for phones in self._pronounce(word) if phones])
            for word in WORD.findall(text.lower())
        ]

    def _mandarin(self, text: str) -> list[str | None]:
        """The same of the syllables of a text."""
        read = phonemize(text, "zh", mixed=False)
        if read.word2ph is None or read.unknown:
            return [None]
        ends = np.cumsum(read.word2ph)
        syllables = [read.symbols[end - count : end] for end, count in zip(ends, read.word2ph, strict=True)]
        return [
            self._add("vz_" + "_".join(syllable), [syllable])
            for syllable in syllables
            if syllable[0] not in PAUSE_SYMBOLS
        ]

    def _add(self, name: str, pronunciations: list[tuple[str, ...]]) -> str | None:
        """Put a word into the aligner's dictionary at first sight; its name there, None without a pronunciation.

        The aligner's process dies of a word without sounds.
        """
        if name not in self._variants:
            for index, symbols in enumerate(pronunciations):
                sounds = tuple(sounds_of_symbols()[symbol] for symbol in symbols)
                variant = name if index == 0 else f"{name}({index + 1})"
                self._decoder.add_word(variant, " ".join(sound for spelled in sounds for sound in spelled), update=True)
                self._variants[variant] = _Variant(symbols, sounds)
        return name if pronunciations else None

    def _read(self, duration_s: float) -> list[Phone]:
        alignment = self._decoder.get_alignment()  # kept alive while its entries are read
        phones: list[Phone] = []
        index = 0
        for word in alignment.words():
            start_s, end_s = word.start / FRAMES_PER_SECOND, (word.start + word.duration) / FRAMES_PER_SECOND
            spoken = self._variants.get(word.name)
            if spoken is None:
                if phones and end_s - start_s >= PAUSE_S and end_s < duration_s - 0.1:
                    phones.append(Phone(",", start_s, end_s, -1))
                continue
            starts = [phone.start / FRAMES_PER_SECOND for phone in word]
            phones += _timed(spoken, starts, end_s, index)
            index += 1
        if phones:
            phones.append(Phone(".", phones[-1].end_s, max(duration_s, phones[-1].end_s), -1))
        return phones


def _timed(spoken: _Variant, starts_s: list[float], end_s: float, word: int) -> Iterator[Phone]:
    """The symbols of one word with their times; a symbol without a sound takes none."""
    bounds, first = [*starts_s, end_s], 0
    for symbol, sounds in zip(spoken.symbols, spoken.sounds, strict=True):
        last = first + len(sounds)
        inner = tuple(bounds[first:last]) if len(sounds) > 1 else ()
        yield Phone(symbol, bounds[first], bounds[last], word, inner)
        first = last
