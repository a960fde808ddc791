"""A clip as the networks take it: tensors with names and shapes, with one way into a file and one way out of it.

Letters: T25 tokens, S phones, G width of a speaker vector, B width of BERT features, N samples, F frequency bins,
T frames of the base's grid, M mel bands, L mel frames. All tensors lie on the CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from models.errors import WeightsError


@dataclass(frozen=True, eq=False, kw_only=True)
class Extracted:
    """What extraction finds out about a clip, and all that is stored of it."""

    tokens: Tensor  # (T25,)
    phones: Tensor  # (S,) ids
    speaker: Tensor | None = None  # (G,) where the base takes a speaker vector
    bert: Tensor | None = None  # (B, S) where the base has BERT features and the text has Chinese in it


@dataclass(frozen=True, eq=False, kw_only=True)
class ClipTensors(Extracted):
    """The whole clip: with what its recording says itself, see `models.loading.recordings`."""

    wave: Tensor  # (N,) at the base's rate
    spectrogram: Tensor  # (F, T); (20, L) features of FARGAN where it speaks
    mel: Tensor | None = None  # (M, L) where a flow makes mels


_NAMES = tuple(field.name for field in fields(Extracted))


def pack_clips(clips: Sequence[Extracted], notes: dict[str, str] | None = None) -> bytes:
    """Clips as a safetensors file, `<index>.<name>`, with notes in its header. Same clips, same bytes."""
    named = {(index, name): getattr(clip, name) for index, clip in enumerate(clips) for name in _NAMES}
    return save({f"{at}.{name}": value for (at, name), value in named.items() if value is not None}, notes)


def unpack_clips(path: Path) -> tuple[list[Extracted], dict[str, str]]:
    """The clips of a file that `pack_clips` made, and its notes. Raises `WeightsError` for any other file."""
    rows: dict[int, dict[str, Tensor]] = {}
    try:
        with safe_open(path, "pt") as file:
            notes = file.metadata() or {}
            for key in file.keys():  # noqa: SIM118 - not a dictionary
                index, _, name = key.partition(".")
                rows.setdefault(int(index), {})[name] = file.get_tensor(key)
        return [Extracted(**rows[index]) for index in range(len(rows))], notes
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path}: holds no clips: {error}") from None
