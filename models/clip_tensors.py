"""A clip as the networks take it: tensors with names and shapes, with one way into a file and one way out of it.

Letters: T25 tokens, S phones, G width of a speaker vector, B width of BERT features, N samples, F frequency bins,
T frames of the base's grid, M mel bands, L frames of 10 ms. All tensors lie on the CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from models.errors import WeightsError


def _not_yet() -> Tensor:
    return torch.empty(0)


@dataclass(frozen=True, eq=False, kw_only=True)
class ClipTensors:
    """What extraction finds out about a clip, and what its recording says itself.

    Only the former is stored. The latter is computed again, bit for bit, wherever it is needed
    (`models.loading.recordings`), and empty until then.
    """

    tokens: Tensor  # (T25,)
    phones: Tensor  # (S,) ids
    speaker: Tensor | None = None  # (G,) where the base takes a speaker vector
    bert: Tensor | None = None  # (B, S) where the base has BERT features and the text has Chinese in it
    wave: Tensor = field(default_factory=_not_yet)  # (N,) at the base's rate
    acoustic_features: Tensor = field(default_factory=_not_yet)  # (F, T) spectrogram; (20, L) where FARGAN speaks
    mel: Tensor | None = None  # (M, L) where a flow makes mels


_STORED = ("tokens", "phones", "speaker", "bert")


def pack_clips(clips: Sequence[ClipTensors], notes: dict[str, str] | None = None) -> bytes:
    """Clips as a safetensors file, `<index>.<name>`, with notes in its header. Same clips, same bytes."""
    named = {(index, name): getattr(clip, name) for index, clip in enumerate(clips) for name in _STORED}
    return save({f"{at}.{name}": value for (at, name), value in named.items() if value is not None}, notes)


def unpack_clips(path: Path) -> tuple[list[ClipTensors], dict[str, str]]:
    """The clips of a file that `pack_clips` made, and its notes. Raises `WeightsError` for any other file."""
    rows: dict[int, dict[str, Tensor]] = {}
    try:
        with safe_open(path, "pt") as file:
            notes = file.metadata() or {}
            for key in file.keys():  # noqa: SIM118 - not a dictionary
                index, _, name = key.partition(".")
                if name not in _STORED:
                    raise ValueError(key)
                rows.setdefault(int(index), {})[name] = file.get_tensor(key)
        return [ClipTensors(**rows[index]) for index in range(len(rows))], notes
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path}: holds no clips: {error}") from None
