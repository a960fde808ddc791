"""Semantic tokens -> waveform of the v2 family (section `synthesizer` of benchmarks/models.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import Measurement, fill, median_s
from models.loading.bases import load_base
from models.synthesizer.vits import NO_NOISE, Synthesizer

# RTF on two idle cores of an AMD EPYC (Zen 4) in float32, weight norm on: upstream's own `decode`.
UPSTREAM_RTF = {("gpt-sovits-v2proplus", 4): 0.558, ("gpt-sovits-v2proplus", 10): 0.624, ("gpt-sovits-v2pro", 4): 0.248}
FLOOR_RTF = {("gpt-sovits-v2proplus", "float32"): 0.48, ("gpt-sovits-v2proplus", "bfloat16"): 0.22}
GOALS = {"as trained": "", "float32": "not slower", "bfloat16": ">= 1.8x, PESQ-WB >= 4.3"}
TOKENS_PER_SECOND, PHONES_PER_SECOND, REFERENCE_S = 25, 15, 5


def build(name: str) -> Synthesizer:
    config = load_base(name).synthesizer
    assert config is not None
    network = Synthesizer(config)
    fill(network)
    return network.eval()


def inputs(network: Synthesizer, seconds: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    config = network.config
    frames = REFERENCE_S * config.spectrogram.sample_rate_hz // config.spectrogram.hop_samples
    speaker = None if config.speaker_dim is None else torch.randn(1, config.speaker_dim, generator=generator)
    return {
        "codes": torch.randint(0, config.codebook_size, (1, 1, seconds * TOKENS_PER_SECOND), generator=generator),
        "text": torch.randint(1, config.n_symbols, (1, seconds * PHONES_PER_SECOND), generator=generator),
        "spec": torch.rand(1, config.spectrogram.bins, frames, generator=generator) * 3,
        "speaker": speaker,
    }


def speak(network: Synthesizer, given: dict[str, Any]) -> torch.Tensor:
    """As upstream's `decode`: the reference is encoded every time."""
    with torch.inference_mode():
        ge = network.condition(given["spec"], speaker=given["speaker"])
        return network.decode(given["codes"], given["text"], ge, NO_NOISE)


def measure(repeats: int) -> list[Measurement]:
    found = []
    for name, lengths in (("gpt-sovits-v2proplus", (4, 10)), ("gpt-sovits-v2pro", (4,))):
        exact: dict[int, torch.Tensor] = {}
        for precision in ("as trained", "float32", "bfloat16"):
            network = build(name)
            if precision != "as trained":
                network.prepare_for_inference(precision)
            for seconds in lengths:
                given = inputs(network, seconds)
                wave = speak(network, given)
                exact.setdefault(seconds, wave)
                median, detail = median_s(lambda network=network, given=given: speak(network, given), repeats)
                if precision == "bfloat16":
                    detail |= loss(wave, exact[seconds], network.config.spectrogram.sample_rate_hz)
                    print(f"{name} in {precision} against float32, {seconds} s: {told(detail)}")
                found.append(
                    Measurement(
                        f"{name}, {seconds} s, {precision}",
                        round(median / seconds, 4),
                        "RTF",
                        UPSTREAM_RTF.get((name, seconds)),
                        FLOOR_RTF.get((name, precision)),
                        GOALS[precision],
                        detail=detail,
                    )
                )
    return found


def loss(rough: torch.Tensor, exact: torch.Tensor, sample_rate_hz: int) -> dict[str, float]:
    """What lower precision costs: signal over error in dB, and PESQ-WB with float32 as the reference.

    The weights are invented, so the sound is none; a trained decoder has to be judged on its own speech.
    """
    import soxr
    from pesq import pesq

    exact = exact.flatten() - exact.mean()
    error = rough.flatten() - rough.mean() - exact
    snr_db = 10 * torch.log10(exact.square().sum() / error.square().sum()).item()

    def heard(wave: torch.Tensor) -> NDArray[np.float32]:
        scaled = 0.3 * wave / exact.abs().max()
        return soxr.resample(scaled.numpy(), sample_rate_hz, 16000)

    return {"snr_db": round(snr_db, 2), "pesq_wb": round(pesq(16000, heard(exact), heard(exact + error), "wb"), 3)}


def told(detail: dict[str, float]) -> str:
    return f"error {detail['snr_db']} dB below the signal, PESQ-WB {detail['pesq_wb']}"
