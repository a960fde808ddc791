"""Choosing the next semantic token from logits (docs/networks/text-to-semantic.md): penalty, top-p, temperature, top-k,
in this order.

Letters: B rows, V vocabulary, N earlier tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.configs.text2semantic import SamplingConfig
from models.text2semantic.guidance import Followed

NOISE_BLOCK = 32  # steps of noise drawn at once; part of what a seed means, so never a setting


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make seen tokens (mask (B, V)) less likely in logits (B, V). The prompt counts as seen; see
    docs/networks/text-to-semantic.md."""
    if penalty == 1.0:
        return logits
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def token_probabilities(penalised: Tensor, top_k: int, top_p: float, temperature: float) -> Tensor:
    """Probabilities (B, V) from penalised logits (B, V).

    Top-p keeps a token while the cumulative probability including it stays within top_p, so the token that crosses
    the border is dropped; the best one always stays. A temperature of 0 behaves like 1e-5.
    """
    logits = penalised
    if top_p < 1.0:
        ordered, order = logits.sort(dim=-1, descending=True)
        dropped = ordered.softmax(dim=-1).cumsum(dim=-1) > top_p
        dropped[:, 0] = False
        logits = logits.masked_fill(torch.zeros_like(dropped).scatter(1, order, dropped), -torch.inf)
    logits = logits / max(temperature, 1e-5)
    if top_k:
        smallest_kept = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < smallest_kept, -torch.inf)
    return logits.softmax(dim=-1)


def draw(probabilities: Tensor, noise: Tensor) -> Tensor:
    """Draw one token per row (B,) by dividing by Exp(1) noise (B, V) and taking the largest."""
    return (probabilities / noise).argmax(dim=-1)


class RowNoise:
    """Exp(1) noise of every row from that row's own generator, so that a row does not depend on its batch."""

    def __init__(self, seeds: Sequence[int], vocab_size: int, device: torch.device) -> None:
        self.generators = [torch.Generator(device=device).manual_seed(seed) for seed in seeds]
        self.vocab_size = vocab_size
        self.device = device
        self.step = 0
        self.block = torch.empty(NOISE_BLOCK, len(seeds), 0)

    def next(self) -> Tensor:
        """The noise (B, V) of the next step."""
        offset = self.step % NOISE_BLOCK
        if offset == 0:
            rows = [
                torch.empty(NOISE_BLOCK, self.vocab_size, device=self.device).exponential_(generator=generator)
                for generator in self.generators
            ]
            self.block = torch.stack(rows, dim=1)  # (NOISE_BLOCK, B, V)
        self.step += 1
        return self.block[offset]

    def keep(self, rows: Tensor) -> None:
        """Go on with the rows of this index (B') only."""
        self.generators = [self.generators[row] for row in rows.tolist()]
        self.block = self.block[:, rows]


class Sampler:
    """The sampling state of a batch: what each row has seen, its noise and its step."""

    def __init__(
        self,
        config: SamplingConfig,
        prompt: Tensor,
        prompt_mask: Tensor,
        vocab_size: int,
        noise: RowNoise,
        followed: Followed | None = None,
    ) -> None:
        """prompt: (B, N) tokens that count as already said where prompt_mask (B, N) is true.

        followed: how far the rows are in their texts; what fits there is drawn more often, whatever the temperature.
        """
        self.config = config
        self.end_token = vocab_size - 1
        self.noise = noise
        self.followed = followed
        self.step = 0
        seen = torch.zeros(prompt.shape[0], vocab_size, dtype=torch.int32, device=prompt.device)
        self.seen = seen.scatter_add_(1, prompt, prompt_mask.int()).bool()

    def next(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B,) for logits (B, V), and whether each row ended (B,).

        A row ends when it draws the end token, or when that token has the largest penalised logit before any
        truncation; the end token cannot appear in the first `min_tokens` steps.
        """
        logits = logits.float()
        if self.followed:
            logits = logits + max(self.config.temperature, 1e-5) * self.followed.weights()
        if self.step < self.config.min_tokens:
            logits[:, self.end_token] = -torch.inf
        penalised = penalise(logits, self.seen, self.config.repetition_penalty)
        best = penalised.argmax(dim=-1)
        if self.config.top_k == 1:
            token = best
        else:
            config = self.config
            probabilities = token_probabilities(penalised, config.top_k, config.top_p, config.temperature)
            token = draw(probabilities, self.noise.next())
        self.seen.scatter_(1, token[:, None], True)
        if self.followed:
            self.followed.push(token)
        self.step += 1
        return token, (token == self.end_token) | (best == self.end_token)

    def keep(self, rows: Tensor) -> None:
        """Go on with the rows of this index (B') only."""
        self.seen = self.seen[rows]
        self.noise.keep(rows)
        if self.followed:
            self.followed.keep(rows)
