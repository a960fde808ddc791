import pytest
import torch

from models.configs.text2semantic import SamplingConfig, Text2SemanticConfig
from models.text2semantic.attempts import (
    Effort,
    Task,
    Tempo,
    derive_seed,
    expected_tempo,
    find_loop,
    find_problems,
    generate_checked,
    join_bert,
    task_sampling,
)
from models.text2semantic.decoding import Decoder
from models.text2semantic.network import Text2Semantic

RATE_HZ = 25.0


def speech(count: int, seed: int = 0) -> list[int]:
    return torch.randint(0, 1000, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def test_the_tempo_of_the_reference_narrows_what_is_credible():
    alone = expected_tempo(50, 0, 0, RATE_HZ)
    assert (alone.fewest, alone.most) == (69, 383)  # 18 to 3.5 phones a second, and a second of slack
    slow = expected_tempo(50, prompt_phones=30, prompt_tokens=120, rate_hz=RATE_HZ)  # 6 phones a second
    assert alone.fewest < slow.fewest < 200 < slow.most <= alone.most
    quick = expected_tempo(50, prompt_phones=100, prompt_tokens=125, rate_hz=RATE_HZ)  # 20 phones a second
    assert quick.most < slow.most


def test_ordinary_tokens_have_no_problem():
    assert find_problems(speech(100), True, expected_tempo(50, 0, 0, RATE_HZ), RATE_HZ) == ()


@pytest.mark.parametrize(
    ("tokens", "ended", "problem"),
    [
        (speech(100), False, "no_end"),
        (speech(20), True, "too_short"),
        (speech(500), True, "too_long"),
        (speech(40) + speech(9, 1) * 3 + speech(20, 2), True, "loop"),
        (speech(60) + [7] * 41, True, "loop"),
    ],
)
def test_every_way_to_go_wrong_is_named(tokens, ended, problem):
    assert find_problems(tokens, ended, expected_tempo(50, 0, 0, RATE_HZ), RATE_HZ) == (problem,)


@pytest.mark.parametrize("count", [3, 10, 30])
def test_a_pause_is_no_loop(count):
    assert not find_loop(speech(30) + [5] * count + speech(30, 1), RATE_HZ)


def test_something_said_twice_is_no_loop():
    assert not find_loop(speech(20) + speech(15, 1) * 2 + speech(20, 2), RATE_HZ)


def test_a_loop_is_cut_off_a_second_after_what_is_credible():
    assert task_sampling(Tempo(50, 300), RATE_HZ, SamplingConfig()).max_tokens == 325
    assert task_sampling(Tempo(50, 300), RATE_HZ, SamplingConfig(max_tokens=100)).max_tokens == 100


def test_seeds_depend_on_the_sentence_and_the_attempt_only():
    phones = torch.tensor([3, 1, 2])
    seeds = {derive_seed(1, phones, 0), derive_seed(2, phones, 0), derive_seed(1, phones, 1)}
    assert len(seeds | {derive_seed(1, phones.flip(0), 0)}) == 4
    assert derive_seed(1, phones.clone(), 0) in seeds


def test_missing_bert_features_become_zeros_beside_others():
    assert join_bert([(2, None), (3, None)], 4) is None
    joined = join_bert([(2, None), (3, torch.ones(4, 3))], 4)
    assert joined is not None
    assert joined.sum(0).tolist() == [0, 0, 4, 4, 4]
    assert join_bert([(3, torch.ones(4, 3))], 0) is None


CONFIG = Text2SemanticConfig(
    phoneme_vocab_size=30, vocab_size=41, hidden_dim=32, heads=2, layers=2, feedforward_dim=64, bert_dim=0
)


def tasks() -> list[Task]:
    generator = torch.Generator().manual_seed(1)
    sizes = [6, 14, 9]
    return [Task(torch.randint(0, 30, (size,), generator=generator), size, None, None) for size in sizes]


@pytest.fixture(scope="module")
def endless() -> Decoder:
    torch.manual_seed(0)
    network = Text2Semantic(CONFIG).eval()
    with torch.no_grad():
        network.ar_predict_layer.weight[CONFIG.end_token] = 0
        network.ar_predict_layer.weight[:5] *= 3
    return Decoder(network)


def test_a_sentence_that_never_ends_is_tried_again_a_bounded_number_of_times(endless):
    results = generate_checked(endless, tasks(), Effort(0, SamplingConfig(top_k=3), attempts=3, batch_size=2))
    assert [len(attempts) for attempts in results] == [3, 3, 3]
    for attempts in results:
        assert all("no_end" in attempt.problems for attempt in attempts)
        assert len({attempt.seed for attempt in attempts}) == 3
        assert len(attempts[-1].problems) == min(len(attempt.problems) for attempt in attempts)


def test_another_attempt_can_heal_and_then_no_more_follow():
    torch.manual_seed(2)
    network = Text2Semantic(CONFIG).eval()
    with torch.no_grad():
        network.ar_predict_layer.weight.mul_(0.3)
        network.ar_predict_layer.weight[CONFIG.end_token] = 0
    decoder = Decoder(network)
    settings = SamplingConfig(top_k=0, repetition_penalty=1.0, max_tokens=30)  # two in five end before
    results = generate_checked(decoder, tasks(), Effort(4, settings, attempts=30, batch_size=3))
    counts = [len(attempts) for attempts in results]
    assert not any(attempts[-1].problems for attempts in results)
    assert max(counts) > 1, "no first attempt failed: this test shows nothing"
    for attempts in results:
        assert all(attempt.problems for attempt in attempts[:-1])


@pytest.mark.slow
def test_a_sentence_comes_out_the_same_whatever_stands_beside_it(endless):
    settings = SamplingConfig(top_k=3)
    together = generate_checked(endless, tasks(), Effort(5, settings, attempts=2, batch_size=3))
    for task, attempts in zip(tasks(), together, strict=True):
        assert generate_checked(endless, [task], Effort(5, settings, attempts=2, batch_size=1)) == [attempts]
