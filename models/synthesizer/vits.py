"""The synthesizer of the v2 family: semantic tokens, phones and a speaker -> wave (docs/networks/synthesizer.md).

Plugged together from the files beside it: `style` (who speaks), `quantizer` (25 Hz tokens), `transformer` (prior),
`wavenet` (posterior), `flow` (between the two) and `decoder` (wave). v2, v2Pro, v2ProPlus and nano differ in numbers.
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
from models.sound.harmonics import PITCH_CHANNELS, pitch_latent
from models.sound.masks import fit_frames, length_mask, slice_starts, take_slices
from models.sound.spectrogram import compress
from models.synthesizer.channels_last import ChannelsLastDecoder
from models.synthesizer.tokens import TokensAndSpeaker, TrainingBatch
from models.synthesizer.wave_heads import HifiGanDecoder, IstftDecoder, build_decoder

QUIET = 0.01  # magnitudes below it show no harmonics


@dataclass(frozen=True)
class SynthesizerOutput:
    """What a training step needs; everything but `wave` covers whole utterances."""

    wave: Tensor  # (B, 1, segment * hop): the decoded slices
    magnitude: Tensor | None  # (B, F, segment): compressed magnitude an inverse-STFT head predicted
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

    dec: HifiGanDecoder | IstftDecoder | ChannelsLastDecoder
    prior_gain: Tensor  # (Z, 1), with `prior_contrast`
    prior_centre: Tensor

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__(config)
        self.config = config
        hidden, inter, gin = config.hidden_channels, config.inter_channels, config.gin_channels
        self.enc_p = TextEncoder(config)
        self.dec = build_decoder(config.decoder, config.spectrogram, config.magnitude, inter, gin, config.pitch)
        self.enc_q = PosteriorEncoder(config)
        self.flow = Flow(inter, hidden, config.flow_steps, config.flow_layers, gin)
        self._add_parts()
        if config.prior_contrast:
            self.register_buffer("prior_gain", torch.ones(inter, 1))
            self.register_buffer("prior_centre", torch.zeros(inter, 1))
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
        wave, magnitude = self.dec.decode(take_slices(z, starts, self.config.segment_frames), ge)
        return SynthesizerOutput(wave, magnitude, starts, mask, z, z_p, m_p, logs_p, m_q, logs_q, quantized)

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
    def copy_synthesis(
        self, spec: Tensor, ge: Tensor, noise: Tensor | None = None, rounds: int | None = None
    ) -> Tensor:
        """A recording through posterior and decoder alone: (B, F, T) -> (B, 1, N); the mean of z unless `noise`.

        `rounds`: of Griffin-Lim, for an inverse-STFT decoder; None: as its config says.
        """
        mask = torch.ones_like(spec[:, :1])
        m_q, logs_q = self.enc_q.stats(spec, mask, ge)
        z = m_q if noise is None else m_q + noise * logs_q.exp()
        if isinstance(self.dec, IstftDecoder):
            return self.dec.copy(z, ge, rounds)
        if rounds is not None:
            raise ConfigError("rounds are of inverse-STFT decoders; this synthesizer has another")
        return self.dec(z, ge)

    @torch.no_grad()
    def redraw(self, spec: Tensor, ge: Tensor) -> Tensor:
        """A recording through the posterior, drawn as `decode` draws speech: (B, F, T) -> (B, 1, N).

        What `copy_synthesis` makes of it may be better than anything this network can say: Griffin-Lim is for
        magnitudes of real sound.
        """
        m_q, _ = self.enc_q.stats(spec, torch.ones_like(spec[:, :1]), ge)
        return self._draw(m_q, ge)

    def _draw(self, z: Tensor, ge: Tensor) -> Tensor:
        return self.dec.speak(z, ge) if isinstance(self.dec, IstftDecoder) else self.dec(z, ge)

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
        if self.config.prior_contrast:
            m_p = self.prior_centre + self.prior_gain * (m_p - self.prior_centre)
        scale = self.config.noise_scale if noise.scale is None else noise.scale
        drawn = noise.drawn
        if not isinstance(drawn, Tensor):
            drawn = _random(torch.randn, m_p.shape, m_p.device, drawn)
        z_p = m_p + drawn * logs_p.exp() * scale
        z = self.flow(z_p, mask, ge, reverse=True)
        return self._draw(z * mask, ge)

    # -- preparing ------------------------------------------------------------------------------------------------

    def remove_weight_norm(self) -> "Synthesizer":
        """Fold weight norm into plain convolutions, for inference and always before adapters."""
        fold_weight_norm(self)
        return self

    def prepare_for_inference(self, precision: Literal["float32", "bfloat16"] = "float32") -> "Synthesizer":
        """Arrange the network for fast synthesis on a CPU, after adapters are merged; no training or saving after it.

        float32 changes nothing that can be heard; bfloat16 halves the time of a HiFi-GAN type decoder at a small loss.
        An inverse-STFT decoder is fast as it is and stays as it is, in float32.
        """
        self.remove_weight_norm().eval().requires_grad_(False)
        if isinstance(self.dec, HifiGanDecoder):
            self.dec = ChannelsLastDecoder(self.dec, getattr(torch, precision))
        elif precision != "float32":
            raise ConfigError(f"{precision}: only HiFi-GAN type decoders have this option, and only once")
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

    @torch.no_grad()
    def set_pca(self, spec: Tensor, log_std: float = -2.0) -> float:
        """Start posterior and inverse-STFT head from a PCA of magnitudes (frames, F); returns the variance kept.

        z begins as the whitened principal components of the compressed magnitude with a deviation of exp(log_std),
        and the head as the way back, so that training starts at a decoder that already speaks. With `pitch` the frames
        must be in their order in time; the depth of the harmonics is fitted first and they are taken out.
        """
        head = self.dec.skip if isinstance(self.dec, IstftDecoder) else None
        posterior = self.enc_q.skip
        if head is None or posterior is None:
            raise ConfigError("a PCA start needs posterior_skip and an istft decoder with magnitude_skip")
        magnitude, first = spec.double(), 0
        if self.config.pitch:
            magnitude, first = magnitude * (-self._fit_harmonics(spec)).exp(), PITCH_CHANNELS
        seen = compress(magnitude, self.config.magnitude)
        mean = seen.mean(0)
        values, vectors = torch.linalg.eigh((seen - mean).T @ (seen - mean) / len(seen))  # ascending
        size = self.config.inter_channels - first
        kept, basis = values[-size:].flip(0).clamp(min=1e-8), vectors[:, -size:].flip(1)  # (Z,), (F, Z)
        into = (basis / kept.sqrt()).T  # (Z, F)
        for conv in (posterior, head):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(_bias_of(conv))
        posterior.weight[first:] = into[:, :, None].float()
        _bias_of(posterior)[first:] = -(into @ mean).float()
        head.weight[:, first:] = (basis * kept.sqrt())[:, :, None].float()
        _bias_of(head).copy_(mean)
        assert isinstance(self.dec, IstftDecoder)
        nn.init.zeros_(self.dec.to_magnitude.weight)
        nn.init.zeros_(self.dec.to_magnitude.bias)
        if self.config.pitch:  # phases start as those of the harmonics
            bins = self.config.spectrogram.bins
            self.dec.to_phase.weight.mul_(0.1)
            self.dec.to_phase.bias[:bins], self.dec.to_phase.bias[bins:] = 1.0, 0.0
        nn.init.zeros_(self.enc_q.proj.weight)
        bias = _bias_of(self.enc_q.proj)
        bias[: self.config.inter_channels] = 0
        bias[self.config.inter_channels :] = log_std
        return float(kept.sum() / values.sum())

    def _fit_harmonics(self, spec: Tensor) -> Tensor:
        """Set how deep the harmonics are at every bin, by least squares in log magnitude; returns them, (frames, F)."""
        assert isinstance(self.dec, IstftDecoder)
        posterior, decoder = self.enc_q.harmonics, self.dec.harmonics
        assert posterior is not None and decoder is not None and self.enc_q.tracker is not None
        pitch = pitch_latent(self.enc_q.tracker.track(spec.float().T[None]))
        f0, voicing = posterior.split(pitch)
        ideal = (posterior.shape(f0) * voicing)[0].T.double()  # (1, F, T) -> (T, F)
        seen = spec.double().clamp(min=QUIET).log()
        depth = (ideal * seen).sum(0) / ideal.square().sum(0).clamp(min=1e-6)
        smooth = nn.functional.avg_pool1d(depth[None, None], 17, 1, 8, count_include_pad=False)[0, 0].clamp(0, 1.2)
        for harmonics in (posterior, decoder):
            harmonics.depth.copy_(smooth)
        return ideal * smooth


def _random(
    draw: Callable[..., Tensor], shape: torch.Size, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Random numbers drawn where the generator lives: one on the CPU gives the same speech on every device."""
    if generator is None:
        return draw(shape, device=device)
    return draw(shape, generator=generator, device=generator.device).to(device)


def _is_plain_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv1d) and module.groups == 1 and module.dilation == (1,)


def _bias_of(conv: nn.Conv1d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def _blend(latent: Tensor, overlap: Tensor, blend: Literal["convex", "upstream"]) -> Tensor:
    """Cross-fade from `overlap` (1, C, n) into the first n frames of `latent` (1, C, T), by quarter sines."""
    n = overlap.shape[-1]
    angle = torch.arange(2 * n, device=latent.device, dtype=torch.float32) * (torch.pi / (2 * n))
    weights = angle.sin() if blend == "upstream" else angle.sin().square()
    mixed = latent[..., :n] * weights[:n] + overlap * weights[n:]
    return torch.cat([mixed, latent[..., n:]], dim=-1)
