"""What FARGAN speaks from, measured on recordings: the analysis of opus 1.5.2 (`fargan_demo -features`).

Cepstra of 18 Bark bands, the pitch by PitchDNN (Subramani, Valin, Buethe, Smaragdis, Goodwin 2024) from lagged products
and phase steps of the low bins, and a periodicity at that pitch.

Letters: N samples, T frames of 10 ms, P samples of the analysed stretch.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from models.sound.fargan import (
    CEPSTRA,
    FRAME,
    LONGEST_PERIOD,
    SHORTEST_PERIOD,
    WEIGHTS,
    RoundedGru,
    RoundedLinear,
    periods,
)
from models.sound.fargan import widened as widened_weights
from models.weights import load_weights

PITCH_WEIGHTS = WEIGHTS.with_name("pitchdnn.safetensors")

WINDOW = 2 * FRAME
LOOK_BACK = FRAME // 2  # samples by which excitation is taken earlier than cepstra
PREEMPHASIS = 0.85
FULL_SCALE = 32768.0  # levels are those of 16-bit samples
BAND_EDGES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 34, 40)  # of 200 Hz
BAND_GAINS = (0.8, *[1.0] * 7, 2 / 3, 0.5, 0.5, 0.5, 1 / 3, 0.25, 0.25, 0.2, 1 / 6, 0.173913)  # bands to density
LOUDEST = 4.0  # what c0 is counted from
LPC_ORDER = 16
PHASE_BINS = 30
LAGS = LONGEST_PERIOD - SHORTEST_PERIOD
STEPS_PER_OCTAVE = 60
PITCHES = 180
LOW_PASS = ((1.0, -0.84946, 1.0), (1.0, -1.54220, 0.70781))  # elliptic, 1200 Hz
LOW_PASS_TAPS = 192  # its answer is below 1e-14 then
FRAMES_AT_ONCE = 2000


class PitchNetwork(nn.Module):
    """PitchDNN: phase steps (T, 88) and lagged products (T, 224) of one recording to log2(256 / period) - 1.5."""

    def __init__(self) -> None:
        super().__init__()
        self.phases1, self.phases2 = RoundedLinear(3 * PHASE_BINS - 2, 64), RoundedLinear(64, 64)
        self.lags1, self.lags2 = (nn.Conv2d(*sizes, kernel_size=3, padding=(0, 1)) for sizes in ((1, 4), (4, 1)))
        self.joined = RoundedLinear(LAGS + 64, 64)
        self.gru = RoundedGru(64, 64)
        self.out = RoundedLinear(64, 192)

    def forward(self, phases: Tensor, lags: Tensor) -> Tensor:
        seen = self.phases2(self.phases1(phases).tanh()).tanh()
        x = lags[None, None]  # (1, 1, T, 224)
        for convolution in (self.lags1, self.lags2):
            x = convolution(F.pad(x, (0, 0, 2, 0))).tanh()  # looks back only
        joined = self.joined(torch.cat([x[0, 0], seen], 1)).tanh()
        states = [torch.zeros_like(joined[:1])]
        for frame in joined.split(1):
            states.append(self.gru(frame, states[-1]))
        scores: Tensor = self.out(torch.cat(states[1:]))[:, :PITCHES]
        best = scores.argmax(1, keepdim=True)
        places = torch.arange(PITCHES)
        near = scores.masked_fill((places - best).abs() > 2, -torch.inf).softmax(1)
        return near @ places.to(near) / STEPS_PER_OCTAVE - 1.5


@cache
def load_pitch_network() -> PitchNetwork:
    """The published network, on the CPU."""
    network = PitchNetwork()
    load_weights(network, widened_weights(load_file(PITCH_WEIGHTS)), PITCH_WEIGHTS.name)
    return network.eval().requires_grad_(False)


@torch.no_grad()
def analyse(wave: Tensor) -> Tensor:
    """Features (T, 20) of speech (N,) at 16 kHz in [-1, 1]; a last part of a frame is left out.

    A frame is measured on its own 10 ms and the 10 ms before it.
    """
    frames = len(wave) // FRAME
    samples = wave[: frames * FRAME].double() * FULL_SCALE
    emphasised = samples - PREEMPHASIS * F.pad(samples, (1, 0))[:-1]
    spectrum = torch.fft.rfft(F.pad(emphasised, (FRAME, 0)).unfold(0, WINDOW, FRAME) * _window()) / WINDOW  # (T, 161)
    levels = _levels(spectrum.abs().square() @ _bands())
    cepstra = levels @ _cosines()
    cepstra[:, 0] -= LOUDEST
    residual = _residual(F.pad(emphasised, (LOOK_BACK, 0))[: len(emphasised)], _prediction(levels))
    excitation = residual + 0.7 * F.pad(residual, (1, 0))[:-1]
    pitch = load_pitch_network()(_phase_steps(spectrum).float(), _lagged_products(excitation).float())
    features = torch.cat([cepstra.float(), pitch[:, None], torch.zeros(frames, 1)], 1)
    features[:, -1] = _periodicity(_low_passed(residual), periods(features)).float()
    return features


@cache
def _window() -> Tensor:
    """Vorbis' power-complementary window."""
    ramp = torch.sin(0.5 * math.pi * (torch.arange(FRAME, dtype=torch.float64) + 0.5) / FRAME).square()
    half = torch.sin(0.5 * math.pi * ramp)
    return torch.cat([half, half.flip(0)])


