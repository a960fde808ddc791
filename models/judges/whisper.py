"""Whisper (Radford et al. 2022), multilingual, by CTranslate2 in int8: which words were said, when, and how surely.

Its encoder takes a clip in a window as long as the clip; its decoder finds an end only with silence behind, so the
encoder's vectors of silence are put there. The usual window of 30 s costs four times as much and hears the same
(docs/evaluation.md). One thread for each clip: clips are heard side by side. The same clip gives the same words.

Some sentences make the decoder begin again and write them twice, or without end. Where it finds no end, writes the
same again and again, or words that take no time, it is asked once more without repetitions; Whisper's own program draws
words by lot there, which would not give the same words twice.
Letters: N samples, T frames of 20 ms.
"""

from __future__ import annotations

import re
import string
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.configs.synthesizer import MelConfig
from models.errors import WeightsError
from models.sound.spectrogram import mel_filters

SAMPLE_RATE_HZ = 16_000
LANGUAGES = ("en", "zh", "ja", "ko")
ASKED = 2  # to be raised when the same network is asked in another way, and may hear something else
LONGEST_S = 29.0  # of one clip; its window of 30 s needs an end to hear
_SPACELESS = ("zh", "ja")
_FFT, _HOP, _MELS = 400, 160, 80
_FRAME_SAMPLES = 2 * _HOP
_FRAME_S = _FRAME_SAMPLES / SAMPLE_RATE_HZ
_WINDOW_FRAMES = 1500
_TAIL_FRAMES = 25  # of silence heard together with the clip, so that its last sound does not end at a wall
_MOST_TOKENS = 224
_TOKENS, _TOKENS_PER_S = (
    24,
    12,
)  # at most; recordings have up to 17 letters a second in English, 5 characters in Mandarin
_TIMELESS_WORDS = 3  # in a row: nobody said them
_COMPRESSION = 2.4  # Whisper's own limit: bytes of the text per byte of it packed by zlib
_REPEATED_PIECES = 3
_BEAM = 5
_RANGE = 8.0  # decades below the loudest
_NO_SPEECH, _GUESS_LOGPROB = 0.6, -1.0  # Whisper's own rule: beyond both, it made something up for silence
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Word:
    """A word, or a character or two of a language that writes no spaces. ``probability``: mean over its pieces."""

    text: str
    start_s: float
    end_s: float
    probability: float


@dataclass(frozen=True)
class Heard:
    """What was heard in one clip.

    Attributes:
        text: as Whisper writes it, with its marks and digits; empty where nobody speaks.
        words: with times from the start of the clip, where they were asked for.
        no_speech: probability that nobody speaks.
        mean_logprob: of its pieces; below -1 it guesses.
        duration_s: of the clip.
    """

    text: str
    words: tuple[Word, ...]
    no_speech: float
    mean_logprob: float
    duration_s: float


