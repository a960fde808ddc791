"""FARGAN (Valin, Mustafa, Buethe 2024): 20 numbers every 10 ms -> speech at 16 kHz, with the weights of opus 1.5.2.

A frame is 18 Bark cepstra, pitch as log2(256 / period) - 1.5 and a periodicity in [-0.5, 0.5], as
`models/sound/fargan_analysis.py` measures them. Speech is made in subframes of 2.5 ms: each looks at its frame's
condition, at what was made one pitch period before and at the last 2.5 ms.

The published weights have 8 bits and are used with inputs rounded to 1/127, as here. Noise is not drawn but grows out
of the recurrence itself, so two programs that round differently in the last bit soon make other noise of the same kind:
the C code compiled twice agrees with itself to a correlation of 0.83 to 0.94. What can be compared is the next subframe
after the same past, see `tests/models/sound/test_fargan.py`.

Letters: B rows, T frames, S subframes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from models.weights import load_weights

WEIGHTS = Path(__file__).resolve().parents[1] / "fargan" / "fargan.safetensors"

SAMPLE_RATE_HZ = 16_000
FEATURES, CEPSTRA = 20, 18
FRAME, SUBFRAME = 160, 40  # samples
SUBFRAMES = FRAME // SUBFRAME
DELAY_SAMPLES = 240  # speech comes this much later than the recording its features were measured on
SHORTEST_PERIOD, LONGEST_PERIOD = 32, 256  # samples
STEPS = 127  # of rounded inputs, on each side of zero
DEEMPHASIS = 0.85
CONDITION, PITCH_EMBEDDING = 80, 12
AROUND = 2  # samples beside the subframe of one period before
ECHO = SUBFRAME + 2 * AROUND
SIGNAL = ECHO + SUBFRAME  # what a subframe sees of the past
WARM_UP = 5  # frames before the first one that is heard


def rounded(x: Tensor) -> Tensor:
    """Inputs in [-1, 1] to the nearest 1/127."""
    return torch.fake_quantize_per_tensor_affine(x, 1 / STEPS, 0, -STEPS, STEPS)


class RoundedLinear(nn.Linear):
    """A linear layer of rounded inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(rounded(x), self.weight, self.bias)


class Gate(RoundedLinear):
    """x -> x times a sigmoid of all of it."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size)

    def forward(self, x: Tensor) -> Tensor:
        return x * super().forward(x).sigmoid_()


class RoundedGru(nn.Module):
    """A gated recurrent unit with rounded inputs to both products; its gates stand in the order update, reset, new."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.input = RoundedLinear(inputs, 3 * size)
        self.recurrent = RoundedLinear(size, 3 * size)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """Inputs (B, inputs) and state (B, size) to the next state."""
        gates, new = self.input(x).split([2 * self.size, self.size], dim=1)
        kept_gates, kept_new = self.recurrent(state).split([2 * self.size, self.size], dim=1)
        update, reset = (gates + kept_gates).sigmoid_().chunk(2, dim=1)
        return torch.addcmul(new, kept_new, reset).tanh_().lerp_(state, update)