@cache
def _bands() -> Tensor:
    """Triangles over bins: power (T, 161) @ this (161, 18) is the energy of bands."""
    weights = _triangles()
    weights[:, 0] *= 2
    weights[:, -1] *= 2
    return weights


def _triangles() -> Tensor:
    """Share of every band in every bin (161, 18); the highest bin belongs to none."""
    weights = torch.zeros(FRAME + 1, CEPSTRA, dtype=torch.float64)
    for band, (low, high) in enumerate(pairwise(BAND_EDGES)):
        width = 4 * (high - low)
        share = torch.arange(width, dtype=torch.float64) / width
        weights[4 * low : 4 * high, band] = 1 - share
        weights[4 * low : 4 * high, band + 1] = share
    return weights


@cache
def _cosines() -> Tensor:
    """Bands to cepstra, orthonormal."""
    numbers = torch.arange(CEPSTRA, dtype=torch.float64)
    table = torch.cos((numbers[:, None] + 0.5) * numbers * math.pi / CEPSTRA) * math.sqrt(2 / CEPSTRA)
    table[:, 0] *= math.sqrt(0.5)
    return table


def _levels(energy: Tensor) -> Tensor:
    """Log10 of band energies (T, 18), not far below the loudest band and the one before."""
    logs = torch.log10(energy + 1e-2)
    loudest, follow = torch.full_like(logs[:, 0], -2.0), torch.full_like(logs[:, 0], -2.0)
    levels = []
    for level in logs.unbind(1):
        follow = follow - 2.5
        level = level.maximum(loudest - 8).maximum(follow)
        loudest, follow = loudest.maximum(level), follow.maximum(level)
        levels.append(level)
    return torch.stack(levels, 1)


def _prediction(levels: Tensor) -> Tensor:
    """Coefficients (T, 16) of linear prediction from the levels of bands, by Levinson's recursion."""
    power = (10**levels * torch.tensor(BAND_GAINS, dtype=torch.float64)) @ _triangles().T  # (T, 161)
    correlation = torch.fft.irfft(power, WINDOW)[:, : LPC_ORDER + 1] * WINDOW
    correlation[:, 0] += correlation[:, 0] * 1e-4 + 26 / 38  # a noise floor at -40 dB
    correlation *= 1 - 6e-5 * torch.arange(LPC_ORDER + 1).double().square()  # a window over lags
    error, found = correlation[:, 0].clone(), torch.zeros(len(levels), LPC_ORDER, dtype=torch.float64)
    goes_on = torch.ones(len(levels), dtype=torch.bool)
    for order in range(LPC_ORDER):
        reached = (found[:, :order] * correlation[:, 1 : order + 1].flip(1)).sum(1) + correlation[:, order + 1]
        reflection = torch.where(goes_on, -reached / error, 0.0)
        found[:, :order] += reflection[:, None] * found[:, :order].flip(1)
        found[:, order] = reflection
        error = error * (1 - reflection.square())
        goes_on &= error >= 1e-3 * correlation[:, 0]  # 30 dB are enough
    return found


