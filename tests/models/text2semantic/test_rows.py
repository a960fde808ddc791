"""Rows of different voices in one batch draw what each would draw alone, from weights with its adapter merged."""

import copy

import pytest
import torch

from models.adapters.plugged import EMPTY, LowRank, Slots
from models.configs.text2semantic import SamplingConfig, Text2SemanticConfig
from models.text2semantic.decoding import Decoder, Request
from models.text2semantic.network import Text2Semantic
from models.text2semantic.rows import PluggedDecoder, Row, Rows, draw_all

CONFIG = Text2SemanticConfig(
    phoneme_vocab_size=30, vocab_size=41, hidden_dim=32, heads=4, layers=2, feedforward_dim=64, bert_dim=0
)
SAMPLING = SamplingConfig(top_k=8, max_tokens=300, min_tokens=3, repetition_penalty=1.2)


@pytest.fixture(scope="module")
def network() -> Text2Semantic:
    torch.manual_seed(3)
    return Text2Semantic(CONFIG).eval()


def adapter(network: Text2Semantic, seed: int, rank: int) -> LowRank:
    """Strong enough that the tokens are others."""
    chance = torch.Generator().manual_seed(seed)
    modules = dict(network.named_modules())
    return LowRank(
        {
            name: (
                torch.randn(modules[name].in_features, rank, generator=chance) * 0.3,
                torch.randn(rank, modules[name].out_features, generator=chance) * 0.3,
            )
            for name in network.adaptable_modules()[seed % 2 :]
        }
    )


def merged(network: Text2Semantic, low_rank: LowRank) -> Decoder:
    own = copy.deepcopy(network)
    for name, (a, b) in low_rank.pairs.items():
        module = own.get_submodule(name)
        module.weight.data = module.weight.data + (a @ b).T
    return Decoder(own)


@pytest.fixture(scope="module")
def asked(network) -> list[tuple[Request, LowRank, int]]:
    chance = torch.Generator().manual_seed(4)
    found = []
    for seed, (phones, prompt, limit) in enumerate([(9, 5, 40), (4, 0, 120), (25, 8, 300), (3, 2, 9), (7, 7, 300)]):
        request = Request(
            torch.randint(0, 30, (phones,), generator=chance),
            seed=seed,
            prompt=torch.randint(0, 40, (prompt,), generator=chance) if prompt else None,
        )
        found.append((request, adapter(network, seed, rank=2 + seed), limit))
    return found


@pytest.fixture(scope="module")
def alone(network, asked) -> list[tuple[int, ...]]:
    """What voices of their own draw."""
    found = [merged(network, low).generate([request], SAMPLING, [limit])[0] for request, low, limit in asked]
    assert len({one.tokens for one in found}) == len(found)
    return found


def test_voices_side_by_side_draw_what_each_draws_alone(network, asked, alone):
    rows = Rows(PluggedDecoder(network), SAMPLING, 8)
    assert draw_all(rows, [Row(*one) for one in asked]) == alone


def test_rows_come_and_go_between_tokens(network, asked, alone):
    """Each joins some tokens after the one before; memory grows, moves and is packed meanwhile."""
    rows = Rows(PluggedDecoder(network), SAMPLING, 8)
    waiting, found = [Row(*one) for one in asked * 3], {}
    order = list(waiting)
    while waiting or rows.live:
        if waiting and rows.free:
            rows.join([waiting.pop()])
        for _ in range(11):
            found.update({id(row): generated for row, generated in rows.step()})
    assert [found[id(row)] for row in order] == alone * 3


def test_more_rows_than_slots_wait_for_one(network, asked, alone):
    rows = Rows(PluggedDecoder(network), SAMPLING, 2)
    assert draw_all(rows, [Row(*one) for one in asked]) == alone


def test_a_row_that_is_taken_out_changes_nothing_for_the_others(network, asked, alone):
    rows = Rows(PluggedDecoder(network), SAMPLING, 8)
    wanted = [Row(*one) for one in asked]
    rows.join(wanted)
    done = {id(row): generated for _ in range(5) for row, generated in rows.step()}
    assert wanted[4] in rows.live.values()
    rows.leave([wanted[4]])
    while rows.live:
        done.update({id(row): generated for row, generated in rows.step()})
    assert [done.get(id(row)) for row in wanted] == [*alone[:4], None]


def test_a_voice_without_an_adapter_speaks_as_the_base_beside_one_with(network, asked):
    """An empty slot takes what its neighbours carry; a row without an adapter must not."""
    request = asked[1][0]
    bare = Decoder(network).generate([request], SAMPLING, [60])[0]
    rows = Rows(PluggedDecoder(network), SAMPLING, 8)
    found = draw_all(rows, [Row(request, LowRank({}), 60), Row(request, asked[1][1], 60)])
    assert found[0] == bare
    assert found[1] != bare


def test_slots_of_one_voice_need_no_stacks(network):
    one = adapter(network, 0, 2)
    slots = Slots([one, EMPTY, one])
    name = next(iter(one.pairs))
    x = torch.randn(3, 32)
    assert slots._stacks == {}
    torch.testing.assert_close(slots.change(name, x), x @ one.pairs[name][0] @ one.pairs[name][1])
    slots.put(1, adapter(network, 2, 5))
    assert slots.change(name, x)[0].tolist() == pytest.approx((x @ one.pairs[name][0] @ one.pairs[name][1])[0].tolist())
