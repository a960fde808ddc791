"""Text to semantic tokens, reference clips, and speech from text (section `gpt` of benchmarks/models.py)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.report import REPOSITORY, Measurement, fill, median_s
from models.bases import Base, load_base
from models.compat import prepare_torchaudio
from models.configs.speaker import FbankConfig, SpeakerEncoderConfig
from models.configs.text2semantic import SamplingConfig, Text2SemanticConfig
from models.decoding import Decoder, Request, compare_weights
from models.fbank import fbank
from models.projections import WeightKind
from models.speaker import SpeakerEncoder
from models.synthesizer import Synthesizer
from models.text2semantic import Text2Semantic
from models.voice import Reference, Sentence, Voice
from models.voice_loading import VoiceOptions, vits_renderer
from pipeline.io.audio import read_audio, resample, write_audio
from pipeline.text.frontend import phonemize
from pipeline.text.symbols import symbol_ids

# Two idle cores of an AMD EPYC (Zen 4), upstream as it is; floors are memory or arithmetic limits of that machine.
UPSTREAM_TOKENS_PER_S = {1: 31.7, 8: 122.0}
FLOOR_TOKENS_PER_S: dict[tuple[WeightKind, int], float] = {
    ("f32", 1): 160,
    ("bf16", 1): 320,
    ("int8", 1): 500,
    ("f32", 8): 780,
}
GOALS = {("f32", 1): ">= 2.3x", ("bf16", 1): ">= 4x", ("int8", 1): ">= 4x", ("f32", 8): ">= 4x"}
UPSTREAM_PREFILL_S = {1: 0.278, 8: 1.82}
UPSTREAM_TRAIN_S, FLOOR_TRAIN_S = 8.9, 4.3
UPSTREAM_READ_MS, FLOOR_READ_MS = 69.3, 1.2
UPSTREAM_SPEECH_RTF, FLOOR_SPEECH_RTF = 1.4, 0.3
PHONES, PROMPT_TOKENS, NEW_TOKENS = 60, 150, 200
SPEECH_S = 4
TEXT = "The next lecture begins at nine in the main hall, so please take your seats early."
KINDS: tuple[WeightKind, ...] = ("f32", "bf16", "int8")


def measure(repeats: int) -> list[Measurement]:
    network = Text2Semantic(Text2SemanticConfig())
    fill(network)
    network.eval()
    found = decoding(network, min(repeats, 3))
    found += [training(network, min(repeats, 3)), reading(repeats)]
    return found + speech(network, min(repeats, 3))


def exactly(tokens: int) -> SamplingConfig:
    """As many tokens as asked for: the end token never comes."""
    return SamplingConfig(min_tokens=10**6, max_tokens=tokens)


def requests(rows: int) -> list[Request]:
    generator = torch.Generator().manual_seed(1)
    return [
        Request(
            torch.randint(0, 700, (PHONES,), generator=generator),
            seed,
            torch.randn(1024, PHONES, generator=generator),
            torch.randint(0, 1024, (PROMPT_TOKENS,), generator=generator),
        )
        for seed in range(rows)
    ]


def decoding(network: Text2Semantic, repeats: int) -> list[Measurement]:
    found = []
    exact = Decoder(network)
    tokens = exact.generate(requests(1), exactly(NEW_TOKENS))[0].tokens
    for kind in KINDS:
        decoder = exact if kind == "f32" else Decoder(network, kind)
        if kind != "f32":
            loss = compare_weights(exact, decoder, requests(1)[0], tokens)
            print(f"{kind} against f32, {NEW_TOKENS} tokens: {loss}")
        for rows in (1, 8):
            asked = requests(rows)
            first, _ = median_s(lambda d=decoder, a=asked: d.generate(a, exactly(1)), repeats)
            whole, detail = median_s(lambda d=decoder, a=asked: d.generate(a, exactly(NEW_TOKENS + 1)), repeats)
            rate = rows * NEW_TOKENS / (whole - first)
            name = f"decoding, batch {rows}, {kind}"
            floor, goal = FLOOR_TOKENS_PER_S.get((kind, rows)), GOALS.get((kind, rows), "")
            upstream = UPSTREAM_TOKENS_PER_S[rows]
            found.append(Measurement(name, round(rate, 1), "tokens/s", upstream, floor, goal, "higher", detail))
            prefill = f"210 positions and a token, batch {rows}, {kind}"
            found.append(Measurement(prefill, round(first, 3), "s", UPSTREAM_PREFILL_S[rows]))
    return found


def training(network: Text2Semantic, repeats: int) -> Measurement:
    """Forward and backward of 4 rows of 100 phones and 300 tokens, dropout as upstream's."""
    generator = torch.Generator().manual_seed(2)
    phones = torch.randint(0, 700, (4, 100), generator=generator)
    tokens = torch.randint(0, 1024, (4, 300), generator=generator)
    bert, lengths = torch.randn(4, 1024, 100, generator=generator), (torch.full((4,), 100), torch.full((4,), 300))

    def step() -> None:
        network.zero_grad()
        network(phones, lengths[0], tokens, lengths[1], bert).loss.backward()

    network.train().requires_grad_(True)
    median, detail = median_s(step, repeats)
    network.eval().zero_grad()
    return Measurement(
        "training step, 4 x 400", round(median, 2), "s", UPSTREAM_TRAIN_S, FLOOR_TRAIN_S, "<= 5.5 s", detail=detail
    )


