"""Recordings through a synthesizer again, for either kind of it: copied, and spoken from their own tokens.

Letters: N samples, T25 tokens.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from models.clip_tensors import ClipTensors
from models.sound.spectrogram import unscale_mel
from models.synthesizer.cfm_synthesizer import CfmSynthesizer
from models.synthesizer.vits import Noise, Synthesizer


class Resynthesizer(Protocol):
    """A synthesizer with its adapter in place but not merged, so that `models.adapters.lora.adapters_off` can switch it
    off."""

    @property
    def network(self) -> nn.Module: ...

    def copy(self, clip: ClipTensors) -> Tensor:
        """The recording encoded and decoded, drawn as speech is drawn, (N,)."""
        ...

    def speak(self, tokens: Tensor, clip: ClipTensors, reference: ClipTensors, seed: int) -> Tensor:
        """Tokens (T25,) and the clip's phones in the voice of another clip, (N,)."""
        ...


class VitsResynthesizer:
    """The v2 family: a copy goes through posterior and decoder."""

    def __init__(self, network: Synthesizer, device: torch.device) -> None:
        self.network, self.device = network, device

    @torch.inference_mode()
    def copy(self, clip: ClipTensors) -> Tensor:
        return self.network.copy_synthesis(self._rows(clip.acoustic_features), self._condition(clip))[0, 0]

    @torch.inference_mode()
    def speak(self, tokens: Tensor, clip: ClipTensors, reference: ClipTensors, seed: int) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(seed)
        codes, phones = tokens.long().to(self.device)[None, None], self._rows(clip.phones).long()
        return self.network.decode(codes, phones, self._condition(reference), Noise(generator))[0, 0]

    def _condition(self, clip: ClipTensors) -> Tensor:
        speaker = None if clip.speaker is None else self._rows(clip.speaker)
        return self.network.condition(self._rows(clip.acoustic_features), speaker=speaker)

    def _rows(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device)[None]


class CfmResynthesizer:
    """v3 and v4: there is no posterior, so a copy is the recording's own mel through the vocoder."""

    def __init__(self, network: CfmSynthesizer, vocoder: nn.Module, device: torch.device) -> None:
        self.network, self.vocoder, self.device = network, vocoder, device

    @torch.inference_mode()
    def copy(self, clip: ClipTensors) -> Tensor:
        return self.vocoder(unscale_mel(self._mel(clip)))[0, 0]

    @torch.inference_mode()
    def speak(self, tokens: Tensor, clip: ClipTensors, reference: ClipTensors, seed: int) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(seed)
        ge = self.network.condition(self._rows(reference.acoustic_features))
        known = self._features(reference.tokens, reference, ge)
        features = self._features(tokens, clip, ge)
        mel = self.network.continue_mel(self._mel(reference), known, features, generator=generator)
        return self.vocoder(unscale_mel(mel))[0, 0]

    def _features(self, tokens: Tensor, clip: ClipTensors, ge: Tensor) -> Tensor:
        codes = tokens.long().to(self.device)[None, None]
        return self.network.features(codes, self._rows(clip.phones).long(), ge)

    def _rows(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device)[None]

    def _mel(self, clip: ClipTensors) -> Tensor:
        assert clip.mel is not None, "the recordings of a base with a flow have mels"
        return self._rows(clip.mel)
