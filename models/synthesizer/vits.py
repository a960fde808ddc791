"""The synthesizer of the v2 family: semantic tokens, phones and a speaker -> wave (docs/networks/synthesizer.md).

Plugged together from the files beside it: `style` (who speaks), `quantizer` (25 Hz tokens), `transformer` (prior),
`wavenet` (posterior), `flow` (between the two) and `decoder` (wave). v2, v2Pro and v2ProPlus differ in numbers.
Letters: B batch, T 50 Hz frames, S phones, F spectrogram bins, Z latent channels, G width of the condition ge.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.blocks.flow import Flow
from models.blocks.transformer import TextEncoder, change_speed
from models.blocks.wavenet import PosteriorEncoder
from models.blocks.weight_norm import fold_weight_norm
from models.configs.synthesizer import SynthesizerConfig
from models.errors import ConfigError
from models.sound.masks import fit_frames, length_mask, slice_starts, take_slices
from models.synthesizer.channels_last import ChannelsLastDecoder
from models.synthesizer.tokens import TokensAndSpeaker, TrainingBatch
from models.synthesizer.wave_heads import HifiGanDecoder


@dataclass(frozen=True)
class SynthesizerOutput:
    """What a training step needs; everything but `wave` covers whole utterances."""

    wave: Tensor  # (B, 1, segment * hop): the decoded slices
    starts: Tensor  # (B,): first frame of each slice
    mask: Tensor  # (B, 1, T)
    z: Tensor  # (B, Z, T): sample of the posterior
    z_p: Tensor  # (B, Z, T): the same after the flow
    m_p: Tensor
    logs_p: Tensor
    m_q: Tensor
    logs_q: Tensor
    quantized: Tensor  # (B, ssl_dim, T)


@dataclass(frozen=True, eq=False)
class Noise:
    """What is added to the mean of the prior, times its deviation and `scale` (None: as the base says).

    drawn: standard normal (B, Z, frames after speed), or what to draw it from.
    """

    drawn: Tensor | torch.Generator | None = None
    scale: float | None = None


NOISE, NO_NOISE = Noise(), Noise(scale=0.0)


@dataclass(frozen=True, eq=False)
class StreamPiece:
    """What is spoken of a growing sentence: its last tokens, their first frames blended with those of the piece before.

    overlap: encoded frames (1, C, n). upstream's sine weights add to more than 1; `convex` uses their squares, which
    do not.
    """

    tokens: int
    overlap: Tensor | None = None
    blend: Literal["convex", "upstream"] = "convex"


class Synthesizer(TokensAndSpeaker):
    """Conditional VAE with a flow prior; children carry upstream's names."""

    dec: HifiGanDecoder | ChannelsLastDecoder

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__(config)
        self.config = config
        hidden, inter, gin = config.hidden_channels, config.inter_channels, config.gin_channels
        self.enc_p = TextEncoder(config)
        self.dec = HifiGanDecoder(config.decoder, inter, gin)
        self.enc_q = PosteriorEncoder(config)
        self.flow = Flow(inter, hidden, config.flow_steps, config.flow_layers, gin)
        self._add_parts()
        if config.speaker_dim is not None:
            self.sv_emb = nn.Linear(config.speaker_dim, gin)
            self.ge_to512 = nn.Linear(gin, config.mrte_hidden)
            self.prelu = nn.PReLU(gin)

    # -- who speaks -----------------------------------------------------------------------------------------------

    def condition(self, spec: Tensor, lengths: Tensor | None = None, speaker: Tensor | None = None) -> Tensor:
        """ge of reference spectrograms (B, F, T) and, in v2Pro, speaker vectors (B, speaker_dim): (B, G, 1).

        v2: ge = ref_enc(spec). v2Pro: ge = PReLU(ref_enc(spec) + sv_emb(speaker)).
        """
        ge = super().condition(spec, lengths)
        if self.config.speaker_dim is None:
            return ge
        if speaker is None:
            raise ValueError("this synthesizer needs a speaker vector beside the reference spectrogram")
        return self.prelu(ge + self.sv_emb(speaker).float()[:, :, None])

    def _text_condition(self, ge: Tensor) -> Tensor:
        """ge as the text encoder takes it: v2Pro narrows it to the width of the MRTE, v2 has that width already."""
        if self.config.speaker_dim is None:
            return ge
        return self.ge_to512(ge.transpose(1, 2)).transpose(1, 2)

    # -- training -------------------------------------------------------------------------------------------------

    def forward(
        self,
        batch: TrainingBatch,
        ge: Tensor | None = None,
        noise: Tensor | None = None,
        uniform: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> SynthesizerOutput:
        """One training step's forward. The reference is the utterance itself unless another `ge` is given.

        `noise` (B, Z, T) and `uniform` (B,) in [0, 1) take the place of random numbers.
        """
        spec, spec_lengths = batch.spec, batch.spec_lengths
        mask = length_mask(spec_lengths, spec.shape[-1])
        if ge is None:
            ge = self.condition(spec, spec_lengths, batch.speaker)
        quantized = fit_frames(self.token_frames(batch.codes), spec.shape[-1])
        m_p, logs_p = self.prior(quantized, mask, batch.text, batch.text_lengths, ge)
        m_q, logs_q = self.enc_q.stats(spec, mask, ge.detach())  # as upstream: the posterior does not shape ge
        if noise is None:
            noise = _random(torch.randn, m_q.shape, m_q.device, generator)
        z = (m_q + noise * logs_q.exp()) * mask
        z_p = self.flow(z, mask, ge)
        if uniform is None:
            uniform = _random(torch.rand, spec_lengths.shape, spec.device, generator)
        starts = slice_starts(spec_lengths, self.config.segment_frames, uniform)
        wave = self.dec(take_slices(z, starts, self.config.segment_frames), ge)
        return SynthesizerOutput(wave, starts, mask, z, z_p, m_p, logs_p, m_q, logs_q, quantized)

    def prior(
        self, frames: Tensor, mask: Tensor, text: Tensor, text_lengths: Tensor, ge: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and log deviation, before the flow, of token frames (B, ssl_dim, T) and phones (B, S)."""
        latent = self.enc_p.encode(frames, mask, text, text_lengths, self._text_condition(ge))
        return self.enc_p.project(latent, mask)

    # -- synthesis ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(self, codes: Tensor, text: Tensor, ge: Tensor, noise: Noise = NOISE, *, speed: float = 1.0) -> Tensor:
        """Speech of tokens (B, 1, T // 2) and phones (B, S), none of them padding: (B, 1, samples)."""
        latent, mask = self._encode(codes, text, ge)
        latent, mask = change_speed(latent, mask, speed)
        return self._speak(latent, mask, ge, noise)

    @torch.no_grad()
    def decode_stream(
        self, codes: Tensor, text: Tensor, ge: Tensor, piece: StreamPiece, noise: Noise = NOISE, *, speed: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """One piece of a growing sentence, of which all tokens so far are read.

        Returns the wave (1, 1, samples) and the encoded frames of what is spoken; hand the last of these to the next
        piece as its overlap.
        """
        latent, mask = self._encode(codes, text, ge)
        frames = piece.tokens * self.config.frames_per_token
        latent, mask = change_speed(latent[..., -frames:], mask[..., -frames:], speed)
        if piece.overlap is not None:
            latent = _blend(latent, piece.overlap, piece.blend)
        return self._speak(latent, mask, ge, noise), latent

    @torch.no_grad()
    def copy_synthesis(self, spec: Tensor, ge: Tensor, noise: Tensor | None = None) -> Tensor:
        """A recording through posterior and decoder alone: (B, F, T) -> (B, 1, N); the mean of z unless `noise`."""
        m_q, logs_q = self.enc_q.stats(spec, torch.ones_like(spec[:, :1]), ge)
        z = m_q if noise is None else m_q + noise * logs_q.exp()
        return self.dec(z, ge)

    def _encode(
        self,
        codes: Tensor,
        text: Tensor,
        ge: Tensor,
        frame_lengths: Tensor | None = None,
        text_lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Encoded frames (B, C, T) and their mask; lengths None: nothing is padding."""
        frames = self.token_frames(codes)
        if frame_lengths is None:
            frame_lengths = torch.full((len(codes),), frames.shape[-1], device=codes.device)
        if text_lengths is None:
            text_lengths = torch.full((len(text),), text.shape[-1], device=text.device)
        mask = length_mask(frame_lengths, frames.shape[-1])
        return self.enc_p.encode(frames, mask, text, text_lengths, self._text_condition(ge)), mask

    def _speak(self, latent: Tensor, mask: Tensor, ge: Tensor, noise: Noise) -> Tensor:
        """Prior sample, flow in reverse, decoder: z_p = m + eps * exp(logs) * scale."""
        m_p, logs_p = self.enc_p.project(latent, mask)
        scale = self.config.noise_scale if noise.scale is None else noise.scale
        drawn = noise.drawn
        if not isinstance(drawn, Tensor):
            drawn = _random(torch.randn, m_p.shape, m_p.device, drawn)
        z_p = m_p + drawn * logs_p.exp() * scale
        z = self.flow(z_p, mask, ge, reverse=True)
        return self.dec(z * mask, ge)

    # -- preparing ------------------------------------------------------------------------------------------------

    def remove_weight_norm(self) -> "Synthesizer":
        """Fold weight norm into plain convolutions, for inference and always before adapters."""
        fold_weight_norm(self)
        return self

    def prepare_for_inference(self, precision: Literal["float32", "bfloat16"] = "float32") -> "Synthesizer":
        """Arrange the network for fast synthesis on a CPU, after adapters are merged; no training or saving after it.

        float32 changes nothing that can be heard; bfloat16 halves the time of a HiFi-GAN type decoder at a small loss.
        """
        self.remove_weight_norm().eval().requires_grad_(False)
        if isinstance(self.dec, HifiGanDecoder):
            self.dec = ChannelsLastDecoder(self.dec, getattr(torch, precision))
        elif precision != "float32":
            raise ConfigError(f"{precision}: the decoder is arranged already, and that is done once")
        return self

    def adaptable_modules(self, children: Sequence[str] = ("enc_p", "flow", "dec")) -> list[str]:
        """Names of the convolutions and linear layers that LoRA can adapt (after `remove_weight_norm`).

        Transposed, grouped and dilated convolutions stay frozen: peft 0.21 has no adapter for the first, and builds
        those of the others without groups or dilation, so that their output has another shape.
        """
        return [
            name
            for name, module in self.named_modules()
            if f"{name}.".startswith(tuple(child + "." for child in children))
            and (isinstance(module, nn.Linear) or _is_plain_convolution(module))
        ]


def _random(
    draw: Callable[..., Tensor], shape: torch.Size, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Random numbers drawn where the generator lives: one on the CPU gives the same speech on every device."""
    if generator is None:
        return draw(shape, device=device)
    return draw(shape, generator=generator, device=generator.device).to(device)


def _is_plain_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv1d) and module.groups == 1 and module.dilation == (1,)


def _blend(latent: Tensor, overlap: Tensor, blend: Literal["convex", "upstream"]) -> Tensor:
    """Cross-fade from `overlap` (1, C, n) into the first n frames of `latent` (1, C, T), by quarter sines."""
    n = overlap.shape[-1]
    angle = torch.arange(2 * n, device=latent.device, dtype=torch.float32) * (torch.pi / (2 * n))
    weights = angle.sin() if blend == "upstream" else angle.sin().square()
    mixed = latent[..., :n] * weights[:n] + overlap * weights[n:]
    return torch.cat([mixed, latent[..., n:]], dim=-1)
