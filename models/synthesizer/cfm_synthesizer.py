"""The v3 and v4 synthesizer: semantic tokens and phones -> features -> mel by flow matching
(docs/networks/flow-matching.md).

Letters: B batch, S phones, T25 tokens, T50 spectrogram frames, L mel frames, C bridge channels, M mel channels, G width
of the global condition. Mels are scaled to [-1, 1] (`models.sound.spectrogram.scale_mel`); a vocoder turns them into
sound.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks.transformer import TextEncoder, change_speed
from models.blocks.wavenet import WaveNetEncoder
from models.configs.cfm import CfmSynthesizerConfig
from models.sound.masks import fit_frames, length_mask
from models.synthesizer.cfm import FlowDraws, FlowMatching, FlowPath
from models.synthesizer.tokens import TokensAndSpeaker, TrainingBatch


class CfmSynthesizer(TokensAndSpeaker):
    """Text encoder, reference encoder and quantizer as in v2; then a bridge, a WaveNet and the flow.

    The text encoder, the content projection and the codebook are frozen, and the WaveNet sees a detached global
    condition, so training reaches `bridge`, `wns1` and `cfm` only, as upstream's does.
    """

    def __init__(self, config: CfmSynthesizerConfig) -> None:
        super().__init__(config.encoder)
        self.config = config
        encoder, channels = config.encoder, config.bridge_channels
        self.enc_p = TextEncoder(encoder)
        self._add_parts()
        self.bridge = nn.Sequential(nn.Conv1d(encoder.hidden_channels, channels, 1), nn.LeakyReLU())
        self.wns1 = WaveNetEncoder(
            channels, channels, channels, config.condition_layers, encoder.gin_channels, config.condition_kernel
        )
        self.linear_mel = nn.Conv1d(channels, config.mel.n_mels, 1)  # in the published files; nothing uses it
        self.cfm = FlowMatching(config.dit, config.flow)
        self._freeze()

    def _freeze(self) -> None:
        for part in (self.enc_p, self.ssl_proj):
            part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> CfmSynthesizer:
        """Training mode for all but the frozen parts, which never drop anything."""
        super().train(mode)
        for part in (self.enc_p, self.ssl_proj, self.quantizer):
            part.eval()
        return self

    def adaptable_modules(self) -> list[str]:
        """Names of the linear layers that LoRA adapts: upstream's own, so that its files can hold the adapter."""
        return [
            f"cfm.estimator.transformer_blocks.{index}.attn.{target}"
            for index in range(self.config.dit.depth)
            for target in ("to_q", "to_k", "to_v", "to_out.0")
        ]

    # -- training -------------------------------------------------------------------------------------------------

    def forward(
        self,
        batch: TrainingBatch,
        mel: Tensor,
        mel_lengths: Tensor,
        *,
        prompt_draw: Tensor | None = None,
        flow_draws: FlowDraws | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The flow-matching loss of a batch.

        Args:
            mel: (B, M, L) of the same speech, scaled.
            prompt_draw: (B,) in [0, 1), where the part that is given away ends. flow_draws: see `FlowMatching.draw`.
                Both are drawn from `generator` when absent.
        """
        if prompt_draw is None:
            prompt_draw = torch.rand(mel.shape[0], generator=generator, device=mel.device)
        prompt_lengths = (prompt_draw * mel_lengths * self.config.prompt_fraction).floor().long()
        features = self.training_features(batch, mel_lengths)
        frames = min(features.shape[-1], mel.shape[-1])
        features, mel = features[..., :frames], mel[..., :frames]
        draws = flow_draws or self.cfm.draw(mel, generator)
        return self.cfm.loss(mel, mel_lengths, prompt_lengths, features.transpose(1, 2), draws)

    def training_features(self, batch: TrainingBatch, lengths: Tensor) -> Tensor:
        """The condition of a batch, (B, C, L), masked beyond `lengths` mel frames."""
        spec_lengths = batch.spec_lengths
        with torch.no_grad():
            ge = self.condition(batch.spec, spec_lengths)
            frames = fit_frames(self.token_frames(batch.codes), batch.spec.shape[-1])
            mask = length_mask(spec_lengths, frames.shape[-1])
            encoded = self.enc_p.encode(frames, mask, batch.text, batch.text_lengths, ge)
        return self._features(encoded, lengths, ge)

    # -- synthesis ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def features(self, codes: Tensor, text: Tensor, ge: Tensor, speed: float = 1.0) -> Tensor:
        """The condition of one sentence: codes (1, 1, T25), text (1, S), ge (1, G, 1) -> (1, C, L)."""
        config, tokens = self.config, codes.shape[-1]
        frames = self.token_frames(codes)
        mask = frames.new_ones(1, 1, frames.shape[-1])
        text_lengths = torch.tensor([text.shape[-1]], device=text.device)
        encoded, _ = change_speed(self.enc_p.encode(frames, mask, text, text_lengths, ge), mask, speed)
        shown = tokens * config.mask_frames_per_token
        length = int(shown) if speed == 1 else int(shown / speed) + 1
        return self._features(encoded, torch.tensor([length], device=codes.device), ge)

    def _features(self, encoded: Tensor, lengths: Tensor, ge: Tensor) -> Tensor:
        """Encoder frames at 50 Hz -> condition at the mel's rate: (B, hidden, T50) -> (B, C, L)."""
        x = F.interpolate(self.bridge(encoded), scale_factor=self.config.frames_ratio, mode="nearest")
        return self.wns1(x, length_mask(lengths, x.shape[-1]), ge.detach())

    @torch.no_grad()
    def continue_mel(
        self,
        prompt: Tensor,
        prompt_features: Tensor,
        features: Tensor,
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The mel of `features`, spoken on from a reference, in as many passes as its length asks for.

        Args:
            prompt: (1, M, P) scaled mel of the reference. prompt_features: (1, C, P') its condition.
            features: (1, C, L).

        Returns:
            (1, M, L), scaled. Each pass continues from the end of the one before it.
        """
        config = self.config
        shared = min(prompt.shape[-1], prompt_features.shape[-1])
        kept = min(shared, config.prompt_frames)
        prompt = prompt[..., shared - kept : shared]
        prompt_features = prompt_features[..., shared - kept : shared]
        parts = []
        for chunk in features.split(config.chunk_frames - kept, dim=-1):
            condition = torch.cat([prompt_features, chunk], dim=-1).transpose(1, 2)  # (1, P + l, C)
            lengths = torch.tensor([condition.shape[1]], device=condition.device)
            path = FlowPath(steps or config.sampling_steps)
            mel = self.cfm.sample(condition, lengths, prompt, path, generator)[..., prompt.shape[-1] :]
            parts.append(mel)
            prompt, prompt_features = mel[..., -kept:], chunk[..., -kept:]
        return torch.cat(parts, dim=-1)
