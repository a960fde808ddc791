"""The synthesizer of a base that speaks through FARGAN: semantic tokens, phones and reference speech -> features.

Letters: B batch, D width of content features, Y tokens at 25 Hz, T frames at 50 Hz, X symbols of a text, L frames of
FARGAN at 100 Hz.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.configs.acoustic import FarganSynthesizerConfig
from models.sound.fargan import FEATURES
from models.synthesizer.acoustic import PERIODICITY, PITCH, VOICED, AcousticModel, Saying, is_active
from models.synthesizer.tokens import SemanticTokens
from models.text2semantic.guidance import TextReader
from models.text2semantic.laying import lay_evenly, lay_text

MOST_SPREADING = 2.5


@dataclass(frozen=True)
class Spoken:
    """One utterance: its frames as the acoustic model reads them, (T,), (T,) and (T, 2)."""

    tokens: Tensor
    phones: Tensor
    places: Tensor

    def batch(self) -> Saying:
        """The utterance as a batch of one."""
        return Saying(self.tokens[None], self.phones[None], self.places[None])


class FarganSynthesizer(SemanticTokens):
    """Tokens from content features; phones laid along tokens; both, and who speaks, to the features of FARGAN."""

    spreading: Tensor
    is_pitch: Tensor

    def __init__(self, config: FarganSynthesizerConfig) -> None:
        super().__init__()
        self.config = config
        self._add_quantizer(config.ssl_dim, config.acoustic.n_tokens, config.frames_per_token)
        self.reader = TextReader(config.reader, config.acoustic.n_symbols, config.acoustic.n_tokens)
        self.acoustic = AcousticModel(config.acoustic)
        self.register_buffer("spreading", torch.ones(FEATURES))  # speech varies more than what is predicted of it
        self.register_buffer("is_pitch", torch.arange(FEATURES) == PITCH, persistent=False)

    def adaptable_modules(self) -> list[str]:
        """Names of the modules that fine-tuning adapts: the predictor's; the prosody head stays as it is."""
        return [
            f"acoustic.{name}"
            for name, module in self.acoustic.named_modules()
            if name.startswith("stack.blocks.") and isinstance(module, torch.nn.Linear)
        ]

    def lay(self, tokens: Tensor, phones: Tensor, speed: float = 1.0) -> Spoken:
        """Tokens (Y,) and the text (X,) that they say, as frames; `speed` times as many phones a second."""
        laid = lay_text(tokens, phones, self.reader, self.frames_per_token)
        if laid is None:  # they say something else, and whoever drew them has said so
            laid = lay_evenly(phones, len(tokens) * self.frames_per_token)
        frames = tokens.repeat_interleave(self.frames_per_token)
        if speed != 1.0:
            places = (torch.arange(round(len(frames) / speed)) * speed).long().clamp(max=len(frames) - 1)
            slower = torch.tensor([0.0, -torch.tensor(speed).log()])
            return Spoken(frames[places], laid.symbols[places], laid.places[places] + slower)
        return Spoken(frames, laid.symbols, laid.places)

    @torch.no_grad()
    def speak(self, spoken: Spoken, reference: Tensor) -> Tensor:
        """Features (L, 20) in the voice of reference statistics (40,)."""
        said, who = spoken.batch(), reference[None]
        melody = self.acoustic.predict_prosody(said, who)
        melody = torch.cat([melody[..., :1] * self.spreading[PITCH], melody[..., 1:]], 2)
        features, mean = self.acoustic(said, who, melody)[0], reference[:FEATURES]
        return mean + (features - mean) * torch.where(self.is_pitch, 1.0, self.spreading)

    @torch.no_grad()
    def set_spreading(self, recorded: Sequence[tuple[Spoken, Tensor, Tensor]]) -> None:
        """Measure how much less predictions vary than recordings do.

        `recorded`: what is said, reference statistics (40,) and features (L, 20) of the recording.
        """
        self.spreading.fill_(1.0)
        heard, made = list[Tensor](), list[Tensor]()
        for spoken, reference, features in recorded:
            counted = is_active(features)[:, None].repeat(1, FEATURES)
            counted[:, PITCH] &= features[:, PERIODICITY] > VOICED
            for rows, into in ((features, heard), (self.speak(spoken, reference), made)):
                into.append(_variance(rows, counted))
        gains = (torch.stack(heard).mean(0) / torch.stack(made).mean(0).clamp(min=1e-4)).sqrt()
        gains[0] = gains[PERIODICITY] = 1.0  # the level comes with the prosody, and periodicity ends at a whole
        self.spreading.copy_(gains.clamp(1.0, MOST_SPREADING))


def _variance(rows: Tensor, counted: Tensor) -> Tensor:
    """Of every column of (L, C), over the rows that are counted in it: (C,)."""
    counts = counted.sum(0).clamp(min=1)
    mean = (rows * counted).sum(0) / counts
    return ((rows - mean).square() * counted).sum(0) / counts
