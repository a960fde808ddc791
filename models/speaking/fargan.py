"""Speech and copies through FARGAN. Letters: N samples, L frames of 10 ms, T25 tokens, B batch (1 here)."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from models.clip_tensors import ClipTensors
from models.sound.fargan import DELAY_SAMPLES, FRAME, SAMPLE_RATE_HZ, Stream
from models.sound.fargan_analysis import analyse
from models.sound.fargan_frames import load_frame_vocoder
from models.speaking.rendering import Delivery, PreparedReference
from models.synthesizer.acoustic import statistics
from models.synthesizer.fargan_synthesizer import FarganSynthesizer

FIRST_FRAMES, MOST_FRAMES = 10, 100  # of a piece of a stream: the first soon
BEHIND = -(-DELAY_SAMPLES // FRAME)  # frames by which the vocoder is heard late


def vocode(features: Tensor) -> Iterator[Tensor]:
    """Features (L, 20) to waves (N,) that follow each other, 160 L samples in all, in time with the features. On the
    CPU, wherever the features are."""
    vocoder = load_frame_vocoder()
    rows = torch.cat([features, features[-1:].expand(BEHIND, -1)]).cpu()
    stream: Stream | None = None
    first, size, late, left = 0, FIRST_FRAMES, DELAY_SAMPLES, FRAME * len(features)
    while first < len(rows):
        wave, stream = vocoder(rows[None, first : first + size], stream)
        heard = wave[0, late:][:left]
        late, left = max(late - wave.shape[1], 0), left - len(heard)
        first, size = first + size, min(2 * size, MOST_FRAMES)
        yield heard


class FarganRenderer:
    """Tokens to features by the acoustic model, features to sound by the vocoder."""

    takes_several = True
    streams_within = True
    streams_exactly = True
    sample_rate_hz = SAMPLE_RATE_HZ
    reference_rates_hz: tuple[int, ...] = (SAMPLE_RATE_HZ,)

    def __init__(self, synthesizer: FarganSynthesizer, device: torch.device) -> None:
        self.synthesizer, self.device = synthesizer.to(device).eval(), device

    def reference(
        self, waves: dict[int, Tensor], speaker: Tensor | None, tokens: Tensor, phones: Tensor | None
    ) -> PreparedReference:
        who = statistics(analyse(waves[SAMPLE_RATE_HZ]))
        return PreparedReference(tokens=tokens, ge=who[None, :, None].to(self.device))

    def render(self, tokens: Tensor, said: Delivery) -> Tensor:
        return torch.cat(list(vocode(self._features(tokens, said))))

    def render_stream(self, pieces: Iterable[list[int]], said: Delivery) -> Iterator[Tensor]:
        """Phones are laid along all tokens, so the first sound comes when the last token is known; from then on as
        the vocoder makes it."""
        tokens = torch.tensor([token for piece in pieces for token in piece])
        yield from vocode(self._features(tokens, said))

    def _features(self, tokens: Tensor, said: Delivery) -> Tensor:
        spoken = self.synthesizer.lay(tokens.to(self.device), said.phones.to(self.device), said.speed)
        return self.synthesizer.speak(spoken, said.reference.ge[0, :, 0])


class FarganResynthesizer:
    """A copy is what the vocoder makes of the recording's own features."""

    def __init__(self, network: FarganSynthesizer, device: torch.device) -> None:
        self.network, self.device = network, device

    @torch.inference_mode()
    def copy(self, clip: ClipTensors) -> Tensor:
        return torch.cat(list(vocode(clip.acoustic_features.T)))

    @torch.inference_mode()
    def speak(self, tokens: Tensor, clip: ClipTensors, reference: ClipTensors, seed: int) -> Tensor:
        """Nothing in it is drawn, so the seed changes nothing."""
        spoken = self.network.lay(tokens.long().to(self.device), clip.phones.long().to(self.device))
        who = statistics(reference.acoustic_features.T).to(self.device)
        return torch.cat(list(vocode(self.network.speak(spoken, who))))
