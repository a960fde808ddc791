"""Which phone is spoken when: forced alignment of transcripts with PocketSphinx' bundled English model.

Only the times and the choice among a word's pronunciations come from the aligner; the phones are the dictionary's.
Speech without a transcript gets PocketSphinx' guess, good enough to teach the content encoder other speakers.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FRAMES_PER_SECOND = 100  # of the aligner
SILENCE = "SIL"
PAUSE_S = 0.24  # a silence this long inside a clip is written as a comma
WORD = re.compile(r"[a-z']+")
VARIANT = re.compile(r"\(\d+\)")  # at the end of the second and later pronunciations of a word

Pronounce = Callable[[str], list[list[str]]]
"""A lower-case word to its pronunciations, ARPAbet with stress digits."""


@dataclass(frozen=True)
class Phone:
    """One phone, comma or full stop and the time it takes; symbols are those of the v2 table."""

    symbol: str
    start_s: float
    end_s: float
    word: int  # index of the word it belongs to, -1 for pauses


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
    """Aligns English clips; words must be spelled out."""

    def __init__(self, pronounce: Pronounce) -> None:
        from pocketsphinx import Decoder  # an optional package, needed for this step alone

        self._pronounce = pronounce
        self._decoder = Decoder(lm=None, loglevel="FATAL", bestpath=False)
        self._variants: dict[str, list[str]] = {}  # name in the aligner's dictionary -> phones with stress

    def align(self, samples: NDArray[np.int16], text: str) -> list[Phone] | None:
        """Phones of a 16 kHz clip, or None where the words cannot be laid over the sound."""
        words = [self._add(word) for word in WORD.findall(text.lower())]
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

    def _add(self, word: str) -> str | None:
        """Name of `word` in the aligner's dictionary, its pronunciations added at first sight."""
        name = f"vx_{word}"
        if name in self._variants:
            return name
        pronunciations = self._pronounce(word)
        for index, phones in enumerate(pronunciations):
            variant = name if index == 0 else f"{name}({index + 1})"
            self._decoder.add_word(variant, " ".join(phone.rstrip("012") for phone in phones), update=True)
            self._variants[variant] = phones
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
            for symbol, phone in zip(spoken, word, strict=True):
                start = phone.start / FRAMES_PER_SECOND
                phones.append(Phone(symbol, start, start + phone.duration / FRAMES_PER_SECOND, index))
            index += 1
        if phones:
            phones.append(Phone(".", phones[-1].end_s, max(duration_s, phones[-1].end_s), -1))
        return phones