class ConditionNetwork(nn.Module):
    """Features of frames -> the condition of each of their subframes."""

    def __init__(self) -> None:
        super().__init__()
        self.pitch = nn.Embedding(LONGEST_PERIOD - SHORTEST_PERIOD, PITCH_EMBEDDING)
        self.dense = nn.Linear(FEATURES + PITCH_EMBEDDING, 64)
        self.convolution = RoundedLinear(3 * 64, 128)
        self.out = RoundedLinear(128, SUBFRAMES * CONDITION)

    def forward(self, features: Tensor, period: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 20), (B, T) and the last two frames of the layer before the convolution (B, 2, 64).

        Returns conditions (B, 4 T, 80) and the next call's `past`.
        """
        embedded = self.pitch((period - SHORTEST_PERIOD).clamp(0, self.pitch.num_embeddings - 1))
        x = torch.cat([past, self.dense(torch.cat([features, embedded], -1)).tanh_()], 1)  # (B, 2 + T, 64)
        seen = torch.cat([x[:, :-2], x[:, 1:-1], x[:, 2:]], -1)  # (B, T, 192), the oldest frame first
        conditions = self.out(self.convolution(seen).tanh_()).tanh_()
        return conditions.reshape(len(features), -1, CONDITION), x[:, -2:]


class Past(NamedTuple):
    """What the signal network remembers from one subframe to the next."""

    samples: Tensor  # (B, 256), before de-emphasis
    signal: Tensor  # (B, 84), what the last subframe saw of them, scaled to its gain
    gru1: Tensor
    gru2: Tensor
    gru3: Tensor


class SignalNetwork(nn.Module):
    """One subframe of 40 samples from its condition and the past."""

    places: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Linear(CONDITION, 1)
        # One convolution over the last subframe and this one; its columns for the conditions stand apart, so that
        # their part is computed for many subframes at once.
        self.told = RoundedLinear(2 * CONDITION, 192, bias=False)
        self.seen = RoundedLinear(2 * SIGNAL, 192)
        self.gate = Gate(192)
        self.echo_gates = nn.Linear(192, 4)
        self.gru1, self.gru1_gate = RoundedGru(192 + 2 * SUBFRAME, 160), Gate(160)
        self.gru2, self.gru2_gate = RoundedGru(160 + 2 * SUBFRAME, 128), Gate(128)
        self.gru3, self.gru3_gate = RoundedGru(128 + 2 * SUBFRAME, 128), Gate(128)
        self.skip, self.skip_gate = RoundedLinear(160 + 128 + 128 + 192 + 2 * SUBFRAME, 128), Gate(128)
        self.out = RoundedLinear(128, SUBFRAME)
        self.register_buffer("places", _places(), persistent=False)

    def conditioned(self, conditions: Tensor) -> Tensor:
        """The convolution's sums over conditions (B, 1 + S, 80), each with the one before: (B, S, 192)."""
        told: Tensor = self.told(torch.cat([conditions[:, :-1], conditions[:, 1:]], -1))
        return told

    def forward(self, conditioned: Tensor, gain: Tensor, period: Tensor, past: Past) -> tuple[Tensor, Past]:
        """(B, 192), (B, 1), (B,) and the past to samples before de-emphasis (B, 40) and what is past then."""
        signal = past.samples.gather(1, self.places[period]).div_(gain + 1e-5).clamp_(-1, 1)  # (B, 84)
        echo, last = signal[:, AROUND : AROUND + SUBFRAME], signal[:, ECHO:]
        x = self.gate((conditioned + self.seen(torch.cat([past.signal, signal], 1))).tanh_())
        echoes = (self.echo_gates(x).sigmoid_()[:, :, None] * echo[:, None]).unbind(1)  # 4 of (B, 40)
        gru1 = self.gru1(torch.cat([x, echoes[0], last], 1), past.gru1)
        out1 = self.gru1_gate(gru1)
        gru2 = self.gru2(torch.cat([out1, echoes[1], last], 1), past.gru2)
        out2 = self.gru2_gate(gru2)
        gru3 = self.gru3(torch.cat([out2, echoes[2], last], 1), past.gru3)
        out3 = self.gru3_gate(gru3)
        skipped = self.skip(torch.cat([out1, out2, out3, x, echoes[3], last], 1)).tanh_()
        made = self.out(self.skip_gate(skipped)).tanh_() * gain
        return made, Past(torch.cat([past.samples[:, SUBFRAME:], made], 1), signal, gru1, gru2, gru3)


@dataclass(frozen=True)
class Stream:
    """What a vocoder remembers from one piece of an utterance to the next."""

    frames: Tensor  # (B, 2, 64), of the condition network
    condition: Tensor  # (B, 1, 80) of the last subframe
    period: Tensor  # (B, 1) of the last frame, in samples
    past: Past
    last: Tensor  # (B,) the last sample


