"""Semantic tokens that can be trusted: generation, what went wrong with it, and another try where it did.

The text-to-semantic network now and then repeats itself, stops early or never ends (SPEC section 11). All of that
shows in the tokens, before anything is decoded to sound.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.configs.text2semantic import SamplingConfig
from models.decoding import Decoder, Request

Problem = Literal["no_end", "too_short", "too_long", "loop"]

FASTEST_PHONES_PER_S, SLOWEST_PHONES_PER_S = 25.0, 3.0  # GPT-SoVITS trains on nothing outside (SPEC 6.4)
QUICKER, SLOWER = 0.4, 2.5  # against the tempo of the reference clip
SLACK_S = 1.0  # pauses and breaths, which no phone counts
LOOP_ROUNDS = 3  # the same stretch so often is no speech
LOOP_MIN_S = 0.8
LONGEST_PAUSE_S = 1.6  # silence may be one token over and over
LOOP_MAX_PERIOD_S = 2.0


@dataclass(frozen=True)
class Tempo:
    """How many tokens a text may take."""

    fewest: int
    most: int


@dataclass(frozen=True)
class Attempt:
    """One try at a sentence and what is wrong with it; nothing, if `problems` is empty."""

    seed: int
    tokens: tuple[int, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Task:
    """A sentence to generate: phones and BERT features of prompt and sentence together, and of the sentence alone."""

    phones: Tensor  # (X,) prompt phones, then the sentence's
    own_phones: int
    bert: Tensor | None  # (bert_dim, X)
    prompt: Tensor | None  # (N,)


def expected_tempo(own_phones: int, prompt_phones: int, prompt_tokens: int, rate_hz: float) -> Tempo:
    """Bounds from what speech can be, narrowed by the tempo of the prompt where there is one."""
    fewest, most = own_phones / FASTEST_PHONES_PER_S, own_phones / SLOWEST_PHONES_PER_S
    if prompt_phones and prompt_tokens:
        likely_s = own_phones * prompt_tokens / prompt_phones / rate_hz
        fewest, most = max(fewest, QUICKER * likely_s), min(most, SLOWER * likely_s)
        most = max(most, fewest)
    return Tempo(int(fewest * rate_hz), int((most + SLACK_S) * rate_hz) + 1)


def find_loop(tokens: Sequence[int], rate_hz: float) -> bool:
    """Whether a stretch of tokens is said three times in a row over at least 0.8 s, or one token for 1.6 s."""
    longest_period = min(int(LOOP_MAX_PERIOD_S * rate_hz), len(tokens) // LOOP_ROUNDS)
    return any(_repeats(tokens, period, rate_hz) for period in range(1, longest_period + 1))


def _repeats(tokens: Sequence[int], period: int, rate_hz: float) -> bool:
    shortest = int((LONGEST_PAUSE_S if period == 1 else LOOP_MIN_S) * rate_hz)
    needed, run = max((LOOP_ROUNDS - 1) * period, shortest - period), 0
    for index in range(period, len(tokens)):
        run = run + 1 if tokens[index] == tokens[index - period] else 0
        if run >= needed and (period == 1 or len(set(tokens[index - period : index])) > 1):
            return True
    return False


def find_problems(tokens: Sequence[int], ended: bool, tempo: Tempo, rate_hz: float) -> tuple[Problem, ...]:
    """What is wrong with generated tokens."""
    found: list[Problem] = []
    if not ended:
        found.append("no_end")
    if len(tokens) < tempo.fewest:
        found.append("too_short")
    if len(tokens) > tempo.most:
        found.append("too_long")
    if find_loop(tokens, rate_hz):
        found.append("loop")
    return tuple(found)


def derive_seed(seed: int, phones: Tensor, attempt: int) -> int:
    """A seed for one try at one sentence: the same wherever in a text, or in a batch, the sentence stands."""
    content = f"{seed}/{attempt}/{phones.tolist()}".encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:7], "big")


def task_tempo(task: Task, rate_hz: float) -> Tempo:
    prompt_tokens = 0 if task.prompt is None else len(task.prompt)
    return expected_tempo(task.own_phones, len(task.phones) - task.own_phones, prompt_tokens, rate_hz)


def task_sampling(tempo: Tempo, rate_hz: float, sampling: SamplingConfig) -> SamplingConfig:
    """Cut off a second after what is credible: a loop would otherwise run on for a minute."""
    limit = min(sampling.max_tokens, max(tempo.most + int(rate_hz), sampling.min_tokens + 1))
    return sampling.model_copy(update={"max_tokens": limit})


def generate_checked(
    decoder: Decoder, tasks: Sequence[Task], seed: int, sampling: SamplingConfig, attempts: int, batch_size: int
) -> list[tuple[Attempt, ...]]:
    """Every task's tries, the chosen one last: the first without a problem, or else the least bad of all.

    Tasks run in batches of similar length; a row's tokens depend on its own phones and seed alone.
    """
    rate_hz = decoder.config.token_rate_hz
    tries: list[list[Attempt]] = [[] for _ in tasks]
    tempos = [task_tempo(task, rate_hz) for task in tasks]
    waiting = sorted(range(len(tasks)), key=lambda index: tempos[index].most)
    for attempt in range(attempts):
        for start in range(0, len(waiting), batch_size):
            batch = waiting[start : start + batch_size]
            seeds = [derive_seed(seed, tasks[index].phones[-tasks[index].own_phones :], attempt) for index in batch]
            requests = [
                Request(tasks[index].phones, row_seed, tasks[index].bert, tasks[index].prompt)
                for index, row_seed in zip(batch, seeds, strict=True)
            ]
            limits = [task_sampling(tempos[index], rate_hz, sampling).max_tokens for index in batch]
            generated = decoder.generate(requests, sampling, limits)
            for index, row_seed, found in zip(batch, seeds, generated, strict=True):
                problems = find_problems(found.tokens, found.ended, tempos[index], rate_hz)
                tries[index].append(Attempt(row_seed, found.tokens, problems))
        waiting = [index for index in waiting if tries[index][-1].problems]
    return [_chosen_last(found, tempo) for found, tempo in zip(tries, tempos, strict=True)]


def _chosen_last(tries: list[Attempt], tempo: Tempo) -> tuple[Attempt, ...]:
    middle = (tempo.fewest + tempo.most) / 2
    best = min(tries, key=lambda one: (len(one.problems), abs(len(one.tokens) - middle)))
    return (*[one for one in tries if one is not best], best)


def join_bert(parts: Sequence[tuple[int, Tensor | None]], bert_dim: int) -> Tensor | None:
    """BERT features of texts one after another, (bert_dim, X), zeros where a text of so many phones has none."""
    if not bert_dim or all(bert is None for _, bert in parts):
        return None
    return torch.cat([torch.zeros(bert_dim, count) if bert is None else bert for count, bert in parts], dim=1)
