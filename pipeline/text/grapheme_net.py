"""Letters to ARPAbet for words outside the dictionary: the GRU net whose weights ship in the ``g2p_en`` wheel.

29 graphemes and 74 phonemes, embeddings of 64, hidden size 128, greedy decoding of at most 20 phones (Park and Kim,
g2p_en 2.1.0, Apache-2.0). The weights are plain arrays in an npz file; pickled objects are refused.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from pipeline.text.packages import package_file, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

_GRAPHEMES = {letter: number for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz", start=3)}
_UNKNOWN_GRAPHEME, _END_GRAPHEME = 1, 2
_START, _END = 2, 3
_MOST_PHONES = 20
_VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY")
_CONSONANTS_AND_MORE = (
    "B CH D DH EH0 EH1 EH2 ER0 ER1 ER2 EY0 EY1 EY2 F G HH IH0 IH1 IH2 IY0 IY1 IY2 JH K L M N NG "
    "OW0 OW1 OW2 OY0 OY1 OY2 P R S SH T TH UH0 UH1 UH2 UW UW0 UW1 UW2 V W Y Z ZH"
)
_PHONES = (
    "", "UNK", "", "",  # padding, unknown, start, end
    *(f"{vowel}{stress}" for vowel in _VOWELS for stress in range(3)),
    *_CONSONANTS_AND_MORE.split(" "),
)  # fmt: skip


def predict(word: str) -> list[str]:
    """Phones of a lower-case word; letters outside a to z count as unknown."""
    weights = _weights()
    hidden = weights["enc_w_hh"][0] * 0  # (128,)
    for letter in [_GRAPHEMES.get(letter, _UNKNOWN_GRAPHEME) for letter in word] + [_END_GRAPHEME]:
        hidden = _gru(weights, "enc", weights["enc_emb"][letter], hidden)
    phones: list[str] = []
    phone = _START
    for _ in range(_MOST_PHONES):
        hidden = _gru(weights, "dec", weights["dec_emb"][phone], hidden)
        phone = int((weights["fc_w"] @ hidden + weights["fc_b"]).argmax())
        if phone == _END:
            break
        phones.append(_PHONES[phone])
    return [name for name in phones if name and name != "UW"]  # "UW" without stress is not in the symbol table


def _gru(weights: dict[str, Array], part: str, value: Array, hidden: Array) -> Array:
    """One step of a GRU (Cho et al. 2014), gates reset, update, new: value (64,), hidden (128,) -> (128,)."""
    numpy = require("numpy", "en")
    size = hidden.shape[0]
    of_input = weights[f"{part}_w_ih"] @ value + weights[f"{part}_b_ih"]
    of_hidden = weights[f"{part}_w_hh"] @ hidden + weights[f"{part}_b_hh"]
    gates = 1 / (1 + numpy.exp(-(of_input[: 2 * size] + of_hidden[: 2 * size])))
    reset, update = gates[:size], gates[size:]
    new = numpy.tanh(of_input[2 * size :] + reset * of_hidden[2 * size :])
    result: Array = (1 - update) * new + update * hidden
    return result


@cache
def _weights() -> dict[str, Array]:
    numpy = require("numpy", "en")
    with numpy.load(package_file("g2p_en", "checkpoint20.npz", "en"), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
