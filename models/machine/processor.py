"""What this processor computes, found by trying the very kernels once: a name or a flag promises more than works.

bfloat16 counts where the processor multiplies it. Emulated by oneDNN (AVX-512 without bfloat16) eight rows take three
times as long as in float32 and a long prefill four times; the plain loops of AVX2 take 35 times as long.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.errors import ModelsError, shorten
from models.machine.kernels import int8_product, pack, product
from models.machine.switches import is_off

Part = Literal["onednn", "bf16", "int8"]
ROWS, INPUTS, OUTPUTS = 8, 64, 32  # of the products that are tried
EXACT, LIGHT = 1e-5, 2e-2  # errors allowed beside the largest number; bfloat16 has three digits


class ProcessorError(ModelsError):
    """Something that was asked for and that this processor cannot do."""


def works(part: Part) -> bool:
    """Whether a part can be used here; the first question about it tries its kernels."""
    return lack(part) is None


def require(part: Part) -> None:
    """Raises ProcessorError where a part cannot be used here."""
    reason = lack(part)
    if reason is not None:
        raise ProcessorError(f"{part}: {reason}")


def lack(part: Part) -> str | None:
    """Why a part cannot be used here; None where it can."""
    if is_off(part):
        return "it is switched off"
    if part == "bf16" and not claims_bfloat16():
        return f"this processor has no bfloat16 arithmetic ({architecture()}, {instructions()})"
    return f"its kernels fail on this processor ({architecture()}, {instructions()})" if fault(part) else None


def architecture() -> str:
    """Such as `x86_64` or `arm64`."""
    return str(_flags().get("architecture", "unknown"))


def instructions() -> str:
    """The widest vectors that torch uses here, such as AVX2; what the processor has may be wider."""
    widest = torch.backends.cpu.get_cpu_capability()
    if widest == "DEFAULT" and _flags().get("neon"):
        return "NEON"
    return widest.replace("AVX512", "AVX-512")


def claims_bfloat16() -> bool:
    """Whether the processor says that it multiplies bfloat16, on x86-64 or arm64, and nobody said otherwise."""
    if is_off("bf16"):
        return False
    wide = ("avx512_bf16", "amx_bf16")
    return bool(_flags().get("bf16")) or (not is_off("avx512") and any(_flags().get(name) for name in wide))


@cache
def _flags() -> Mapping[str, Any]:
    return torch.cpu.get_capabilities()


@cache
def fault(part: Part) -> str | None:
    """What torch said when the kernels of a part were tried, or how wrong they were; tried once per process."""
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            _TRIES[part]()
    except (RuntimeError, AttributeError, ArithmeticError) as error:  # AttributeError: a build without the kernel
        return shorten(str(error).partition("\n")[0], 120) or type(error).__name__
    return None


def _try_onednn() -> None:
    """As `models/blocks/linear.py` and `models/text2semantic/projections.py` multiply: plain, packed and turned
    around."""
    x, weight, bias = _numbers(ROWS, INPUTS), _numbers(OUTPUTS, INPUTS), _numbers(OUTPUTS)
    expected = x @ weight.t() + bias
    _compare(product(x, weight, bias), expected, EXACT)
    _compare(product(x, pack(weight), bias), expected, EXACT)
    _compare(product(expected, weight.t()), expected @ weight, EXACT)


def _try_bf16() -> None:
    """As the lighter weights, the decoder of waves, and the networks that listen (GE2E's has an LSTM) compute."""
    x, weight, bias = _numbers(ROWS, INPUTS), _numbers(OUTPUTS, INPUTS), _numbers(OUTPUTS)
    expected = x @ weight.t() + bias
    x, weight, bias = x.bfloat16(), weight.bfloat16(), bias.bfloat16()
    _compare(product(x, pack(weight), bias), expected, LIGHT)
    _compare(F.linear(x, weight, bias), expected, LIGHT)
    _compare(_convolved(x, weight, bias), expected, LIGHT)
    _compare(_recurred(x, weight, bias), _gated(expected), LIGHT)


def _convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The product as a convolution over a picture of one line, its channels last in memory."""
    picture, kernels = x.t()[None, :, None], weight[:, :, None, None]  # (1, in, 1, M), (out, in, 1, 1)
    lying = picture.contiguous(memory_format=torch.channels_last)
    return F.conv2d(lying, kernels.contiguous(memory_format=torch.channels_last), bias)[0, :, 0].t()


def _recurred(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One step of an LSTM that has nothing to remember; the product makes its gates."""
    start = x.new_zeros(1, ROWS, OUTPUTS // 4)
    weights = [weight, weight.new_zeros(OUTPUTS, OUTPUTS // 4), bias, torch.zeros_like(bias)]
    return torch.lstm(x[:, None], (start, start), weights, True, 1, 0.0, False, False, True)[0][:, 0]


def _gated(product: Tensor) -> Tensor:
    admit, _, cell, output = product.chunk(4, dim=1)
    return output.sigmoid() * (admit.sigmoid() * cell.tanh()).tanh()


def _try_int8() -> None:
    """As `models/text2semantic/projections.py` multiplies."""
    x, weight = _numbers(ROWS, INPUTS), (127 * _numbers(OUTPUTS, INPUTS)).round()
    scale = torch.full((OUTPUTS,), 1 / 128)
    found = int8_product(x.bfloat16(), weight.to(torch.int8), scale.bfloat16())
    _compare(found, x @ weight.t() * scale, LIGHT)


_TRIES: dict[Part, Callable[[], None]] = {"onednn": _try_onednn, "bf16": _try_bf16, "int8": _try_int8}


def _numbers(*shape: int) -> Tensor:
    """Between -1 and 1, without touching anybody's random numbers."""
    count = torch.Size(shape).numel()
    return (torch.arange(count) * 0.7).sin().view(shape)


def _compare(found: Tensor, expected: Tensor, tolerance: float) -> None:
    error = float((found.float() - expected).abs().max() / expected.abs().max())
    if not error <= tolerance:  # also where it is not a number
        raise ArithmeticError(f"a product is wrong by {error:.1%}")
