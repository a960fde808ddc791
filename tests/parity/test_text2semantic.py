"""The text-to-semantic network against upstream: logits, losses, gradients, and generated tokens."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.configs.text2semantic import SamplingConfig, Text2SemanticConfig
from models.text2semantic.decoding import Decoder, Request
from models.text2semantic.network import Prediction, Text2Semantic, TextAndTokens, preference_loss


class InFile(nn.Module):
    """The network under the name it has in upstream's files."""

    def __init__(self, numbers: dict[str, Any]) -> None:
        super().__init__()
        self.model = Text2Semantic(
            Text2SemanticConfig(
                phoneme_vocab_size=numbers["phoneme_vocab_size"],
                vocab_size=numbers["vocab_size"],
                hidden_dim=numbers["hidden_dim"],
                heads=numbers["head"],
                layers=numbers["n_layer"],
                feedforward_dim=4 * numbers["hidden_dim"],
                embedding_dropout=numbers["dropout"],
            )
        )


@pytest.fixture(scope="module")
def network_of() -> Callable[[Any], Text2Semantic]:
    """The network of a fixture, filled once: tests leave it as it is. One at a time is held."""
    made: dict[str, Text2Semantic] = {}

    def filled(fixture: Any) -> Text2Semantic:
        if str(fixture) not in made:
            made.clear()
            made[str(fixture)] = fixture.load(InFile(fixture.meta["config"]["model"])).model
        return made[str(fixture)]

    return filled


def zeroed_beyond(x: Tensor, lengths: Tensor) -> Tensor:
    """Zero the last axis beyond each row's length, as upstream's collate function pads."""
    used = torch.arange(x.shape[-1]) < lengths.view(-1, *[1] * (x.dim() - 1))
    return x * used


