"""Clips go into one kind of file and come out of it as they were; any other file is refused with its name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.clip_tensors import ClipTensors, pack_clips, unpack_clips
from models.errors import WeightsError


def a_clip(length: int, **changes: torch.Tensor) -> ClipTensors:
    tokens, phones = torch.arange(length, dtype=torch.int32), torch.arange(2 * length, dtype=torch.int32)
    return ClipTensors(tokens=tokens, phones=phones, **changes)


def test_clips_come_back_in_their_order_with_what_they_had_and_nothing_else(tmp_path: Path) -> None:
    clips = [a_clip(12 + index) for index in range(11)]  # 10 comes before 2 among the names
    clips[2] = a_clip(14, speaker=torch.rand(8), bert=torch.rand(4, 28))
    (tmp_path / "clips").write_bytes(pack_clips(clips, {"record": "told"}))
    back, notes = unpack_clips(tmp_path / "clips")
    assert notes["record"] == "told"
    assert [len(clip.tokens) for clip in back] == [12 + index for index in range(11)]
    assert torch.equal(back[2].speaker, clips[2].speaker) and torch.equal(back[2].bert, clips[2].bert)
    assert all((clip.speaker, clip.bert) == (None, None) for index, clip in enumerate(back) if index != 2)
    assert pack_clips(back, {"record": "told"}) == pack_clips(clips, {"record": "told"})


@pytest.mark.parametrize(
    "names", [("tokens",), ("0.tokens",), ("0.tokens", "0.phones", "0.wave"), ("1.tokens", "1.phones")]
)
def test_a_file_of_something_else_is_refused_with_its_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    save_file({name: torch.zeros(3) for name in names}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"other\.safetensors: holds no clips"):
        unpack_clips(tmp_path / "other.safetensors")


def test_a_file_cut_short_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(pack_clips([a_clip(12)])[:-5])
    with pytest.raises(WeightsError, match="short: holds no clips"):
        unpack_clips(tmp_path / "short")
