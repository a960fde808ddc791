"""Semantic tokens one after another: the text-to-semantic network for generation (docs/networks/text-to-semantic.md).

The keys and values of every layer stay in preallocated memory (`models/text2semantic/kv_cache.py`), query, key and
value are one product, the weights lie ready for products with few rows (`models/text2semantic/projections.py`), rows
that ended leave the batch, and on an accelerator the host looks only every few tokens whether a row ended.

Letters: B rows, T columns of the prefill, D width, H heads, V vocabulary.
A row is [padding | text | prompt | new tokens]: padded on the left, so that all rows grow at the same column.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from models.adapters.lora import effective_linear
from models.configs.text2semantic import SamplingConfig
from models.errors import ModelsError
from models.text2semantic.guidance import Followed
from models.text2semantic.kv_cache import Memory, build_memory
from models.text2semantic.network import Block, Text2Semantic
from models.text2semantic.projections import Projection, WeightKind, build_projection
from models.text2semantic.sampling import RowNoise, Sampler

STEPS_PER_LOOK = 8  # tokens between two looks of the host on an accelerator; on a CPU looking is free


@dataclass(frozen=True)
class Request:
    """One sentence: all phones (prompt text first), BERT features (bert_dim, X) of the same phones, prompt tokens."""

    phones: Tensor  # (X,) int64
    seed: int
    bert: Tensor | None = None
    prompt: Tensor | None = None  # (N,) int64, tokens of the reference clip


@dataclass(frozen=True)
class Generation:
    """New tokens without prompt and end token; `ended` is false when the limit came before the end token."""

    tokens: tuple[int, ...]
    ended: bool


@dataclass
class LayerWeights:
    """One layer, ready for products."""

    qkv: Projection
    out: Projection
    up: Projection
    down: Projection
    norm1: tuple[Tensor, Tensor]
    norm2: tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Read:
    """What the network makes of texts and prompts, padded on the left."""

    used: Tensor  # (B, T), false where padded
    layers: list[tuple[Tensor, Tensor]]  # keys and values (B, H, T, D/H) of every layer
    positions: Tensor  # (B,) audio position of the first new token
    logits: Tensor  # (B, V) of the first new token


@dataclass
class _Batch:
    """What grows while a batch is decoded."""

    rows: list[int]  # request index of every row that is still running
    memory: Memory
    positions: Tensor  # (B,) audio position of the next token
    found: list[list[int]] = field(default_factory=list)  # per request
    ended: list[bool] = field(default_factory=list)


class Decoder:
    """A network made ready for generation; later changes of its weights, or of its adapters, are not seen."""

    def __init__(self, network: Text2Semantic, weights: WeightKind = "f32") -> None:
        self.network, self.config, self.weights = network, network.config, weights
        self.device = network.ar_audio_embedding.word_embeddings.weight.device
        self.layers = [_prepare(layer, weights) for layer in network.h.layers]
        self.predict = build_projection(weights, *effective_linear(network.ar_predict_layer))

    # -- generation -----------------------------------------------------------------------------------------------

    def generate(
        self,
        requests: Sequence[Request],
        sampling: SamplingConfig | None = None,
        limits: Sequence[int] | None = None,
    ) -> list[Generation]:
        """Decode all requests as one batch; a row's tokens follow from its own request and seed.

        `limits`: most tokens of each row, where they are fewer than the `max_tokens` of all.
        """
        sampling = sampling or SamplingConfig()
        tokens: list[list[int]] = [[] for _ in requests]
        ended = [False] * len(requests)
        for new, ends in self._run(requests, sampling, limits):
            for row, found in new.items():
                tokens[row] += found
                ended[row] = ended[row] or row in ends
        return [Generation(tuple(found), end) for found, end in zip(tokens, ended, strict=True)]

    def stream(self, request: Request, sampling: SamplingConfig | None = None) -> Generator[int, None, bool]:
        """The tokens of one request as they come; returns (as the generator's value) whether the end token came."""
        ended = False
        for new, ends in self._run([request], sampling or SamplingConfig()):
            ended = bool(ends)
            yield from new.get(0, [])
        return ended

    def _run(
        self, requests: Sequence[Request], sampling: SamplingConfig, limits: Sequence[int] | None = None
    ) -> Iterator[tuple[dict[int, list[int]], set[int]]]:
        """Yields, every look of the host, the new tokens by request index and which requests ended."""
        looks = 1 if self.device.type == "cpu" else STEPS_PER_LOOK
        allowed = [min(sampling.max_tokens, limit) for limit in limits or [sampling.max_tokens] * len(requests)]
        with torch.no_grad():
            batch, logits = self._prefill(requests)
            sampler = self._sampler(requests, sampling)
        done = 0
        while batch.rows:
            with torch.no_grad():
                steps = min(looks, min(allowed[request] for request in batch.rows) - done)
                drawn, ends = [], []
                for _ in range(steps):
                    token, end = sampler.next(logits)
                    drawn.append(token)
                    ends.append(end)
                    logits = self._step(batch, token, sampler.followed)
                done += steps
                found, finished = _cut(torch.stack(drawn, 1).tolist(), torch.stack(ends, 1).tolist())
                new = dict(zip(batch.rows, found, strict=True))
                over = {request for request, end in zip(batch.rows, finished, strict=True) if end}
                running = [request not in over and allowed[request] > done for request in batch.rows]
                if not all(running):
                    logits = _drop(batch, sampler, logits, running)
            yield new, over

    def _sampler(self, requests: Sequence[Request], sampling: SamplingConfig) -> Sampler:
        prompts = [torch.empty(0, dtype=torch.long) if r.prompt is None else r.prompt.cpu() for r in requests]
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        padded = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
        used = torch.arange(padded.shape[1]) < lengths[:, None]
        noise = RowNoise([request.seed for request in requests], self.config.vocab_size, self.device)
        followed = self.follow(requests)
        return Sampler(sampling, padded.to(self.device), used.to(self.device), self.config.vocab_size, noise, followed)

    def follow(self, requests: Sequence[Request]) -> Followed | None:
        """How far each row is in its text; None for a base whose codes tell no phone."""
        guide = self.network.guide
        return None if guide is None else guide.follow([request.phones for request in requests])

    # -- the network ----------------------------------------------------------------------------------------------

    def _prefill(self, requests: Sequence[Request]) -> tuple[_Batch, Tensor]:
        """Text and prompt of every row: the filled batch and the logits (B, V) of the first new token."""
        read = self.read(requests)
        memory = build_memory(read.used, torch.float32 if self.weights == "f32" else torch.float16)
        for keys, values in read.layers:
            memory.add_layer(keys, values)
        return _Batch(list(range(len(requests))), memory, read.positions), read.logits

    def read(self, requests: Sequence[Request]) -> Read:
        """Text and prompt of every row."""
        x, used, is_text = self._embed(requests)
        mask = _prefill_mask(used, is_text)
        layers = []
        for layer in self.layers:
            qkv = _over_rows(layer.qkv, x).unflatten(-1, (3, self.config.heads, -1)).permute(2, 0, 3, 1, 4)
            query, keys, values = qkv  # each (B, H, T, D/H)
            attended = F.scaled_dot_product_attention(query, keys, values, mask)
            x = _norm(x + _over_rows(layer.out, attended.transpose(1, 2).flatten(2)), layer.norm1)
            x = _norm(x + _over_rows(layer.down, _over_rows(layer.up, x).relu_()), layer.norm2)
            layers.append((keys, values))
        prompts = [0 if request.prompt is None else len(request.prompt) for request in requests]
        return Read(used, layers, torch.tensor(prompts, device=self.device), self.predict(x[:, -1]))

    def _embed(self, requests: Sequence[Request]) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings (B, T, D) padded on the left, the used columns (B, T) and those of them that hold text."""
        if not requests:
            raise ModelsError("nothing to decode: no requests")
        rows, texts = [], []
        for request in requests:
            bert = None if request.bert is None else request.bert[None].to(self.device)
            row = self.network.embed_text(request.phones[None].to(self.device), bert)[0]
            texts.append(len(row))
            if request.prompt is not None:
                row = torch.cat([row, self.network.embed_audio(request.prompt[None].to(self.device))[0]])
            rows.append(row)
        total = max(len(row) for row in rows)
        x = torch.stack([F.pad(row, (0, 0, total - len(row), 0)) for row in rows])
        columns = torch.arange(total)
        starts = torch.tensor([total - len(row) for row in rows])[:, None]
        used = columns >= starts
        is_text = used & (columns < starts + torch.tensor(texts)[:, None])
        return x, used.to(self.device), is_text.to(self.device)

    def _step(self, batch: _Batch, token: Tensor, followed: Followed | None) -> Tensor:
        """Append one token per row (B,) and return the logits (B, V) of the next; `followed` knows of the token."""
        position = self.network.ar_audio_position
        batch.memory.open_column()
        position.rows(0, batch.memory.columns)  # positions are fewer than columns
        x = self.network.ar_audio_embedding.word_embeddings(token) + position.alpha * position.table[batch.positions]
        if followed:
            x = x + followed.told()
        for index, layer in enumerate(self.layers):
            x = self.through(layer, x, partial(batch.memory.attend, index))
        batch.positions += 1
        return self.predict(x)

    @staticmethod
    def through(layer: LayerWeights, x: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
        """One layer of one token per row: (B, D) -> (B, D). attend: (B, 3 D) -> (B, D)."""
        x = _norm(x + layer.out(attend(layer.qkv(x))), layer.norm1)
        return _norm(x + layer.down(layer.up(x).relu_()), layer.norm2)

    @torch.no_grad()
    def score(self, request: Request, tokens: Sequence[int]) -> Tensor:
        """Logits (n + 1, V) before each of n given tokens and after the last, the way generation computes them."""
        batch, logits = self._prefill([request])
        followed = self.follow([request])
        found = [logits]
        for token in tokens:
            drawn = torch.tensor([token], device=self.device)
            if followed:
                followed.push(drawn)
            found.append(self._step(batch, drawn, followed))
        return torch.cat(found)


def _prepare(layer: torch.nn.Module, kind: WeightKind) -> LayerWeights:
    assert isinstance(layer, Block)
    parts = [layer.self_attn.in_proj, layer.self_attn.out_proj, layer.linear1, layer.linear2]
    qkv, out, up, down = (build_projection(kind, *effective_linear(part)) for part in parts)
    norms = [(norm.weight.detach(), norm.bias.detach()) for norm in (layer.norm1, layer.norm2)]
    return LayerWeights(qkv, out, up, down, *norms)


def _over_rows(projection: Projection, x: Tensor) -> Tensor:
    return projection(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # (B, T, in) -> (B, T, out)


def _norm(x: Tensor, parameters: tuple[Tensor, Tensor]) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], *parameters)


def _prefill_mask(used: Tensor, is_text: Tensor) -> Tensor:
    """(B, 1, T, T), true where a query (row) may look: all text of its row, and the prompt up to itself.

    Padding looks at itself, so that no row of the softmax is empty.
    """
    total = used.shape[1]
    causal = torch.ones(total, total, dtype=torch.bool, device=used.device).tril()
    allowed = is_text[:, None, :] | (used[:, None, :] & causal & ~is_text[:, :, None])
    return (allowed | torch.eye(total, dtype=torch.bool, device=used.device))[:, None]


def _cut(drawn: list[list[int]], ends: list[list[bool]]) -> tuple[list[list[int]], list[bool]]:
    """Tokens of every row up to its end, which is not among them, and whether it ended."""
    stops = [row.index(True) if True in row else len(row) for row in ends]
    return [row[:stop] for row, stop in zip(drawn, stops, strict=True)], [True in row for row in ends]


def _drop(batch: _Batch, sampler: Sampler, logits: Tensor, running: list[bool]) -> Tensor:
    """Take the rows that ended out of the batch; returns the logits of the others."""
    kept = [index for index, runs in enumerate(running) if runs]
    batch.rows = [batch.rows[index] for index in kept]
    if not kept:
        return logits[:0]
    rows = torch.tensor(kept, device=logits.device)
    batch.memory.keep(rows)
    batch.positions = batch.positions[rows]
    sampler.keep(rows)
    return logits[rows]


@dataclass(frozen=True)
class WeightLoss:
    """What lighter weights cost on one text, against float32, over the same tokens."""

    kl_nats: float  # mean Kullback-Leibler divergence of the next-token distribution
    largest_logit_error: float
    same_best_token: float  # share of positions whose best token is unchanged


def compare_weights(reference: Decoder, lighter: Decoder, request: Request, tokens: Sequence[int]) -> WeightLoss:
    """Score the same tokens with both decoders."""
    ours, exact = lighter.score(request, tokens), reference.score(request, tokens)
    kl = F.kl_div(ours.log_softmax(-1), exact.log_softmax(-1), reduction="none", log_target=True).sum(-1).mean()
    same = (ours.argmax(-1) == exact.argmax(-1)).float().mean()
    return WeightLoss(kl.item(), (ours - exact).abs().max().item(), same.item())
