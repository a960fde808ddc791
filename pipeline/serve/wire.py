"""What the server and its worker say to each other over a socket: frames of a JSON header and bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

_SIZES = struct.Struct(">II")
MAX_FRAME_BYTES = 64 * 2**20

Message = tuple[dict[str, Any], bytes]


def pack(header: dict[str, Any], payload: bytes = b"") -> bytes:
    told = json.dumps(header, separators=(",", ":")).encode()
    return _SIZES.pack(len(told), len(payload)) + told + payload


def unpack(sizes: bytes, read: Callable[[int], bytes]) -> Message:
    """A message whose sizes were read. Raises ValueError for what none of ours would say."""
    header_bytes, payload_bytes = check_sizes(sizes)
    header = json.loads(read(header_bytes))
    return header, read(payload_bytes) if payload_bytes else b""


def check_sizes(sizes: bytes) -> tuple[int, int]:
    """Raises ValueError where a frame would be too large."""
    found: tuple[int, int] = _SIZES.unpack(sizes)
    if sum(found) > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {sum(found)} bytes")
    return found


SIZES_BYTES = _SIZES.size
