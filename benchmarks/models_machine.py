"""What this machine is able to, with plain torch, beside the one that upstream was measured on (section `machine`)."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from benchmarks.report import Measurement, median_s
from models.machine.kernels import product

WIDTH, FEED_FORWARD, LAYERS = 512, 2048, 24


def measure(repeats: int) -> list[Measurement]:
    with torch.no_grad():
        return [memory(repeats), _weights(repeats), *_products(repeats), _convolution(repeats)]


def memory(repeats: int) -> Measurement:
    """Other guests of the host share the memory: on a rented machine this changes by half from minute to minute."""
    block = torch.ones(128 << 20)
    median, detail = median_s(block.sum, repeats)
    return Measurement(
        "reading memory", round(block.nbytes / median / 1e9, 1), "GB/s", 53.4, None, "", "higher", detail
    )


def _weights(repeats: int) -> Measurement:
    """The 96 matrices of the text-to-semantic network, each times one row."""
    shapes = [(3 * WIDTH, WIDTH), (WIDTH, WIDTH), (FEED_FORWARD, WIDTH), (WIDTH, FEED_FORWARD)] * LAYERS
    matrices, rows = [torch.randn(shape) for shape in shapes], {k: torch.randn(1, k) for k in (WIDTH, FEED_FORWARD)}
    median, detail = median_s(lambda: [F.linear(rows[w.shape[1]], w) for w in matrices], repeats)
    return Measurement("302 MB of weights times a row, F.linear", round(1000 * median, 1), "ms", 23.1, detail=detail)


def _products(repeats: int) -> list[Measurement]:
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    half_a, half_b = a.bfloat16(), b.bfloat16()
    found = []
    for name, work, theirs in (
        ("2048^3 product, torch", lambda: a @ b, 190.0),
        ("2048^3 product, oneDNN", lambda: product(a, b), None),
        ("2048^3 product, bfloat16", lambda: half_a @ half_b, 423.0),
    ):
        median, detail = median_s(work, repeats)
        found.append(
            Measurement(name, round(2 * 2048**3 / median / 1e9), "GFLOP/s", theirs, None, "", "higher", detail)
        )
    return found


def _convolution(repeats: int) -> Measurement:
    channels, frames, kernel = 384, 2000, 7
    x, weight = torch.randn(1, channels, frames), torch.randn(channels, channels, kernel)
    median, detail = median_s(lambda: F.conv1d(x, weight, padding=kernel // 2), repeats)
    rate = round(2 * channels**2 * kernel * frames / median / 1e9)
    return Measurement("conv1d of 384 channels, kernel 7", rate, "GFLOP/s", 182, None, "", "higher", detail)
