"""Weight norm with the parameter names of GPT-SoVITS files: weight = weight_g * weight_v / ||weight_v||, dim 0.

`torch.nn.utils.weight_norm` keeps its result in a hook: LoRA merges into a copy that the next forward overwrites,
and a module cannot be deep-copied. Here the product is formed inside `forward`, there is no `weight` to be merged
into by mistake, and `fold_weight_norm` puts plain convolutions in place before adapters or inference.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _split_weight(module: nn.Module) -> None:
    """Replace the parameter `weight` by `weight_g` (its norms, over all dims but the first) and `weight_v`."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    del module.weight
    module.register_parameter("weight_g", nn.Parameter(_norm(weight.detach())))
    module.register_parameter("weight_v", nn.Parameter(weight.detach().clone()))


def _norm(weight: Tensor) -> Tensor:
    return torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.dim())), keepdim=True)


def normalised(weight_g: Tensor, weight_v: Tensor) -> Tensor:
    """The weight that the pair stands for."""
    return weight_v * (weight_g / _norm(weight_v))


class NormedConv1d(nn.Conv1d):
    """Conv1d with weight norm; arguments as Conv1d."""

    weight_g: Tensor
    weight_v: Tensor

    def __init__(self, *args: int, **options: int) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        _split_weight(self)

    def forward(self, x: Tensor) -> Tensor:
        weight = normalised(self.weight_g, self.weight_v)
        return F.conv1d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class NormedConv2d(nn.Conv2d):
    """Conv2d with weight norm; arguments as Conv2d."""

    weight_g: Tensor
    weight_v: Tensor

    def __init__(self, *args: int, **options: tuple[int, int]) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        _split_weight(self)

    def forward(self, x: Tensor) -> Tensor:
        weight = normalised(self.weight_g, self.weight_v)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class NormedConvTranspose1d(nn.ConvTranspose1d):
    """ConvTranspose1d with weight norm over its first dim, the input channels; arguments as ConvTranspose1d."""

    weight_g: Tensor
    weight_v: Tensor

    def __init__(self, *args: int, **options: int) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        _split_weight(self)

    @property
    def _sides(self) -> tuple[int, ...]:
        assert not isinstance(self.padding, str)  # transposed convolutions take numbers only
        return self.padding

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        weight = normalised(self.weight_g, self.weight_v)
        return F.conv_transpose1d(
            x, weight, self.bias, self.stride, self._sides, self.output_padding, self.groups, self.dilation
        )


NORMED = (NormedConv1d, NormedConv2d, NormedConvTranspose1d)


def _plain(module: nn.Module) -> nn.Module:
    """A plain convolution that computes the same as a normed one."""
    kinds = {NormedConv1d: nn.Conv1d, NormedConv2d: nn.Conv2d, NormedConvTranspose1d: nn.ConvTranspose1d}
    assert isinstance(module, NORMED)
    options = {} if not isinstance(module, NormedConvTranspose1d) else {"output_padding": module.output_padding}
    plain: Any = kinds[type(module)](
        module.in_channels,
        module.out_channels,
        module.kernel_size,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        groups=module.groups,
        bias=module.bias is not None,
        device="meta",
        **options,
    )
    trains = module.weight_v.requires_grad
    plain.weight = nn.Parameter(normalised(module.weight_g, module.weight_v).detach(), requires_grad=trains)
    plain.bias = module.bias
    plain.train(module.training)
    assert isinstance(plain, nn.Module)
    return plain


def fold_weight_norm(network: nn.Module) -> int:
    """Replace every weight-normed convolution inside `network` by a plain one; returns how many there were.

    For inference, and always before adapters are put in. The state dict then has `weight` in place of the pair.
    """
    found = [(parent, name, child) for parent in network.modules() for name, child in parent.named_children()]
    normed = [(parent, name, child) for parent, name, child in found if isinstance(child, NORMED)]
    for parent, name, child in normed:
        setattr(parent, name, _plain(child))
    return len(normed)


def unfold_state_dict(state: dict[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """State dict of a folded network under the `names` of an unfolded one: `weight` becomes weight_g, weight_v.

    For writing GPT-SoVITS files. Names that are already there are left as they are.
    """
    unfolded = dict(state)
    for name in names:
        stem = name.removesuffix("weight_g")
        if stem == name or name in unfolded:
            continue
        weight = unfolded.pop(stem + "weight")
        unfolded[name] = _norm(weight.float()).to(weight.dtype)
        unfolded[stem + "weight_v"] = weight
    return unfolded
