"""Semantic tokens that can be trusted: generation, what went wrong with it, and another try where it did.

The text-to-semantic network now and then repeats itself, stops early or never ends (docs/networks/speaking.md). All of
that shows in the tokens, before anything is decoded to sound: in their number, and where a base's codes tell their
phone, in what they say.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from models.configs.text2semantic import SamplingConfig
from models.text2semantic.coverage import Coverage, compare
from models.text2semantic.decoding import Decoder, Generation, Request
from models.text2semantic.guidance import TextGuide

Item = TypeVar("Item")
Problem = Literal["no_end", "too_short", "too_long", "loop", "dropped", "added", "unclear"]

# Beyond the extremes of 849 transcribed recordings by a quarter (tempo) and a tenth (against another clip of the same
# speaker): English 4.6 to 14.2 phones a second, Mandarin 4.8 to 9.6; two clips of a speaker differ by 0.49 to 2.09.
FASTEST_PHONES_PER_S, SLOWEST_PHONES_PER_S = 18.0, 3.5
QUICKER, SLOWER = 0.45, 2.25
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
    """One try at a sentence and what is wrong with it; nothing, if `problems` is empty.

    `coverage` tells what the tokens say of the text, where the base's codes tell their phone.
    """

    seed: int
    tokens: tuple[int, ...]
    problems: tuple[Problem, ...]
    coverage: Coverage | None = None


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


def find_misreadings(coverage: Coverage, guide: TextGuide) -> tuple[Problem, ...]:
    """What is wrong with what tokens say, against the limits of recordings."""
    found: list[Problem] = []
    if coverage.longest_gap > guide.config.longest_gap:
        found.append("dropped")
    if coverage.longest_addition > guide.config.longest_addition:
        found.append("added")
    if coverage.error_rate > guide.config.largest_error_rate:
        found.append("unclear")
    return tuple(found)


def listen(tokens: Sequence[int], phones: Tensor, guide: TextGuide | None) -> Coverage | None:
    """What tokens say of a text (X,), or None where nobody can tell."""
    said = None if guide is None else guide.classes_of(phones)
    if guide is None or not said:
        return None
    return compare(tokens, said, guide.said.double().cpu().numpy())


def judge(decoder: Decoder, task: Task, tempo: Tempo, seed: int, generated: Generation) -> Attempt:
    """One try with all that is wrong with it."""
    tokens, rate_hz = generated.tokens, decoder.config.token_rate_hz
    problems = find_problems(tokens, generated.ended, tempo, rate_hz)
    guide = decoder.network.guide
    coverage = listen(tokens, task.phones, guide)
    if guide is not None and coverage is not None:
        problems += find_misreadings(coverage, guide)
    return Attempt(seed, tokens, problems, coverage)


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


Watch = Callable[[Sequence[Item], str], Iterable[Item]]
"""Lets somebody see how far a loop has come: gives back what it is given, one by one. The words say what is done."""


def unwatched(items: Sequence[Item], _: str) -> Iterable[Item]:
    """Nobody looks."""
    return items


@dataclass(frozen=True)
class Effort:
    """How often a sentence is tried, at most, and how many rows are generated at once. Each try is the best of
    `sampling.candidates`."""

    seed: int
    sampling: SamplingConfig
    attempts: int
    batch_size: int = 8


def generate_checked(
    decoder: Decoder, tasks: Sequence[Task], effort: Effort, watch: Watch = unwatched
) -> list[tuple[Attempt, ...]]:
    """Every task's tries, the chosen one last: the first without a problem, or else the least bad of all.

    Tasks run in batches of similar length; a row's tokens depend on its own phones and seed alone.
    """
    rate_hz, sampling = decoder.config.token_rate_hz, effort.sampling
    tries: list[list[Attempt]] = [[] for _ in tasks]
    tempos = [task_tempo(task, rate_hz) for task in tasks]
    waiting = sorted(range(len(tasks)), key=lambda index: tempos[index].most)
    tasks_at_once = max(1, effort.batch_size // sampling.candidates)
    for attempt in range(effort.attempts):
        numbers = range(attempt * sampling.candidates, (attempt + 1) * sampling.candidates)
        batches = range(0, len(waiting), tasks_at_once)
        for start in watch(batches, "another try of some sentences" if attempt else "choosing sounds"):
            batch = waiting[start : start + tasks_at_once]
            rows = [
                (index, derive_seed(effort.seed, tasks[index].phones[-tasks[index].own_phones :], number))
                for index in batch
                for number in numbers
            ]
            requests = [Request(tasks[i].phones, row_seed, tasks[i].bert, tasks[i].prompt) for i, row_seed in rows]
            limits = [task_sampling(tempos[index], rate_hz, sampling).max_tokens for index, _ in rows]
            generated = decoder.generate(requests, sampling, limits)
            found: dict[int, list[Attempt]] = {index: [] for index in batch}
            for (index, row_seed), one in zip(rows, generated, strict=True):
                found[index].append(judge(decoder, tasks[index], tempos[index], row_seed, one))
            for index, candidates in found.items():
                tries[index].append(best_of(candidates, tempos[index]))
        waiting = [index for index in waiting if tries[index][-1].problems]
    return [chosen_last(found, tempo) for found, tempo in zip(tries, tempos, strict=True)]


def chosen_last(tries: Sequence[Attempt], tempo: Tempo) -> tuple[Attempt, ...]:
    """All tries, the least bad one last."""
    best = best_of(tries, tempo)
    return (*[one for one in tries if one is not best], best)


def best_of(tries: Sequence[Attempt], tempo: Tempo) -> Attempt:
    """Fewest problems, then what says the text best, then the most ordinary length."""
    middle = (tempo.fewest + tempo.most) / 2

    def badness(one: Attempt) -> tuple[float, ...]:
        errors = 0.0 if one.coverage is None else one.coverage.error_rate
        return len(one.problems), errors, abs(len(one.tokens) - middle)

    return min(tries, key=badness)


def join_bert(parts: Sequence[tuple[int, Tensor | None]], bert_dim: int) -> Tensor | None:
    """BERT features of texts one after another, (bert_dim, X), zeros where a text of so many phones has none."""
    if not bert_dim or all(bert is None for _, bert in parts):
        return None
    return torch.cat([torch.zeros(bert_dim, count) if bert is None else bert for count, bert in parts], dim=1)
