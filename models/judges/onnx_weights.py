"""The constants of an ONNX file: enough of its protobuf wire format to run a small network in torch.

Field numbers are those of onnx.proto3: ModelProto.graph 7, GraphProto.initializer 5, TensorProto.dims 1, data_type 2,
float_data 4, name 8, raw_data 9. Everything else is skipped, nothing in the file is executed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from models.errors import WeightsError

_GRAPH, _INITIALIZER = 7, 5
_DIMS, _DATA_TYPE, _FLOAT_DATA, _NAME, _RAW_DATA = 1, 2, 4, 8, 9
_FLOAT = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_onnx_constants(path: Path) -> dict[str, Tensor]:
    """Every float32 constant by name. Raises WeightsError where the bytes are no ONNX graph."""
    try:
        data = memoryview(path.read_bytes())
        graphs = [value for number, value in _fields(data) if number == _GRAPH and isinstance(value, memoryview)]
        tensors = [value for graph in graphs for number, value in _fields(graph) if number == _INITIALIZER]
        found = dict(one for tensor in tensors if (one := _tensor(tensor)) is not None)
    except (OSError, ValueError, TypeError, IndexError, struct.error) as error:
        raise WeightsError(f"{path}: not an ONNX file: {str(error)[:100]}") from None
    if not found:
        raise WeightsError(f"{path}: not an ONNX file, or one without constants")
    return found


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of a message; bytes and sub-messages as views."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            value: int | memoryview
            value, at = _varint(data, at)
        elif kind in (_BYTES, _FIXED32, _FIXED64):
            size = {_FIXED32: 4, _FIXED64: 8}.get(kind)
            if size is None:
                size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("a field runs over the end")
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"a field of kind {kind}")
        yield key >> 3, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _tensor(message: int | memoryview) -> tuple[str, Tensor] | None:
    """(name, tensor), None for constants that are not float32."""
    if isinstance(message, int):
        raise ValueError("a tensor that is a number")
    shape: list[int] = []
    name, kind, raw = "", 0, bytearray()
    for number, value in _fields(message):
        if isinstance(value, int):
            shape += [value] if number == _DIMS else []
            kind = value if number == _DATA_TYPE else kind
        elif number == _DIMS:
            shape += _packed(value)
        elif number == _NAME:
            name = bytes(value).decode("utf-8", "replace")
        elif number in (_RAW_DATA, _FLOAT_DATA):
            raw += value
    if kind != _FLOAT or not raw:
        return None
    return name, torch.frombuffer(raw, dtype=torch.float32).reshape(shape)


def _packed(data: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(data):
        number, at = _varint(data, at)
        numbers.append(number)
    return numbers
