"""The phones of a text laid along its tokens: which is spoken in every frame of 20 ms, and where in it the frame is.

Letters: Y tokens, T = Y times the frames of a token, X symbols of a text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from models.phones.phone_classes import pause_ids
from models.phones.symbols import load_symbols
from models.text2semantic.guidance import SILENCE, States, TextReader
from models.text2semantic.transcribed import PAUSED, states_spoken

PAUSE = "SP"  # the symbol of every pause
FRAME_S, USUAL_S = 0.02, 0.08  # of a phone's length


@dataclass(frozen=True)
class Laid:
    """symbols (T,), int64; places (T, 2): how far in the phone, -1 to 1, and the log of its length against USUAL_S."""

    symbols: Tensor
    places: Tensor


@dataclass(frozen=True)
class _Stretch:
    symbol: int
    frames: int


def lay_text(tokens: Tensor, phones: Tensor, guide: TextReader, frames_per_token: int) -> Laid | None:
    """Tokens (Y,) and symbol ids (X,) of what they say; None where the guide cannot read the text or lay it so."""
    found = states_spoken(tokens, phones, guide)
    if found is None:
        return None
    states, path = found
    return lay_out(_stretches(states, path.tolist(), frames_per_token))


def symbol_spans(tokens: Tensor, phones: Tensor, guide: TextReader) -> list[tuple[int, int] | None] | None:
    """From which token to before which each symbol (X,) is spoken; None of a symbol that no token says.

    None at all where the guide cannot read the text or find it in the tokens (Y,).
    """
    found = states_spoken(tokens, phones, guide)
    if found is None:
        return None
    states, path = found
    spans: list[tuple[int, int] | None] = [None] * len(phones)
    for token, state in enumerate(path.tolist()):
        origin = None if state == PAUSED else states.origins[state]
        if origin is not None:
            before = spans[origin]
            spans[origin] = (token if before is None else before[0], token + 1)
    return spans


def lay_evenly(phones: Tensor, frames: int) -> Laid:
    """Symbols (X,) each as long as the others: for tokens that do not say their text."""
    pause = load_symbols("v2").index(PAUSE)
    places = torch.arange(frames) * len(phones) // frames
    kept, counts = torch.unique_consecutive(places, return_counts=True)
    symbols = [pause if one in pause_ids() else one for one in phones[kept].tolist()]
    return lay_out([_Stretch(one, count) for one, count in zip(symbols, counts.tolist(), strict=True)])


def lay_out(stretches: Sequence["_Stretch"]) -> Laid:
    """Phones one after another as frames."""
    counts = torch.tensor([one.frames for one in stretches])
    within = torch.cat([torch.arange(one.frames) for one in stretches]) + 0.5
    far = within / counts.repeat_interleave(counts) * 2 - 1
    long = (counts * FRAME_S / USUAL_S).log().repeat_interleave(counts)
    symbols = torch.tensor([one.symbol for one in stretches]).repeat_interleave(counts)
    return Laid(symbols, torch.stack([far, long], 1).float())


def _stretches(states: States, path: list[int], frames_per_token: int) -> list[_Stretch]:
    """Phones with their frames. One too short for a token takes a frame of a neighbour that can spare it."""
    runs: list[tuple[int, int]] = []  # state or PAUSED, frames
    for state in path:
        if runs and runs[-1][0] == state:
            runs[-1] = (state, runs[-1][1] + frames_per_token)
        else:
            runs.append((state, frames_per_token))
    spoken = [place for place, (state, _) in enumerate(runs) if state != PAUSED]
    inserted: dict[int, list[int]] = {}
    for first, second in pairwise(spoken):
        missing = [s for s in range(runs[first][0] + 1, runs[second][0]) if states.classes[s] != SILENCE]
        for state in missing:
            giver = max((first, second), key=lambda place: runs[place][1])
            if runs[giver][1] < 2:
                break
            runs[giver] = (runs[giver][0], runs[giver][1] - 1)
            inserted.setdefault(second, []).append(state)
    pause, found = load_symbols("v2").index(PAUSE), list[_Stretch]()
    facts = states.symbols[:, :3].tolist()  # the same for all sounds of one symbol
    before: list[int] | None = None
    for place, (state, frames) in enumerate(runs):
        for missing_state in inserted.get(place, []):
            found.append(_Stretch(facts[missing_state][1], 1))
        if state == PAUSED:
            found.append(_Stretch(pause, frames))
            before = None
        elif before == facts[state] and not inserted.get(place):
            found[-1] = _Stretch(found[-1].symbol, found[-1].frames + frames)
        else:
            found.append(_Stretch(facts[state][1], frames))
            before = facts[state]
    return found
