"""The discriminator's part in fine-tuning the v2 family: it judges decoded slices and learns
(docs/networks/synthesizer.md).

It is trained whole beside the adapters and thrown away afterwards. Both learn from the same pass, so that a batch may
be worked through in micro-batches of any size; upstream lets the discriminator take its step first.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from models.learners.discriminator import Discriminator
from models.learners.losses import discriminator_loss, feature_loss, generator_loss

LEARNING_RATE, BETAS, EPSILON = 1e-4, (0.8, 0.99), 1e-9  # upstream's, of both sides


class Critic:
    """A discriminator with its optimizer."""

    def __init__(self, network: Discriminator) -> None:
        self.network = network.train().requires_grad_(True)
        self.optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, BETAS, EPSILON)

    def begin_step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def loss(self, real: Tensor, generated: Tensor, share: float) -> Tensor:
        """Adversarial and feature loss of `generated` (B, 1, N); with it the critic learns to tell it from `real`.

        share: of the micro-batch in the batch, by which the critic's own gradient counts.
        """
        (real_logits, real_maps), (logits, _) = self.network.compare(real, generated.detach())
        (discriminator_loss(real_logits, logits) * share).backward()
        self.network.requires_grad_(False)  # what follows is the generator's gradient alone
        logits, maps = self.network(generated)
        self.network.requires_grad_(True)
        return generator_loss(logits) + feature_loss(real_maps, maps)

    def end_step(self) -> None:
        """One step of the optimizer, unless its gradient is broken: a bad batch must not spoil the weights."""
        gradients = [one.grad for one in self.network.parameters() if one.grad is not None]
        if gradients and all(bool(torch.isfinite(one).all()) for one in gradients):
            self.optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Weights and optimizer by name, for a checkpoint."""
        tensors = {f"weight/{name}": value.detach() for name, value in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{name}/{key}"] = value.detach()
        return tensors

    def set_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `state`."""
        weights = {name.removeprefix("weight/"): v for name, v in tensors.items() if name.startswith("weight/")}
        self.network.load_state_dict(weights)
        for name, parameter in self.network.named_parameters():
            start = f"optimizer/{name}/"
            kept = {key.removeprefix(start): v.clone() for key, v in tensors.items() if key.startswith(start)}
            if kept:
                self.optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(parameter.device) for key, value in kept.items()
                }
