"""Sampling and the rejected sequences of preference training against upstream."""

import pytest
import torch

from models.text2semantic.network import make_rejected
from models.text2semantic.sampling import draw, penalise, token_probabilities


@pytest.mark.reference("s1_sampling")
def test_probabilities_after_penalty_and_truncation_are_those_of_upstream(fixture):
    logits = fixture["logits"]
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, fixture["previous"], True)
    for index, combination in enumerate(fixture.meta["config"]["combos"]):
        penalised = penalise(logits, seen, combination["repetition_penalty"])
        fixture.check(f"penalised_logits.{index}", penalised, 1e-6)
        probabilities = token_probabilities(
            penalised, combination["top_k"], combination["top_p"], combination["temperature"]
        )
        fixture.check(f"probs.{index}", probabilities, 1e-6)


@pytest.mark.reference("s1_sampling")
def test_the_drawn_tokens_are_those_of_upstream(fixture):
    for name, expected in fixture.outputs("token_from_probs").items():
        drawn = draw(fixture.tensors[f"o.probs.{name}"], fixture["q"])
        assert drawn[:, None].tolist() == expected.tolist()


@pytest.mark.reference("s1_sampling")
def test_rejected_sequences_follow_the_same_random_numbers(fixture):
    for name, expected in fixture.outputs("reject_y_seed").items():
        lengths = fixture.tensors[f"o.reject_lens_seed{name}"].tolist()
        made = {width: rejected(expected.shape[0], width, int(name)) for width in range(1, 2 * max(lengths) + 1)}
        assert (expected.tolist(), lengths) in made.values()


def rejected(rows: int, width: int, seed: int) -> tuple[list[list[int]], list[int]]:
    """What becomes of the tokens 0, 1, 2 ... in so many rows; the fixture does not tell how wide its rows were."""
    tokens, lengths = make_rejected(torch.arange(rows * width).view(rows, width), torch.Generator().manual_seed(seed))
    return tokens.tolist(), lengths.tolist()
