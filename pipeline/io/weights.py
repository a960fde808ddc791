"""Checks a safetensors file by its header alone, so that nothing else is ever published or loaded as weights."""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path
from typing import Any

from pipeline.errors import SettingsError

MAX_HEADER_BYTES = 16 * 1024 * 1024

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


def check_safetensors(path: Path) -> None:
    """Raises SettingsError unless the file is as the safetensors format says: a header, then the bytes it names."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
            raise _refuse(path, "no safetensors header")
        raw = stream.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        raise _refuse(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _refuse(path, "its header is not a table")
    spans = sorted(_span(path, name, told) for name, told in header.items() if name != "__metadata__")
    position = 0
    for begin, end in spans:
        if begin != position:
            raise _refuse(path, f"bytes {position} to {begin} belong to no tensor, or to two")
        position = end
    if position != size - 8 - length:
        raise _refuse(path, f"{size - 8 - length} bytes of data, the header describes {position}")


def _span(path: Path, name: str, told: Any) -> tuple[int, int]:
    try:
        shape, (begin, end), bits = told["shape"], told["data_offsets"], _BITS[told["dtype"]]
        is_right = 0 <= begin <= end and all(side >= 0 for side in shape) and (end - begin) * 8 == prod(shape) * bits
    except (KeyError, TypeError, ValueError):
        is_right = False
    if not is_right:
        raise _refuse(path, f"tensor {name[:80]!r} is described wrongly")
    return int(begin), int(end)


def _refuse(path: Path, reason: str) -> SettingsError:
    return SettingsError(
        f"{path}: {reason}", hint="weights are published as safetensors only; run voxline finetune again"
    )
