"""What is computed once per clip and used by several stages: semantic tokens."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.encoders.content import PhoneEncoder
from models.synthesizer.tokens import SemanticTokens
from models.text2semantic.guidance import TextGuide
from models.text2semantic.transcribed import follow_text
from pipeline.pretrain.prepare import Clip, Corpus
from pipeline.text.frontend import phonemize
from pipeline.text.languages import known_language
from pipeline.text.symbols import symbol_ids

FULL_STOPS = (".", "?", "!", "\u3002")


@torch.no_grad()
def clip_features(encoder: PhoneEncoder, corpus: Corpus, clip: Clip) -> Tensor:
    """Content features (1, D, T) of a clip."""
    features: Tensor = encoder(torch.from_numpy(corpus.wave(clip))[None])
    return features


def clip_tokens(
    encoder: PhoneEncoder, synthesizer: SemanticTokens, corpus: Corpus, path: Path, guide: TextGuide | None = None
) -> list[NDArray[np.int64]]:
    """Semantic tokens of every clip, cached in `path`; with a guide, those of a transcribed clip say its text."""
    if not path.exists():
        rows = []
        for clip in corpus.clips:
            content = clip_features(encoder, corpus, clip)
            if guide is not None and clip.text and not clip.guessed:
                content = _as_written(content[0], clip, guide, synthesizer.frames_per_token)[None]
            rows.append(synthesizer.extract_tokens(content)[0, 0].numpy())
        np.savez(path, tokens=np.concatenate(rows), lengths=np.array([len(row) for row in rows]))
    stored = np.load(path)
    return np.split(stored["tokens"], np.cumsum(stored["lengths"])[:-1])


def _as_written(content: Tensor, clip: Clip, guide: TextGuide, step: int) -> Tensor:
    """Content features (D, T) that say the clip's transcript, as extraction makes them."""
    return follow_text(content[:, : content.shape[1] // step * step], clip_symbols(clip), guide, step)


def clip_symbols(clip: Clip) -> Tensor:
    """The transcript of a clip as ids of symbols (X,)."""
    text = clip.text if clip.text.rstrip()[-1:] in FULL_STOPS else clip.text + "."
    return torch.tensor(symbol_ids(phonemize(text, known_language(clip.language)).symbols))
