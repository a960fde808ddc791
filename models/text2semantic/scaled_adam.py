"""ScaledAdam, the optimizer GPT-SoVITS trains its text-to-semantic network with (docs/networks/text-to-semantic.md;
from icefall).

Adam whose step is proportional to the size (root mean square, rms) of each tensor, plus a slower step that learns
that size: the gradient with respect to a tensor's scale is sum(p * grad).
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class AdamNumbers:
    """One-element tensors take a plain Adam step of `lr * scalar_lr_scale` and stay within +-`scalar_max`.

    The gradient norm is compared with `clipping_scale` times its median over the last `clipping_update_period` steps.
    """

    lr: float = 0.002
    betas: tuple[float, float] = (0.9, 0.95)
    clipping_scale: float = 2.0
    clipping_update_period: int = 1000
    scalar_lr_scale: float = 0.1
    eps: float = 1e-8
    param_min_rms: float = 1e-5
    param_max_rms: float = 3.0
    scalar_max: float = 10.0
    size_update_period: int = 4


class ScaledAdam(torch.optim.Optimizer):
    """As in the original, a clipped gradient changes only the scale steps; the main step uses the raw gradient."""

    def __init__(
        self, params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], numbers: AdamNumbers | None = None
    ) -> None:
        super().__init__(params, asdict(numbers or AdamNumbers()))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p] = _fresh_state(p, group)
            clip = self._clip_factor(group, params)
            for p in params:
                _update(p, group, self.state[p], clip)
        return loss

    def _clip_factor(self, group: dict[str, Any], params: list[nn.Parameter]) -> Tensor:
        """The factor (0-d) for the scale statistics; 1 during the first period."""
        first = self.state[params[0]]  # the ring of norms lives with the first tensor, so that it is saved and loaded
        step, period = first["step"], group["clipping_update_period"]
        one = torch.ones((), device=params[0].device)
        if step == 0 or not group["clipping_scale"]:
            return one
        norm = torch.stack([_scaled_square(p, self.state[p]) for p in params]).sum().sqrt()
        if "norms" not in first:
            first["norms"] = torch.zeros(period, device=norm.device)
        first["norms"][step % period] = norm
        if step % period == 0:
            median = first["norms"].sort().values[min(period - 1, period // 4 * 2)]
            first["norm_threshold"] = group["clipping_scale"] * median
        if step < period:
            return one
        return (first["norm_threshold"] / (norm + 1e-20)).clamp(max=1.0)


def _fresh_state(p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
    state = {"step": 0, "delta": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
    if p.numel() > 1:
        state["rms"] = _rms(p)
        state["scale_grads"] = torch.zeros(group["size_update_period"], device=p.device)
        state["scale_exp_avg_sq"] = torch.zeros((), device=p.device)
    return state


def _scaled_square(p: nn.Parameter, state: dict[str, Any]) -> Tensor:
    assert p.grad is not None
    grad = p.grad * state["rms"] if p.numel() > 1 else p.grad
    return (grad**2).sum()


def _rms(p: Tensor) -> Tensor:
    return (p**2).mean().sqrt()


def _update(p: nn.Parameter, group: dict[str, Any], state: dict[str, Any], clip: Tensor) -> None:
    assert p.grad is not None
    beta1, beta2 = group["betas"]
    step, delta = state["step"], state["delta"]
    delta.mul_(beta1)
    state["exp_avg_sq"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
    correction = 1 - beta2 ** (step + 1)
    if p.numel() > 1:
        period = group["size_update_period"]
        state["scale_grads"][step % period] = (p * p.grad).sum() * clip
        if step % period == period - 1:
            state["rms"].copy_(_rms(p))
            delta.add_(p * _scale_step(group, state), alpha=1 - beta1)
        second_moment = state["exp_avg_sq"] / correction if correction < 0.99 else state["exp_avg_sq"]
        size = state["rms"].clamp(min=group["param_min_rms"])
        delta.sub_(p.grad / (second_moment.sqrt() + group["eps"]) * size * (group["lr"] * (1 - beta1)))
        p.add_(delta)
    else:
        denominator = (state["exp_avg_sq"] / correction).sqrt() + group["eps"]
        delta.sub_(p.grad / denominator, alpha=group["lr"] * group["scalar_lr_scale"] * (1 - beta1))
        p.clamp_(-group["scalar_max"], group["scalar_max"]).add_(delta)
    state["step"] = step + 1


def _scale_step(group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    """Relative change of the tensor's size (0-d), from the scale gradients of the last period."""
    period = group["size_update_period"]
    beta2 = group["betas"][1] ** period
    lr = group["lr"] * group["scalar_lr_scale"]
    grads, moment, rms = state["scale_grads"], state["scale_exp_avg_sq"], state["rms"]
    moment.mul_(beta2).add_((grads**2).mean(), alpha=1 - beta2)
    correction = 1 - beta2 ** ((state["step"] + 1) // period)
    change = -lr * correction**0.5 * grads.sum() / (moment.sqrt() + group["eps"])
    change = torch.where(rms < group["param_min_rms"], 0.0, change)
    return torch.where(rms > group["param_max_rms"], -lr * period, change)
