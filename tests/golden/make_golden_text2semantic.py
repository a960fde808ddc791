"""Golden values of the text-to-semantic network, its decoding and its optimizer, made as make_golden.py makes others."""

from __future__ import annotations

from pathlib import Path

import torch
from make_golden import fill, pseudo_random, write_golden
from torch import Tensor

GOLDEN = Path(__file__).with_name("text2semantic.json")


def ids(name: str, shape: tuple[int, ...], count: int) -> Tensor:
    return (pseudo_random(name, shape).abs() * count).long()


def compute() -> dict[str, Tensor]:
    """Every tensor that is compared, by name."""
    return {name: value.detach() for name, value in {**network_values(), **optimizer_values()}.items()}


def network_values() -> dict[str, Tensor]:
    from models.configs.text2semantic import SamplingConfig, Text2SemanticConfig
    from models.text2semantic.decoding import Decoder, Request
    from models.text2semantic.network import Text2Semantic, TextAndTokens, preference_loss
    from models.text2semantic.sampling import penalise, token_probabilities

    config = Text2SemanticConfig(
        phoneme_vocab_size=30, vocab_size=41, hidden_dim=32, heads=4, layers=3, feedforward_dim=64, bert_dim=6
    )
    network = fill(Text2Semantic(config))
    phones, tokens, bert = ids("phones", (3, 8), 30), ids("tokens", (3, 9), 40), pseudo_random("bert", (3, 6, 8))
    lengths, token_lengths = torch.tensor([8, 5, 6]), torch.tensor([9, 9, 4])
    batch = TextAndTokens(phones, lengths, tokens, token_lengths, bert)
    right, upstream = network(batch), network(batch, upstream_padding=True)
    greedy = SamplingConfig(top_k=1, max_tokens=40)
    asked = [
        Request(phones[row, : lengths[row]], row, None, tokens[row, : 3 * row] if row else None) for row in range(3)
    ]
    generated = Decoder(network).generate(asked, greedy)
    logits = pseudo_random("logits", (4, 41)) * 3
    seen = torch.zeros(4, 41, dtype=torch.bool).scatter_(1, ids("said", (4, 7), 41), True)
    penalised = penalise(logits, seen, 1.35)
    return {
        "right.logits": right.logits,
        "right.loss": right.loss_sum,
        "upstream.logits": upstream.logits,
        "upstream.loss": upstream.loss_sum,
        "preference": preference_loss(right, upstream),
        **{f"greedy.{row}": torch.tensor(one.tokens) for row, one in enumerate(generated)},
        "probabilities": token_probabilities(penalised, top_k=9, top_p=0.8, temperature=0.7),
    }


def optimizer_values() -> dict[str, Tensor]:
    from models.text2semantic.scaled_adam import AdamNumbers, ScaledAdam

    weights = {
        "matrix": pseudo_random("matrix", (4, 5)),
        "vector": pseudo_random("vector", (4,)),
        "alpha": pseudo_random("alpha", (1,)),
    }
    parameters = {name: torch.nn.Parameter(value.clone()) for name, value in weights.items()}
    optimizer = ScaledAdam(parameters.values(), AdamNumbers(lr=0.02, clipping_update_period=4))
    for step in range(14):
        x = pseudo_random(f"x{step}", (6, 5))
        y = (x @ parameters["matrix"].T + parameters["vector"]) * parameters["alpha"]
        optimizer.zero_grad()
        ((y - pseudo_random(f"y{step}", (6, 4))) ** 2).sum().backward()
        optimizer.step()
    return {f"scaled_adam.{name}": parameter for name, parameter in parameters.items()}


if __name__ == "__main__":
    write_golden(GOLDEN, compute)
