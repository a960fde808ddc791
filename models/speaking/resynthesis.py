"""Recordings through a synthesizer again, for either kind of it: copied, and spoken from their own tokens.

A clip is what extraction left of it, tensors by name. Letters: N samples, T25 tokens.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from models.sound.spectrogram import unscale_mel
from models.synthesizer.cfm_synthesizer import CfmSynthesizer
from models.synthesizer.vits import Synthesizer

Clip = Mapping[str, Tensor]


class Resynthesizer(Protocol):
    """A synthesizer with its adapter in place but not merged, so that `models.adapters.lora.adapters_off` can switch it
    off."""

    @property
    def network(self) -> nn.Module: ...

    def copy(self, clip: Clip) -> Tensor:
        """The recording encoded and decoded, (N,)."""
        ...

    def speak(self, tokens: Tensor, clip: Clip, reference: Clip, seed: int) -> Tensor:
        """Tokens (T25,) and the clip's phones in the voice of another clip, (N,)."""
        ...


class VitsResynthesizer:
    """The v2 family: a copy goes through posterior and decoder."""

    def __init__(self, network: Synthesizer, device: torch.device) -> None:
        self.network, self.device = network, device

    @torch.inference_mode()
    def copy(self, clip: Clip) -> Tensor:
        return self.network.copy_synthesis(self._rows(clip, "spectrogram"), self._condition(clip))[0, 0]

    @torch.inference_mode()
    def speak(self, tokens: Tensor, clip: Clip, reference: Clip, seed: int) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(seed)
        codes, phones = tokens.long().to(self.device)[None, None], self._rows(clip, "phones").long()
        return self.network.decode(codes, phones, self._condition(reference), generator=generator)[0, 0]

    def _condition(self, clip: Clip) -> Tensor:
        speaker = self._rows(clip, "speaker") if "speaker" in clip else None
        return self.network.condition(self._rows(clip, "spectrogram"), speaker=speaker)

    def _rows(self, clip: Clip, name: str) -> Tensor:
        return clip[name].to(self.device)[None]


class CfmResynthesizer:
    """v3 and v4: there is no posterior, so a copy is the recording's own mel through the vocoder."""

    def __init__(self, network: CfmSynthesizer, vocoder: nn.Module, device: torch.device) -> None:
        self.network, self.vocoder, self.device = network, vocoder, device

    @torch.inference_mode()
    def copy(self, clip: Clip) -> Tensor:
        return self.vocoder(unscale_mel(self._rows(clip, "mel")))[0, 0]

    @torch.inference_mode()
    def speak(self, tokens: Tensor, clip: Clip, reference: Clip, seed: int) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(seed)
        ge = self.network.condition(self._rows(reference, "spectrogram"))
        known = self._features(reference["tokens"], reference, ge)
        features = self._features(tokens, clip, ge)
        mel = self.network.continue_mel(self._rows(reference, "mel"), known, features, generator=generator)
        return self.vocoder(unscale_mel(mel))[0, 0]

    def _features(self, tokens: Tensor, clip: Clip, ge: Tensor) -> Tensor:
        codes = tokens.long().to(self.device)[None, None]
        return self.network.features(codes, self._rows(clip, "phones").long(), ge)

    def _rows(self, clip: Clip, name: str) -> Tensor:
        return clip[name].to(self.device)[None]