class Fargan(nn.Module):
    """The vocoder. It is not trained further: rounding passes no gradient."""

    deemphasis: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.condition = ConditionNetwork()
        self.signal = SignalNetwork()
        self.register_buffer("deemphasis", _deemphasis(), persistent=False)

    @torch.no_grad()
    def begin(self, first: Tensor) -> Stream:
        """A stream in front of an utterance whose first frame is (B, 20): as if it had stood still in silence."""
        rows, first = len(first), in_range(first)
        period = periods(first)[:, None]
        still = torch.zeros(rows, 2, 64).to(first)
        conditions, frames = self.condition(first[:, None].expand(-1, WARM_UP, -1), period.expand(-1, WARM_UP), still)
        conditions = F.pad(conditions[:, -SUBFRAMES:], (0, 0, 1, 0))  # nothing before the first subframe
        states = (torch.zeros(rows, size).to(first) for size in (LONGEST_PERIOD, SIGNAL, 160, 128, 128))
        past = Past(*states)
        for sums, gain in self._subframes(conditions):
            _, past = self.signal(sums, gain, period[:, 0], past)
            past = past._replace(samples=torch.zeros_like(past.samples))
        return Stream(frames, conditions[:, -1:], period, past, torch.zeros(rows).to(first))

    @torch.no_grad()
    def forward(self, features: Tensor, stream: Stream | None = None) -> tuple[Tensor, Stream]:
        """Features (B, T, 20) to speech (B, 160 T) in [-1, 1], and the stream to go on with."""
        stream = stream or self.begin(features[:, 0])
        features = in_range(features)
        period = periods(features)
        conditions, frames = self.condition(features, period, stream.frames)
        conditions = torch.cat([stream.condition, conditions], 1)
        late = torch.cat([stream.period, period], 1)  # a frame is made with the pitch of the one before
        past, made = stream.past, []
        for step, (sums, gain) in enumerate(self._subframes(conditions)):
            samples, past = self.signal(sums, gain, late[:, step // SUBFRAMES], past)
            made.append(samples)
        wave = self.deemphasised(torch.cat(made, 1), stream.last)
        return wave.clamp(-1, 1), Stream(frames, conditions[:, -1:], period[:, -1:], past, wave[:, -1])

    def _subframes(self, conditions: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Sums (B, 192) and gain (B, 1) of every subframe of conditions (B, 1 + S, 80), the first of which is past."""
        sums, gains = self.signal.conditioned(conditions), self.signal.gain(conditions[:, 1:]).exp()
        return zip(sums.unbind(1), gains.unbind(1), strict=True)

    def deemphasised(self, made: Tensor, last: Tensor) -> Tensor:
        """y[n] = x[n] + 0.85 y[n - 1], frame by frame: (B, N), N a multiple of 160, and the sample before (B,)."""
        wave = []
        for frame in made.split(FRAME, dim=1):
            wave.append(F.linear(torch.cat([last[:, None], frame], 1), self.deemphasis))
            last = wave[-1][:, -1]
        return torch.cat(wave, 1)


def in_range(features: Tensor) -> Tensor:
    """Features (..., 20) with pitch and periodicity in the range that analysis gives; beyond it speech breaks up."""
    cepstra, pitch, periodicity = features.split([CEPSTRA, 1, 1], dim=-1)
    return torch.cat([cepstra, pitch.clamp(-1.5, 1.5), periodicity.clamp(-0.5, 0.5)], -1)


def periods(features: Tensor) -> Tensor:
    """Pitch periods in whole samples of features (..., 20)."""
    period = LONGEST_PERIOD / torch.exp2(features[..., CEPSTRA] + 1.5)
    return (period + 0.5).floor().long().clamp(SHORTEST_PERIOD, LONGEST_PERIOD)


def _deemphasis() -> Tensor:
    """The filter over one frame as a matrix (160, 1 + 160); its first column is for the last sample before."""
    delay = torch.arange(FRAME)[:, None] - torch.arange(-1, FRAME)
    return torch.where(delay >= 0, DEEMPHASIS ** delay.clamp(min=0).double(), 0.0).float()


def _places() -> Tensor:
    """Where a subframe looks in the last 256 samples, for every period: one period before, then the last 2.5 ms."""
    period = torch.arange(LONGEST_PERIOD + 1)[:, None].clamp(min=SHORTEST_PERIOD)
    echo = LONGEST_PERIOD - AROUND - period + torch.arange(ECHO)
    beyond = (echo - LONGEST_PERIOD).div(period, rounding_mode="floor") + 1  # periods too far
    echo = (echo - period * beyond.clamp(min=0)).clamp(min=0)
    last = torch.arange(LONGEST_PERIOD - SUBFRAME, LONGEST_PERIOD).expand(len(period), -1)
    return torch.cat([echo, last], 1)


@cache
def load_fargan() -> Fargan:
    """The published vocoder, on the CPU and ready to speak."""
    network = Fargan()
    load_weights(network, widened(load_file(WEIGHTS)), WEIGHTS.name)
    return network.eval().requires_grad_(False)


def widened(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of 8 bits with the scale of each row to plain ones; `scale` is that of a product of two whole numbers."""
    state = {name: value for name, value in stored.items() if not name.endswith(".scale")}
    for name, scale in stored.items():
        if name.endswith(".scale"):
            weight = name.removesuffix("scale") + "weight"
            state[weight] = state[weight] * (scale * STEPS)[:, None]
    return state