def reading(repeats: int) -> Measurement:
    """Read and resample to 32 kHz: real clips where VOXLINE_SHARED has them, else a made one of 5.7 s."""
    shared = Path(os.environ.get("VOXLINE_SHARED", REPOSITORY.parent / "shared")) / "data" / "voices"
    clips = sorted(shared.rglob("*.wav"))[:40]
    with tempfile.TemporaryDirectory() as folder:
        if not clips:
            clips = [Path(folder) / "made.wav"]
            write_audio(clips[0], np.random.default_rng(1).normal(0, 0.1, 125_000).astype(np.float32), 22050)

        def work() -> None:
            for clip in clips:
                audio = read_audio(clip)
                resample(audio.mono, audio.sample_rate_hz, 32000)

        median, detail = median_s(work, repeats)
    value = round(median / len(clips) * 1000, 2)
    return Measurement(
        "reading and resampling a clip", value, "ms", UPSTREAM_READ_MS, FLOOR_READ_MS, "<= 1.5 ms", detail=detail
    )


def speech(network: Text2Semantic, repeats: int) -> list[Measurement]:
    """Four seconds from text with v2ProPlus: front end, tokens, waveform; the reference clip is kept from before."""
    base = load_base("gpt-sovits-v2proplus")
    content, speaker = _hubert(), _speaker()
    reference = Reference(torch.randn(5 * 32000) * 0.1, 32000, torch.randint(0, 700, (75,)))
    found = []
    for options in (VoiceOptions(), VoiceOptions("bf16", "bf16"), VoiceOptions("int8", "bf16")):
        voice = _voice(base, network, content, speaker, options)
        say_it = _speaking(voice, reference)
        if options == VoiceOptions():
            fresh, detail = median_s(lambda v=voice: v._prepare(reference), 1)
            found.append(Measurement("a reference clip of 5 s, first time", round(fresh, 3), "s", None, detail=detail))
            kept, detail = median_s(lambda v=voice: v.prepare(reference), repeats)
            found.append(Measurement("the same again", round(kept, 5), "s", 2.0, goal="once", detail=detail))
        median, detail = median_s(say_it, repeats)
        name = f"4 s of speech from text, tokens {options.text2semantic_weights}, wave {options.wave_precision}"
        rtf = round(median / SPEECH_S, 3)
        found.append(Measurement(name, rtf, "RTF", UPSTREAM_SPEECH_RTF, FLOOR_SPEECH_RTF, "<= 0.6", detail=detail))
    return found


def _speaking(voice: Voice, reference: Reference) -> Callable[[], None]:
    length = int(SPEECH_S * voice.token_rate_hz)

    def work() -> None:
        phones = torch.tensor(symbol_ids(phonemize(TEXT, "en").symbols))
        made = voice.speak([Sentence(phones)], reference, sampling=exactly(length), attempts=1)
        assert len(made.wave) == SPEECH_S * voice.sample_rate_hz, f"{len(made.wave)} samples"

    return work


def _voice(
    base: Base, network: Text2Semantic, content: nn.Module, speaker: Callable[[Tensor], Tensor], options: VoiceOptions
) -> Voice:
    assert base.synthesizer is not None
    synthesizer = Synthesizer(base.synthesizer)
    fill(synthesizer)
    renderer = vits_renderer(synthesizer.eval(), torch.device("cpu"), options)
    return Voice(Decoder(network, options.text2semantic_weights), renderer, content, speaker)


class _Hubert(nn.Module):
    """HuBERT base with random weights."""

    def __init__(self) -> None:
        super().__init__()
        prepare_torchaudio()
        from transformers import HubertConfig, HubertModel

        self.hubert = HubertModel(HubertConfig())

    def forward(self, wave: Tensor) -> Tensor:
        return self.hubert(wave).last_hidden_state.transpose(1, 2)


def _hubert() -> nn.Module:
    return _Hubert().eval()


def _speaker() -> Callable[[Tensor], Tensor]:
    encoder = SpeakerEncoder(SpeakerEncoderConfig())
    fill(encoder)
    encoder.eval()
    return lambda wave: encoder(fbank(wave, FbankConfig())[None])[0]