def upstream_run(network: Text2Semantic, fixture, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> Prediction:
    phones, bert = zeroed_beyond(fixture["x"], lengths), zeroed_beyond(fixture["bert"], lengths)
    return network(TextAndTokens(phones, lengths, tokens, token_lengths, bert), upstream_padding=True)


def phone_lengths(fixture, case: str) -> Tensor:
    return fixture["x_lens"] if case == "unequal_x" else torch.full_like(fixture["x_lens"], fixture["x"].shape[1])


@pytest.mark.state_dict("s1")
def test_names_and_shapes_are_those_of_the_files(described):
    with torch.device("meta"):
        described.check(InFile(described.meta["constructor"]["model"]))


@pytest.mark.reference("s1_", names="equal_x")
@pytest.mark.parametrize("case", ["equal_x", "unequal_x"])
def test_logits_and_losses_are_those_of_upstream_with_its_padding(fixture, case, network_of):
    network, expected = network_of(fixture), fixture.meta["scalars"]
    lengths = phone_lengths(fixture, case)
    with torch.no_grad():
        chosen = upstream_run(network, fixture, lengths, fixture["y"], fixture["y_lens"])
        rejected = upstream_run(network, fixture, lengths, fixture["reject_y"], fixture["reject_lens"])
    if f"{case}.logits" in fixture.outputs():
        fixture.check(f"{case}.logits", chosen.logits, 1e-4 if "small" in fixture.name else 5e-4)
    assert chosen.loss_sum.item() == pytest.approx(expected[f"{case}.loss"], rel=1e-5)
    total = chosen.loss_sum + preference_loss(chosen, rejected)
    assert total.item() == pytest.approx(expected[f"{case}.dpo_total"], rel=1e-5)
    accuracy = chosen.top_accuracy(3, network.config.end_token)
    assert accuracy.item() == pytest.approx(expected[f"{case}.top3_acc"], abs=1e-6)


@pytest.mark.reference("s1_", names="equal_x")
def test_a_padded_batch_gives_the_numbers_of_its_rows_alone(fixture, network_of):
    network = network_of(fixture)
    with torch.no_grad():
        rows = TextAndTokens(fixture["x"], fixture["x_lens"], fixture["y"], fixture["y_lens"], fixture["bert"])
        batch = network(rows)
    assert batch.loss_sum.item() == pytest.approx(
        fixture.meta["scalars"]["unequal_x.sum_of_single_row_losses"], rel=1e-5
    )
    assert batch.count.item() == (fixture["y_lens"] + 1).sum().item()
    for row, length in enumerate(fixture["y_lens"].tolist()):
        if f"single_row.{row}.logits" in fixture.outputs():
            fixture.check(f"single_row.{row}.logits", batch.logits[row : row + 1, : length + 1], 1e-4)


@pytest.mark.reference("s1_", names="equal_x")
def test_every_gradient_has_the_size_it_has_upstream(fixture, network_of):
    norms = fixture.meta["grad_norms"]
    if not norms:
        pytest.skip(f"{fixture.name} stores no gradients")
    network = network_of(fixture)
    upstream_run(
        network, fixture, phone_lengths(fixture, "equal_x"), fixture["y"], fixture["y_lens"]
    ).loss_sum.backward()
    ours = {
        f"model.{name.replace('in_proj.', 'in_proj_')}": p.grad.norm().item() for name, p in network.named_parameters()
    }
    network.zero_grad(set_to_none=True)
    assert ours == pytest.approx(norms, rel=1e-3)


def told(fixture, call: str, pattern: str) -> int:
    """A number from the words of the fixture's json."""
    found = re.search(pattern, fixture.meta["calls"][call])
    assert found, f"{fixture.name}: {call} does not tell {pattern}"
    return int(found[1])


def greedy(fixture, penalty: float = 1.35) -> SamplingConfig:
    """Upstream stops when more than `early_stop_num` tokens are there."""
    limit = told(fixture, "greedy.*", r"early_stop_num=(\d+)") + 1
    return SamplingConfig(top_k=1, repetition_penalty=penalty, max_tokens=limit)


def request(fixture, row: int, prompt: Tensor | None, phones: int | None = None) -> Request:
    return Request(fixture["x"][row, :phones], seed=row, bert=fixture["bert"][row, :, :phones], prompt=prompt)


@pytest.mark.reference("s1_", names="greedy")
def test_greedy_tokens_are_those_of_upstream(fixture, network_of):
    decoder = Decoder(network_of(fixture))
    length = told(fixture, "greedy.*", r"y\[:1,:(\d+)\]")
    prompt = fixture["y"][0, :length]
    for name, expected in fixture.outputs("greedy.").items():
        penalty, _, without = name.removeprefix("pen").partition("_")
        asked = request(fixture, 0, None if without else prompt)
        (found,) = decoder.generate([asked], greedy(fixture, float(penalty)))
        assert list(found.tokens) == expected[0, 0 if without else length :].tolist(), name
        if not without:
            limited = len(found.tokens) == greedy(fixture).max_tokens
            stopped_at = fixture.meta["scalars"][f"greedy.{name}.idx"]
            assert (found.ended, len(found.tokens)) == (not limited, stopped_at + limited)


@pytest.mark.reference("s1_", names="eos")
def test_rows_end_where_upstream_ends_them_alone_and_in_a_batch(fixture, network_of):
    network = copy.deepcopy(network_of(fixture))
    with torch.no_grad():
        network.ar_predict_layer.weight[network.config.end_token] = fixture["eos_row"]
    decoder = Decoder(network)
    length = told(fixture, "greedy.*", r"y\[:1,:(\d+)\]")
    prompts = fixture["y"][:, :length]
    rows = range(len(fixture["x_lens"]))
    for row in rows:
        (found,) = decoder.generate([request(fixture, row, prompts[row])], greedy(fixture))
        assert list(found.tokens) == fixture.tensors[f"o.eos.naive.{row}"][0, length:].tolist()
        assert found.ended
    lengths = fixture["x_lens"].tolist()
    asked = [request(fixture, row, prompts[row], lengths[row]) for row in rows]
    batch = decoder.generate(asked, greedy(fixture))
    for row in rows:
        expected = fixture.tensors[f"o.eos.batch.{row}"][length:].tolist()
        assert fixture.tensors[f"o.eos.single_unequal.{row}"][0, length:].tolist() == expected
        assert list(batch[row].tokens) == expected
