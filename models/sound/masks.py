"""Masks and cuts along time; none of them makes the host wait for the device."""

import torch
from torch import Tensor


def length_mask(lengths: Tensor, frames: int) -> Tensor:
    """1 where a frame belongs to its row, 0 on padding: (B,) -> (B, 1, frames), float32."""
    places = torch.arange(frames, device=lengths.device)
    return (places[None, None, :] < lengths[:, None, None]).to(torch.float32)


def take_slices(x: Tensor, starts: Tensor, length: int) -> Tensor:
    """Cut `length` columns per row from `starts`: (B, C, T), (B,) -> (B, C, length)."""
    if x.shape[-1] < length:
        raise ValueError(f"cannot cut {length} frames out of {x.shape[-1]}")
    places = starts[:, None, None] + torch.arange(length, device=x.device)  # (B, 1, length)
    return x.gather(2, places.expand(-1, x.shape[1], -1))


def slice_starts(lengths: Tensor, length: int, uniform: Tensor) -> Tensor:
    """floor(u * (len - length + 1)) per row, 0 for rows shorter than the slice; u in [0, 1), all of shape (B,)."""
    return (uniform * (lengths - length + 1).clamp(min=1)).long()


def fit_frames(x: Tensor, frames: int) -> Tensor:
    """Cut, or repeat the last column of, (B, C, T) so that T becomes `frames`."""
    if x.shape[-1] >= frames:
        return x[..., :frames]
    return torch.cat([x, x[..., -1:].expand(-1, -1, frames - x.shape[-1])], dim=-1)
