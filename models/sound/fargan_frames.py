"""FARGAN's signal network in ONNX Runtime, a frame of 10 ms at a time: a tenth of the time of eager torch.

The same weights and operations as `models/sound/fargan.py`, which stays what tests compare with. One row at a time.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.sound.fargan import (
    AROUND,
    FRAME,
    LONGEST_PERIOD,
    SIGNAL,
    STEPS,
    SUBFRAME,
    SUBFRAMES,
    Fargan,
    Past,
    Stream,
    in_range,
    load_fargan,
    periods,
)
from models.sound.onnx_graph import GraphWriter

STATES = {"samples": LONGEST_PERIOD, "signal": SIGNAL, "gru1": 160, "gru2": 128, "gru3": 128}
Row = NDArray[np.float32]


class FrameVocoder:
    """Speaks as `Fargan` does, without its batches."""

    def __init__(self, fargan: Fargan) -> None:
        self.fargan = fargan
        self._session = _session(fargan)

    def begin(self, first: Tensor) -> Stream:
        """As `Fargan.begin`, of one row."""
        return self.fargan.begin(first)

    @torch.no_grad()
    def __call__(self, features: Tensor, stream: Stream | None = None) -> tuple[Tensor, Stream]:
        """As `Fargan.forward`: features (1, T, 20) to speech (1, 160 T), and the stream to go on with."""
        stream = stream or self.begin(features[:, 0])
        features = in_range(features)
        period = periods(features)
        conditions, frames = self.fargan.condition(features, period, stream.frames)
        late = torch.cat([stream.period, period], 1)[0].tolist()
        signal = self.fargan.signal
        sums = signal.conditioned(torch.cat([stream.condition, conditions], 1))[0].numpy()
        gains = signal.gain(conditions)[0].exp().numpy()
        state = {name: value.numpy() for name, value in stream.past._asdict().items()}
        made = np.empty((1, FRAME * features.shape[1]), np.float32)
        for frame in range(features.shape[1]):
            rows = slice(SUBFRAMES * frame, SUBFRAMES * (frame + 1))
            told = {"sums": sums[rows], "gains": gains[rows], "period": np.array(late[frame], np.int64)}
            wave, *after = self._session.run(None, told | state)
            made[:, FRAME * frame : FRAME * (frame + 1)] = wave
            state = dict(zip(STATES, after, strict=True))
        past = Past(**{name: torch.from_numpy(value) for name, value in state.items()})
        wave = self.fargan.deemphasised(torch.from_numpy(made), stream.last)
        return wave.clamp(-1, 1), Stream(frames, conditions[:, -1:], period[:, -1:], past, wave[:, -1])


def _session(fargan: Fargan) -> Any:
    import onnxruntime  # heavy, and only needed to speak

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(_graph(fargan), options, providers=["CPUExecutionProvider"])


class _SignalGraph(GraphWriter):
    """The operations of `SignalNetwork.forward`, by the names of its weights."""

    def __init__(self, fargan: Fargan) -> None:
        super().__init__()
        self.weights = {name: value.numpy() for name, value in fargan.signal.state_dict().items()}
        self.places = fargan.signal.places.numpy()

    def op(self, kind: str, *inputs: str, axis: int | None = None) -> str:
        return self.node(kind, inputs, axis)[0]

    def split(self, x: str, sizes: tuple[int, ...], axis: int = 1) -> list[str]:
        name = self.constant("split_" + "_".join(map(str, sizes)), np.array(sizes, np.int64))
        return self.node("Split", [x, name], axis, outputs=len(sizes))

    def number(self, name: str, value: float) -> str:
        return self.constant(name, np.array(value, np.float32))

    def linear(self, x: str, name: str, scale: float = 1.0) -> str:
        weight = self.constant(
            f"{name}.weight", np.ascontiguousarray(self.weights[f"{name}.weight"].T * np.float32(scale))
        )
        return self.op("Gemm", x, weight, self.constant(f"{name}.bias", self.weights[f"{name}.bias"]))

    def rounded(self, x: str, name: str) -> str:
        """A linear layer of inputs rounded to 1 / STEPS; what is beyond -1 and 1 is cut off."""
        within = self.op("Clip", x, self.number("minus_one", -1.0), self.number("one", 1.0))
        steps = self.op("Round", self.op("Mul", within, self.number("steps", STEPS)))
        return self.linear(steps, name, 1 / STEPS)

    def gate(self, x: str, name: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", self.rounded(x, name)))

    def gru(self, x: str, state: str, name: str, size: int) -> str:
        gates, new = self.split(self.rounded(x, f"{name}.input"), (2 * size, size))
        kept_gates, kept_new = self.split(self.rounded(state, f"{name}.recurrent"), (2 * size, size))
        update, reset = self.split(self.op("Sigmoid", self.op("Add", gates, kept_gates)), (size, size))
        fresh = self.op("Tanh", self.op("Add", new, self.op("Mul", kept_new, reset)))
        return self.op("Add", fresh, self.op("Mul", update, self.op("Sub", state, fresh)))

    def subframe(self, sums: str, gain: str, places: str, past: dict[str, str]) -> tuple[str, dict[str, str]]:
        """As `SignalNetwork.forward`, of one row."""
        join = lambda *parts: self.op("Concat", *parts, axis=1)  # noqa: E731
        scaled = self.op(
            "Div", self.op("Gather", past["samples"], places, axis=1), self.op("Add", gain, self.number("least", 1e-5))
        )
        signal = self.op("Clip", scaled, self.number("minus_one", -1.0), self.number("one", 1.0))
        _, echo, _, last = self.split(signal, (AROUND, SUBFRAME, AROUND, SUBFRAME))
        x = self.gate(self.op("Tanh", self.op("Add", sums, self.rounded(join(past["signal"], signal), "seen"))), "gate")
        shares = self.split(self.op("Sigmoid", self.linear(x, "echo_gates")), (1, 1, 1, 1))
        echoes = [self.op("Mul", share, echo) for share in shares]
        before, outs, after = x, list[str](), dict[str, str]()
        for number, size in enumerate((160, 128, 128)):
            name = f"gru{number + 1}"
            after[name] = self.gru(join(before, echoes[number], last), past[name], name, size)
            before = self.gate(after[name], f"{name}_gate")
            outs.append(before)
        skipped = self.op("Tanh", self.rounded(join(*outs, x, echoes[3], last), "skip"))
        made = self.op("Mul", self.op("Tanh", self.rounded(self.gate(skipped, "skip_gate"), "out")), gain)
        _, kept = self.split(past["samples"], (SUBFRAME, LONGEST_PERIOD - SUBFRAME))
        return made, {"samples": join(kept, made), "signal": signal, **after}


def _graph(fargan: Fargan) -> bytes:
    """Four subframes: their sums, gains and the period, and what is past, to samples before de-emphasis."""
    graph = _SignalGraph(fargan)
    places = graph.op("Gather", graph.constant("places", graph.places), "period", axis=0)
    past, made = {name: name for name in STATES}, list[str]()
    each = (1,) * SUBFRAMES
    for sums, gain in zip(graph.split("sums", each, axis=0), graph.split("gains", each, axis=0), strict=True):
        samples, past = graph.subframe(sums, gain, places, past)
        made.append(samples)
    graph.named_node("Concat", made, ["made"], axis=1)
    for name, value in past.items():
        graph.named_node("Identity", [value], [f"{name}_after"])
    shapes = {name: (1, size) for name, size in STATES.items()}
    inputs = {"sums": (SUBFRAMES, 192), "gains": (SUBFRAMES, 1), "period": (), **shapes}
    return graph.model(inputs, {"made": (1, FRAME), **{f"{name}_after": shape for name, shape in shapes.items()}})


@cache
def load_frame_vocoder() -> FrameVocoder:
    """The published vocoder, ready to speak one utterance at a time."""
    return FrameVocoder(load_fargan())
