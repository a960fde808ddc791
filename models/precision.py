"""Which number type a network that only listens may use."""

from functools import cache

import torch


@cache
def quick_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it (emulated it would be slower than float32), else float32."""
    has_bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_bfloat16 else torch.float32
