"""Graphs for ONNX Runtime, written by hand: enough of the protobuf of onnx.proto3 to run a small network there.

A network of small layers that is asked hundreds of times a second spends its time between the operations of torch;
ONNX Runtime runs the same operations an order of magnitude faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

IR_VERSION, OPSET = 9, 17
_TYPES = {np.dtype(np.float32): 1, np.dtype(np.int64): 7}
_VARINT, _BYTES = 0, 2
_INT = 2  # AttributeProto.type


class GraphWriter:
    """Collects nodes and constants; values are known by their names."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._constants: dict[str, bytes] = {}
        self._count = 0

    def constant(self, name: str, value: NDArray[np.float32] | NDArray[np.int64]) -> str:
        """A tensor that is part of the graph; the same name is the same tensor."""
        if name not in self._constants:
            dims = b"".join(_varint(size) for size in value.shape)
            parts = [_field(1, dims), _number(2, _TYPES[value.dtype]), _field(8, name.encode())]
            self._constants[name] = b"".join([*parts, _field(9, np.ascontiguousarray(value).tobytes())])
        return name

    def node(self, kind: str, inputs: Sequence[str], axis: int | None = None, outputs: int = 1) -> list[str]:
        """One operation; the names of its outputs."""
        names = [f"v{self._count + number}" for number in range(outputs)]
        self._count += outputs
        self.named_node(kind, inputs, names, axis)
        return names

    def named_node(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], axis: int | None = None) -> None:
        parts = [_field(1, name.encode()) for name in inputs] + [_field(2, name.encode()) for name in outputs]
        parts.append(_field(4, kind.encode()))
        if axis is not None:
            parts.append(_field(5, _field(1, b"axis") + _number(3, axis) + _number(20, _INT)))
        self._nodes.append(b"".join(parts))

    def model(self, inputs: Mapping[str, tuple[int, ...]], outputs: Mapping[str, tuple[int, ...]]) -> bytes:
        """The file: float32 inputs and outputs by name and shape; an input of shape () is int64."""
        graph = [_field(1, node) for node in self._nodes]
        graph.append(_field(2, b"graph"))
        graph += [_field(5, constant) for constant in self._constants.values()]
        graph += [_field(11, _value(name, shape)) for name, shape in inputs.items()]
        graph += [_field(12, _value(name, shape)) for name, shape in outputs.items()]
        opset = _field(1, b"") + _number(2, OPSET)
        return _number(1, IR_VERSION) + _field(7, b"".join(graph)) + _field(8, opset)


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    kind = _TYPES[np.dtype(np.float32 if shape else np.int64)]
    dims = b"".join(_field(1, _number(1, size)) for size in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, kind) + _field(2, dims)))


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(content)) + content
