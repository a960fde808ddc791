"""Which number type a network that only listens may use."""

import logging
from functools import cache

import torch

from models.machine.processor import claims_bfloat16, works

log = logging.getLogger(__name__)


def quick_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it, else float32."""
    if works("bf16"):
        return torch.bfloat16
    if claims_bfloat16():
        _warn()
    return torch.float32


@cache
def _warn() -> None:
    """Once: nobody asked for bfloat16, so nobody would be told otherwise why everything takes longer."""
    log.warning("bf16 does not work on this processor, though it claims to have it: float32 instead (voxline doctor)")