def _residual(samples: Tensor, prediction: Tensor) -> Tensor:
    """Samples (N,) less what each frame's prediction (T, 16) expects."""
    past = F.pad(samples, (LPC_ORDER, 0)).unfold(0, LPC_ORDER, 1)[:-1].flip(1)  # (N, 16), the newest first
    expected = torch.einsum("tnk,tk->tn", past.reshape(-1, FRAME, LPC_ORDER), prediction)
    return samples + expected.flatten()


def _low_passed(samples: Tensor) -> Tensor:
    """The elliptic low-pass filter, its answer cut where nothing is left of it."""
    numerator, denominator = LOW_PASS
    answer: list[float] = []
    for n in range(LOW_PASS_TAPS):
        fed_back = sum(denominator[k] * answer[n - k] for k in (1, 2) if n >= k)
        answer.append((numerator[n] if n < 3 else 0.0) - fed_back)
    taps = torch.tensor(answer[::-1], dtype=torch.float64)
    return F.conv1d(F.pad(samples, (LOW_PASS_TAPS - 1, 0))[None, None], taps[None, None])[0, 0]


def _phase_steps(spectrum: Tensor) -> Tensor:
    """How the phases of the lowest bins move from frame to frame, and their levels: (T, 88)."""
    low = spectrum[:, :PHASE_BINS]
    step = low * F.pad(low, (0, 0, 1, 0))[:-1].conj()
    step = step / (step.abs().square() + 1e-15).sqrt()
    level = ((10 * torch.log10(low.abs().square() + 1e-15) - 6) / 64).clamp(-1, 1)
    others = torch.stack([step.real, step.imag, level], 2)[:, 1:].flatten(1)
    lowest = ((10 * torch.log10(low[:, :1].real.square() + 1e-15) - 6) / 64).clamp(-1, 1)
    return torch.cat([lowest, others], 1)


def _lagged_products(excitation: Tensor) -> Tensor:
    """Normalised correlation of every frame with what was up to 256 samples before, longest lag first: (T, 224)."""
    padded = F.pad(excitation, (LONGEST_PERIOD, 0))
    sums = F.pad(padded.square().cumsum(0), (1, 0))
    energy = sums[FRAME:] - sums[:-FRAME]  # of the 160 samples from each place on
    products = []
    for stretch in padded.unfold(0, LONGEST_PERIOD + FRAME, FRAME).split(FRAMES_AT_ONCE):
        now = torch.fft.rfft(stretch[:, LONGEST_PERIOD:], 1024).conj()
        products.append(torch.fft.irfft(torch.fft.rfft(stretch, 1024) * now, 1024)[:, :LAGS])
    earlier = energy.unfold(0, LAGS, FRAME)[: len(excitation) // FRAME]  # (T, 224)
    own = energy[LONGEST_PERIOD::FRAME][:, None]
    return 2 * torch.cat(products) / (1 + own + earlier)


def _periodicity(samples: Tensor, period: Tensor) -> Tensor:
    """How alike each frame is to what was one period before, in [-0.5, 0.5]: (T,)."""
    places = torch.arange(len(samples)).reshape(-1, FRAME)
    now, before = samples[places], F.pad(samples, (LONGEST_PERIOD, 0))[places + LONGEST_PERIOD - period[:, None]]
    likeness = (now * before).sum(1) / (1 + now.square().sum(1) * before.square().sum(1)).sqrt()
    return F.softplus(5 * likeness) / math.log1p(math.exp(5)) - 0.5
