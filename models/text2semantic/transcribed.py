"""Content features of a recording whose text is known: evidence of phones that the text does not hold is taken away.

A small encoder mishears half the phones of a speaker it never met, and tokens inherit that. Where the text is known,
the hidden Markov model of the guide (`models/text2semantic/guidance.py`), run forward and backward over the recording,
tells which phone is due at every token. Features made of that, with the recording's pitch, voicing and level, become
tokens that say the text: of four unheard speakers 0.07 to 0.11 of the phones are wrong afterwards, 0.51 to 0.71 before.

Letters: D width of the content features, P phone classes, T frames at 50 Hz, Y tokens, S states, N tokens that a phone
may last, X symbols of a text.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.text2semantic.guidance import LONGEST_SKIP, NEVER, SILENCE, States, TextReader, phone_hazard

CALM = 0.6  # exponent of the evidence: neighbouring frames err together
LEAST_SKIP, MOST_SKIP = 1e-3, 0.5  # chance of a phone too short for a token
BREATH = 0.05  # how fitting silence is inside speech
PAUSED = -1
HEARD = 0.15  # how much of what was heard is kept beside what the text says


@torch.no_grad()
def follow_text(content: Tensor, phones: Tensor, guide: TextReader, frames_per_token: int) -> Tensor:
    """Content features (D, T), T a multiple of `frames_per_token`, of a text (X,) of symbol ids: (D, T).

    What they are where the guide cannot read the text, or where the recording is too short for it.
    """
    classes = guide.said.shape[1]
    heard = content[:classes].float().square().unflatten(1, (-1, frames_per_token)).mean(2).T  # (P, T) -> (Y, P)
    due = phones_due(heard, phones, guide)
    if due is None:
        return content
    mixed = (1 - HEARD) * due + HEARD * heard
    evidence = mixed.sqrt().T.repeat_interleave(frames_per_token, dim=1)  # (Y, P) -> (P, T)
    return torch.cat([evidence.to(content.dtype), content[classes:]])


def phones_due(heard: Tensor, phones: Tensor, guide: TextReader) -> Tensor | None:
    """Chance of every class at every token (Y, P), given the posteriors heard (Y, P) and the text (X,); or None."""
    found = _due(heard, phones, guide)
    if found is None:
        return None
    states, place, share = found
    due = torch.zeros_like(heard).index_add_(1, states.classes.to(heard.device), share)
    due[:, SILENCE] += (place - share).sum(1)
    return due


@torch.no_grad()
def states_spoken(tokens: Tensor, phones: Tensor, guide: TextReader) -> tuple[States, Tensor] | None:
    """Which state of a text (X,) each of the tokens (Y,) speaks, PAUSED where it pauses in one: (Y,). States never go
    back. None as for `phones_due`."""
    found = _due(guide.said.float()[tokens], phones, guide)
    if found is None:
        return None
    states, place, share = found
    path = _rising(place)
    chance, sound = (one.gather(1, path[:, None])[:, 0] for one in (place, share))
    sounded = (sound > chance / 2) & (states.classes.to(path.device)[path] != SILENCE)
    return states, torch.where(sounded, path, PAUSED)


def _rising(place: Tensor) -> Tensor:
    """The path through chances (Y, S) that never goes back and meets the most of them: (Y,)."""
    best, steps = place[0], []
    for chances in place[1:]:
        highest = best.cummax(0)
        steps.append(highest.indices)
        best = highest.values + chances
    path = [int(best.argmax())]
    for step in reversed(steps):
        path.append(int(step[path[-1]]))
    return torch.tensor(path[::-1], device=place.device)


def _due(heard: Tensor, phones: Tensor, guide: TextReader) -> tuple[States, Tensor, Tensor] | None:
    """States of a text, the chance of each at every token (Y, S), and what of that is sound and no pause (Y, S)."""
    states = guide.states(phones)
    if states is None:
        return None
    classes = states.classes.to(heard.device)
    lasting = guide.lasting.float()[states.durations.clamp(min=0)].to(heard.device)  # (S, N + 1)
    leave = phone_hazard(lasting[:, 1:])
    leave[-1] = 0.0  # the last state is the end: nothing leaves it, and no token is spoken in it
    arrive = _arrivals(lasting[:, 0])
    spoken = heard[:, classes].clamp(min=NEVER) ** CALM
    pause = BREATH * heard[:, SILENCE, None].clamp(min=NEVER) ** CALM
    fitting = spoken + pause
    fitting[:, -1] = 0.0
    place = _places(fitting, leave, arrive)
    return None if place is None else (states, place, place * spoken / (spoken + pause))


def _arrivals(skip: Tensor) -> Tensor:
    """(S,) chances to be skipped -> (S, S): whoever would come to state i comes to state j >= i."""
    skip = skip.clamp(LEAST_SKIP, MOST_SKIP)
    skip[-1] = 0.0
    coming, found = torch.eye(len(skip), device=skip.device), torch.zeros(len(skip), len(skip), device=skip.device)
    for _ in range(LONGEST_SKIP + 1):
        found += coming * (1 - skip)
        coming = F.pad(coming * skip, (1, -1))
    return found


def _places(fitting: Tensor, leave: Tensor, arrive: Tensor) -> Tensor | None:
    """Forward and backward: fitting (Y, S), leave (S, N), arrive (S, S) -> chance of every state (Y, S).

    None where no path leads from the first token to the end.
    """
    state = torch.zeros_like(leave)
    state[:, 0] = arrive[0]
    forward = []
    for fits in fitting:
        here = state * fits[:, None]
        total = here.sum()
        if total <= 0:
            return None
        forward.append(here / total)
        leaving = forward[-1] * leave
        state = _longer(forward[-1] - leaving)
        state[:, 0] += F.pad(leaving.sum(1), (1, -1)) @ arrive
    places = []
    onward = leave * F.pad(arrive[1:, -1], (0, 1))[:, None]  # after the last token the end has to be reached
    for here, fits in zip(reversed(forward), reversed(fitting), strict=True):
        place = (here * onward).sum(1)
        if place.sum() <= 0:
            return None
        places.append(place / place.sum())
        worth = onward * fits[:, None]
        going = F.pad((arrive @ worth[:, 0])[1:], (0, 1))[:, None]
        staying = torch.cat([worth[:, 1:], worth[:, -1:]], dim=1)
        onward = leave * going + (1 - leave) * staying
        onward = onward / onward.max().clamp(min=1e-30)
    return torch.stack(places[::-1])


def _longer(state: Tensor) -> Tensor:
    """(S, N) one token later; longer than the longest counts as the longest."""
    moved = F.pad(state, (1, -1))
    moved[:, -1] += state[:, -1]
    return moved
