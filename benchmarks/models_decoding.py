"""Text to semantic tokens (section `decoding` of benchmarks/models.py)."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict

import torch

from benchmarks.models_machine import memory
from benchmarks.report import Measurement, fill, median_s
from models.configs.text2semantic import SamplingConfig, Text2SemanticConfig
from models.machine.processor import lack, works
from models.text2semantic.decoding import Decoder, Request, compare_weights
from models.text2semantic.network import Text2Semantic
from models.text2semantic.projections import WeightKind

# Two idle cores of an AMD EPYC (Zen 4), upstream as it is; floors are what its memory delivers.
UPSTREAM_TOKENS_PER_S = {1: 31.7, 8: 122.0}
UPSTREAM_PREFILL_S = {1: 0.278, 8: 1.82}
UPSTREAM_PEAK_MB = 1260
FLOOR_TOKENS_PER_S: dict[tuple[WeightKind, int], float] = {
    ("f32", 1): 160,
    ("bf16", 1): 320,
    ("int8", 1): 500,
    ("f32", 8): 780,
}
PHONES, PROMPT_TOKENS, NEW_TOKENS = 60, 150, 200
KINDS: tuple[WeightKind, ...] = ("f32", "bf16", "int8")


def build() -> Text2Semantic:
    network = Text2Semantic(Text2SemanticConfig())
    fill(network)
    return network.eval()


def exactly(tokens: int) -> SamplingConfig:
    """As many tokens as asked for: the end token never comes."""
    return SamplingConfig(min_tokens=10**6, max_tokens=tokens)


def requests(rows: int) -> list[Request]:
    generator = torch.Generator().manual_seed(1)
    return [
        Request(
            torch.randint(0, 700, (PHONES,), generator=generator),
            seed,
            torch.randn(1024, PHONES, generator=generator),
            torch.randint(0, 1024, (PROMPT_TOKENS,), generator=generator),
        )
        for seed in range(rows)
    ]


def measure(repeats: int) -> list[Measurement]:
    network = build()
    exact = Decoder(network)
    tokens = exact.generate(requests(1), exactly(NEW_TOKENS))[0].tokens
    found = [memory(repeats)]
    for kind in KINDS:
        if kind != "f32" and not works(kind):
            print(f"{kind} is not measured: {lack(kind)}", flush=True)
            continue
        decoder = exact if kind == "f32" else Decoder(network, kind)
        loss = None if kind == "f32" else losses(exact, decoder, tokens)
        for rows in (1, 8):
            found += decoding(decoder, rows, repeats, loss)
            print(f"{found[-2].name}: {found[-2].value} {found[-2].unit}", flush=True)
    return [*found, memory(repeats)]


def losses(exact: Decoder, lighter: Decoder, tokens: tuple[int, ...]) -> dict[str, float]:
    """What lighter weights cost: over the same tokens, and how long the same seed goes on giving the same tokens."""
    loss = {
        name: round(value, 6) for name, value in asdict(compare_weights(exact, lighter, requests(1)[0], tokens)).items()
    }
    again = lighter.generate(requests(1), exactly(len(tokens)))[0].tokens
    same = [ours == theirs for ours, theirs in zip(again, tokens, strict=True)]
    loss["same_tokens_until"] = same.index(False) if False in same else len(same)
    print(f"{lighter.weights} against f32, {len(tokens)} tokens: {loss}")
    return loss


def decoding(decoder: Decoder, rows: int, repeats: int, loss: dict[str, float] | None) -> list[Measurement]:
    asked, kind = requests(rows), decoder.weights
    firsts = []

    def work() -> None:
        started = time.perf_counter()
        tokens = decoder._run(asked, exactly(NEW_TOKENS + 1))
        next(tokens)
        firsts.append(time.perf_counter() - started)
        for _ in tokens:
            pass

    whole, detail = median_s(work, repeats)
    first = statistics.median(firsts[1:])
    rate = rows * NEW_TOKENS / (whole - first)
    goal = ">= 2.3x" if (kind, rows) == ("f32", 1) else ">= 4x"
    floor = FLOOR_TOKENS_PER_S.get((kind, rows))
    detail |= {"loss": loss} if loss else {}
    return [
        Measurement(
            f"decoding, batch {rows}, {kind}",
            round(rate, 1),
            "tokens/s",
            UPSTREAM_TOKENS_PER_S[rows],
            floor,
            goal,
            "higher",
            detail,
        ),
        Measurement(f"210 positions and a token, batch {rows}, {kind}", round(first, 3), "s", UPSTREAM_PREFILL_S[rows]),
    ]
