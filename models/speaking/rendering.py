"""Semantic tokens to sound, for either kind of synthesizer, behind one small interface.

Letters: B batch (1 here), N samples, T 50 Hz frames, S phones, G width of ge, C condition channels, L mel frames.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.errors import ModelsError
from models.machine.processor import require
from models.sound.spectrogram import MelSpectrogram, Spectrogram, scale_mel, unscale_mel
from models.speaking.options import VoiceOptions
from models.synthesizer.cfm_synthesizer import CfmSynthesizer
from models.synthesizer.vits import Noise, StreamPiece, Synthesizer
from models.synthesizer.wave_heads import HifiGanDecoder

FIRST_PIECE_TOKENS, LARGEST_PIECE_TOKENS = 20, 80  # the first soon; later ones larger, for each reads all before it
OVERLAP_TOKENS = 4
SEARCH_S = 0.01  # how far a piece may be shifted to meet the one before it


@dataclass(frozen=True, eq=False, kw_only=True)
class PreparedReference:
    """A reference clip as the networks take it: what it says, where they are prompted with it, and how it sounds."""

    tokens: Tensor  # (T25,)
    phones: Tensor | None = None  # (S,)
    bert: Tensor | None = None  # (B, S)
    ge: Tensor  # (1, G, 1)
    prompt_mel: Tensor | None = None  # (1, M, L), scaled; v3 and v4
    prompt_features: Tensor | None = None  # (1, C, L)


def mean_reference(first: PreparedReference, others: Sequence[PreparedReference]) -> PreparedReference:
    """Several clips of one speaker: the first says its text, the mean of all is how they sound; for the v2 family."""
    return replace(first, ge=torch.stack([one.ge for one in (first, *others)]).mean(0))


@dataclass(frozen=True)
class Delivery:
    """How one sentence is said: all that its sound hangs on beside its tokens."""

    phones: Tensor  # (S,)
    reference: PreparedReference
    speed: float
    generator: torch.Generator


class Renderer(Protocol):
    """A synthesizer with what it needs to speak."""

    sample_rate_hz: int
    reference_rates_hz: tuple[int, ...]  # the spectrogram's first
    takes_several: bool  # whether it can speak like the mean of several clips
    streams_within: bool  # whether the smallest piece it can speak is less than a sentence
    streams_exactly: bool  # whether the pieces of a stream are those of the whole, to the sample

    def reference(
        self, waves: dict[int, Tensor], speaker: Tensor | None, tokens: Tensor, phones: Tensor | None
    ) -> PreparedReference:
        """How a clip sounds. waves: it (N,) at each of `reference_rates_hz`; its tokens (T25,) and phones (S,)."""
        ...

    def render(self, tokens: Tensor, said: Delivery) -> Tensor:
        """One sentence: tokens (T25,) -> (N,)."""
        ...

    def render_stream(self, pieces: Iterable[list[int]], said: Delivery) -> Iterator[Tensor]:
        """The same while the tokens still come: waves (N,) that follow each other."""
        ...


class VitsRenderer:
    """The v2 family: one network from tokens to wave."""

    takes_several = True
    streams_within = True
    streams_exactly = False  # a piece does not know the tokens after it

    def __init__(self, synthesizer: Synthesizer, device: torch.device) -> None:
        config = synthesizer.config.spectrogram
        self.synthesizer = synthesizer.to(device).eval()
        self.spectrogram = Spectrogram(config).to(device)
        self.device = device
        self.sample_rate_hz = config.sample_rate_hz
        self.reference_rates_hz: tuple[int, ...] = (config.sample_rate_hz,)
        self.samples_per_frame = config.hop_samples

    def reference(
        self, waves: dict[int, Tensor], speaker: Tensor | None, tokens: Tensor, phones: Tensor | None
    ) -> PreparedReference:
        spec = self.spectrogram(waves[self.sample_rate_hz].to(self.device)[None])
        vector = None if speaker is None else speaker.to(self.device)[None]
        return PreparedReference(tokens=tokens, ge=self.synthesizer.condition(spec, speaker=vector))

    def render(self, tokens: Tensor, said: Delivery) -> Tensor:
        codes, text = tokens.to(self.device)[None, None], said.phones.to(self.device)[None]
        wave = self.synthesizer.decode(codes, text, said.reference.ge, Noise(said.generator), speed=said.speed)
        return wave[0, 0]

    def render_stream(self, pieces: Iterable[list[int]], said: Delivery) -> Iterator[Tensor]:
        """Every piece is encoded with all tokens before it and spoken with a few of them again; the waves are joined
        where they agree best. The end of a piece is held back until the next one, or the end, is known."""
        stream = _VitsStream(self, said)
        for piece in pieces:
            if piece:
                yield stream.push(piece)
        if stream.held is not None:
            yield stream.held


def vits_renderer(synthesizer: Synthesizer, device: torch.device, options: VoiceOptions) -> VitsRenderer:
    """Takes the synthesizer over; its adapters, if any, have to be merged, or plugged in and nothing be replaced."""
    if device.type == "cpu" and not options.keeps_modules:
        is_lighter = options.wave_precision == "bf16" and isinstance(synthesizer.dec, HifiGanDecoder)
        if is_lighter:
            require("bf16")
        synthesizer.prepare_for_inference("bfloat16" if is_lighter else "float32")
    return VitsRenderer(synthesizer, device)


class _VitsStream:
    """What one sentence keeps between its pieces."""

    def __init__(self, renderer: VitsRenderer, said: Delivery) -> None:
        self.renderer, self.said, self.text = renderer, said, said.phones.to(renderer.device)[None]
        self.codes: list[int] = []
        self.held: Tensor | None = None  # (N,) the overlap, not given out yet
        self.latent: Tensor | None = None  # (1, C, n) frames of the overlap
        self.noise: Tensor | None = None  # (1, Z, n) and their noise, so that both pieces agree there

    def push(self, piece: list[int]) -> Tensor:
        """Speak more tokens; returns the wave (N,) that is certain by now."""
        synthesizer, config = self.renderer.synthesizer, self.renderer.synthesizer.config
        self.codes += piece
        keep = len(piece) if self.latent is None else len(piece) + OVERLAP_TOKENS
        keep = min(keep, len(self.codes))
        noise = self._noise(keep * config.frames_per_token)
        codes = torch.tensor(self.codes, device=self.renderer.device)[None, None]
        wave, latent = synthesizer.decode_stream(
            codes,
            self.text,
            self.said.reference.ge,
            StreamPiece(keep, self.latent),
            Noise(noise),
            speed=self.said.speed,
        )
        overlap = min(int(OVERLAP_TOKENS * config.frames_per_token / self.said.speed), latent.shape[-1] // 2)
        self.latent, self.noise = latent[..., -overlap:], noise[..., -overlap:]
        joined = wave[0, 0] if self.held is None else self._join(self.held, wave[0, 0])
        split = joined.shape[0] - overlap * self.renderer.samples_per_frame
        self.held = joined[split:]
        return joined[:split]

    def _noise(self, frames: int) -> Tensor:
        if self.said.speed != 1:
            frames = int(frames / self.said.speed) + 1
        known = 0 if self.noise is None else self.noise.shape[-1]
        shape = (1, self.renderer.synthesizer.config.inter_channels, frames - known)
        generator = self.said.generator
        fresh = torch.randn(shape, generator=generator, device=generator.device)
        return fresh if self.noise is None else torch.cat([self.noise, fresh], dim=-1)

    def _join(self, held: Tensor, wave: Tensor) -> Tensor:
        return cross_fade(held, wave, int(SEARCH_S * self.renderer.sample_rate_hz))


def cross_fade(held: Tensor, wave: Tensor, search: int) -> Tensor:
    """Fade from `held` (n,) into `wave` (N,), whose beginning says the same, shifted by up to `search` samples to
    where both agree best (normalised correlation), so that the fade cancels nothing."""
    length = held.shape[0] - search
    wanted, candidates = held[:length], wave[: held.shape[0]]
    score = F.conv1d(candidates[None, None], wanted[None, None])[0, 0]
    energy = F.conv1d(candidates.square()[None, None], torch.ones_like(wanted)[None, None])[0, 0]
    shift = int((score / (energy + 1e-8).sqrt()).argmax())
    rest = wave[shift:]
    fade = torch.linspace(0, torch.pi / 2, length, device=wave.device).sin().square()
    return torch.cat([wanted * (1 - fade) + rest[:length] * fade, rest[length:]])


class CfmRenderer:
    """v3 and v4: tokens to a mel by flow matching, continued from the reference clip, and a vocoder."""

    takes_several = False
    streams_within = False
    streams_exactly = False

    def __init__(
        self,
        synthesizer: CfmSynthesizer,
        vocoder: nn.Module,
        sample_rate_hz: int,
        device: torch.device,
        steps: int | None = None,
    ) -> None:
        self.synthesizer, self.vocoder = synthesizer.to(device).eval(), vocoder.to(device).eval()
        self.sample_rate_hz, self.device, self.steps = sample_rate_hz, device, steps
        config = synthesizer.config
        self.spectrogram = Spectrogram(config.encoder.spectrogram).to(device)
        self.mel = MelSpectrogram(config.mel).to(device)
        self.spectrogram_rate_hz = config.encoder.spectrogram.sample_rate_hz
        self.mel_rate_hz = config.mel.sample_rate_hz
        self.reference_rates_hz: tuple[int, ...] = (self.spectrogram_rate_hz, self.mel_rate_hz)

    def reference(
        self, waves: dict[int, Tensor], speaker: Tensor | None, tokens: Tensor, phones: Tensor | None
    ) -> PreparedReference:
        if phones is None:
            raise ModelsError("v3 and v4 continue the reference clip: the text of that clip is needed")
        ge = self.synthesizer.condition(self.spectrogram(waves[self.spectrogram_rate_hz].to(self.device)[None]))
        features = self.synthesizer.features(tokens.to(self.device)[None, None], phones.to(self.device)[None], ge)
        mel = scale_mel(self.mel(waves[self.mel_rate_hz].to(self.device)[None]))
        return PreparedReference(tokens=tokens, ge=ge, prompt_mel=mel, prompt_features=features)

    @torch.no_grad()
    def render(self, tokens: Tensor, said: Delivery) -> Tensor:
        prompt, prompt_features = said.reference.prompt_mel, said.reference.prompt_features
        assert prompt is not None and prompt_features is not None
        codes, text = tokens.to(self.device)[None, None], said.phones.to(self.device)[None]
        features = self.synthesizer.features(codes, text, said.reference.ge, said.speed)
        mel = self.synthesizer.continue_mel(
            prompt, prompt_features, features, steps=self.steps, generator=said.generator
        )
        return self.vocoder(unscale_mel(mel))[0, 0]

    def render_stream(self, pieces: Iterable[list[int]], said: Delivery) -> Iterator[Tensor]:
        """Flow matching sees a whole sentence, so the sentence is the smallest piece."""
        tokens = torch.tensor([token for piece in pieces for token in piece])
        yield self.render(tokens, said)


def pieces_of(tokens: Iterable[int]) -> Iterator[list[int]]:
    """Collect tokens into pieces for streaming: a short first one, then each twice the one before, up to a limit.

    What is left at the end joins the last piece unless that is already out.
    """
    size, piece = FIRST_PIECE_TOKENS, []
    for token in tokens:
        piece.append(token)
        if len(piece) == size:
            yield piece
            size, piece = min(2 * size, LARGEST_PIECE_TOKENS), []
    if piece:
        yield piece
