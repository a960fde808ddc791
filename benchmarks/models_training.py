"""A training step of the text-to-semantic network (section `training` of benchmarks/models.py)."""

from __future__ import annotations

import torch

from benchmarks.models_decoding import build
from benchmarks.report import Measurement, median_s
from models.text2semantic.network import TextAndTokens

UPSTREAM_S, FLOOR_S, UPSTREAM_PEAK_MB = 8.9, 4.3, 6600
ROWS, PHONES, TOKENS = 4, 100, 300


def measure(repeats: int) -> list[Measurement]:
    """Forward and backward of 4 rows of 100 phones and 300 tokens, with upstream's dropout, all weights learning."""
    network = build().train().requires_grad_(True)
    generator = torch.Generator().manual_seed(2)
    phones = torch.randint(0, 700, (ROWS, PHONES), generator=generator)
    tokens = torch.randint(0, 1024, (ROWS, TOKENS), generator=generator)
    bert = torch.randn(ROWS, 1024, PHONES, generator=generator)
    lengths = torch.full((ROWS,), PHONES), torch.full((ROWS,), TOKENS)
    found = []
    for name, precision in (("float32", None), ("bfloat16 autocast, an option", torch.bfloat16)):

        def step(precision: torch.dtype | None = precision) -> None:
            network.zero_grad()
            with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
                loss = network(TextAndTokens(phones, lengths[0], tokens, lengths[1], bert)).loss
            loss.backward()

        median, detail = median_s(step, repeats)
        goal = "<= 5.5 s" if precision is None else ""
        told = f"training step, {ROWS} x {PHONES + TOKENS}, {name}"
        floor = FLOOR_S if precision is None else None
        found.append(Measurement(told, round(median, 2), "s", UPSTREAM_S, floor, goal, detail=detail))
    return found