class Whisper:
    """One of OpenAI's multilingual networks, converted. Safe to ask from as many threads as it was loaded for."""

    def __init__(self, folder: Path, threads: int) -> None:
        import ctranslate2
        from tokenizers import Tokenizer

        try:
            self._pieces: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._model: Any = ctranslate2.models.Whisper(
                str(folder), device="cpu", compute_type="int8", intra_threads=1, inter_threads=threads
            )
        except Exception as error:  # noqa: BLE001 - both libraries raise plain Exception and RuntimeError
            raise WeightsError(f"{folder}: not a Whisper model for CTranslate2: {str(error)[:100]}") from None
        self._array = ctranslate2.StorageView.from_array
        self._end = self._pieces.token_to_id("<|endoftext|>")
        self._silence = self._encode(log_mels(np.zeros(0, np.float32), _WINDOW_FRAMES))

    def hear(self, samples: Samples, language: str, *, timed: bool = False) -> Heard:
        """Mono 16 kHz (N,) -> what was said. What is longer than ``LONGEST_S`` is left out.

        Args:
            timed: and when each word was, which takes the decoder over the clip once more, a fifth of the time.

        Raises:
            ValueError: a language that was not tried.
        """
        if language not in LANGUAGES:
            raise ValueError(f"language {language!r}; Whisper is asked for {', '.join(LANGUAGES)}")
        samples = samples[: round(LONGEST_S * SAMPLE_RATE_HZ)]
        spoken = -(-len(samples) // _FRAME_SAMPLES)  # (T,)
        vectors = self._encode(log_mels(samples, spoken + _TAIL_FRAMES))
        window = self._array(np.concatenate([vectors, self._silence[:, vectors.shape[1] :]], axis=1))
        start = [self._pieces.token_to_id(f"<|{name}|>") for name in ("startoftranscript", language, "transcribe")]
        prompt = [*start, self._pieces.token_to_id("<|notimestamps|>")]
        told, tokens = self._write(window, prompt, samples)
        words = self._words(window, prompt, tokens, spoken, language) if timed or self._is_twofold(tokens) else ()
        if self._goes_round(tokens, words, samples):
            told, tokens = self._write(window, prompt, samples, no_repeat_ngram_size=_REPEATED_PIECES)
            words = self._words(window, prompt, tokens, spoken, language) if timed else ()
        return Heard(
            text=self._pieces.decode(tokens).strip(),
            words=words if timed else (),
            no_speech=float(told.no_speech_prob),
            mean_logprob=float(told.scores[0]),
            duration_s=len(samples) / SAMPLE_RATE_HZ,
        )

    def _write(self, window: Any, prompt: list[int], samples: Samples, **more: int) -> tuple[Any, list[int]]:
        """What the decoder says of it, and its pieces; none where it made something up for silence."""
        told = self._model.generate(
            window,
            [prompt],
            beam_size=_BEAM,
            max_length=_most_tokens(samples),
            return_scores=True,
            return_no_speech_prob=True,
            **more,
        )[0]
        is_speech = told.no_speech_prob < _NO_SPEECH or told.scores[0] > _GUESS_LOGPROB
        return told, [token for token in told.sequences_ids[0] if token < self._end and is_speech]

    def _is_twofold(self, tokens: Sequence[int]) -> bool:
        """A stretch comes twice in a row."""
        letters = "".join(filter(str.isalnum, self._pieces.decode(list(tokens)).casefold()))
        return re.search(r"(.{6,})\1", letters) is not None

    def _goes_round(self, tokens: Sequence[int], words: Sequence[Word], samples: Samples) -> bool:
        """It found no end, wrote the same again and again, or words that nobody had time to say."""
        timeless, longest = 0, 0
        for word in words:
            timeless = timeless + 1 if word.end_s <= word.start_s else 0
            longest = max(longest, timeless)
        is_long = len(tokens) >= _most_tokens(samples)
        return is_long or longest >= _TIMELESS_WORDS or compression(self._pieces.decode(list(tokens))) > _COMPRESSION

    def _encode(self, mels: Samples) -> Samples:
        """(80, 2 T) -> (1, T, 512)."""
        vectors: Samples = np.array(self._model.encode(self._array(mels[None])))
        return vectors

    def _words(
        self, window: Any, prompt: Sequence[int], tokens: list[int], frames: int, language: str
    ) -> tuple[Word, ...]:
        """Times by where the decoder looks while it writes (cross-attention, dynamic time warping)."""
        if not tokens:
            return ()
        frames = max(frames, 1)
        aligned = self._model.align(window, list(prompt), [tokens], 2 * (frames + _TAIL_FRAMES))[0]
        starts: dict[int, int] = {}
        for token, frame in aligned.alignments:
            starts.setdefault(token, frame)
        probabilities = aligned.text_token_probs
        words, at = [], 0
        for text, count in self._split(tokens, language):
            first = min(starts.get(at, frames), frames)
            last = min(starts.get(at + count, frames), frames)
            probability = float(np.mean(probabilities[at : at + count]))
            words.append(Word(text, first * _FRAME_S, last * _FRAME_S, probability))
            at += count
        return tuple(words)

    def _split(self, tokens: list[int], language: str) -> list[tuple[str, int]]:
        """Words and how many tokens each has; marks belong to the word before them."""
        words: list[tuple[str, int]] = []
        held: list[int] = []
        for token in tokens:
            held.append(token)
            piece = self._pieces.decode(held)
            if piece.endswith(_REPLACEMENT):  # a character of several tokens
                continue
            is_mark = not any(letter.isalnum() for letter in piece)
            begins = not words or (not is_mark and (language in _SPACELESS or piece.startswith(" ")))
            if begins:
                words.append((piece, len(held)))
            else:
                words[-1] = (words[-1][0] + piece, words[-1][1] + len(held))
            held = []
        if held and words:
            words[-1] = (words[-1][0], words[-1][1] + len(held))
        return [(text.strip(string.whitespace), count) for text, count in words]


def _most_tokens(samples: Samples) -> int:
    return min(_MOST_TOKENS, _TOKENS + round(_TOKENS_PER_S * len(samples) / SAMPLE_RATE_HZ))


def compression(text: str) -> float:
    """How much of a text is said again: bytes of it per byte of it packed."""
    plain = text.encode()
    return len(plain) / len(zlib.compress(plain))


def log_mels(samples: Samples, frames: int) -> Samples:
    """Mono 16 kHz (N,), silence behind it -> Whisper's log mel spectrogram, (80, 2 frames)."""
    count = 2 * frames
    filled = np.zeros(count * _HOP + _FFT, np.float32)
    filled[_FFT // 2 : _FFT // 2 + len(samples)] = samples
    filled[: _FFT // 2] = filled[_FFT : _FFT // 2 : -1]  # reflected, as it was trained
    windows = np.lib.stride_tricks.sliding_window_view(filled, _FFT)[::_HOP][:count]
    taper = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FFT) / _FFT)).astype(np.float32)
    spectrum = np.fft.rfft(windows * taper, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32) @ _mel_filters().T
    level = np.log10(np.maximum(power, 1e-10))
    return np.ascontiguousarray((np.maximum(level, level.max() - _RANGE) + 4.0).T / 4.0, dtype=np.float32)


@cache
def _mel_filters() -> Samples:
    """(80, 201)."""
    config = MelConfig(sample_rate_hz=SAMPLE_RATE_HZ, n_fft=_FFT, win_samples=_FFT, hop_samples=_HOP, n_mels=_MELS)
    filters: Samples = mel_filters(config).numpy()
    return filters


@cache
def load_whisper(folder: Path, threads: int = 1) -> Whisper:
    """The network of a folder that CTranslate2's converter wrote; for so many clips at a time.

    Raises:
        WeightsError: it holds something else. ModuleNotFoundError: ctranslate2 is not installed.
    """
    return Whisper(folder, threads)
