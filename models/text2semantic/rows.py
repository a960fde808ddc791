"""Rows of different voices in one batch that never ends: each joins and leaves between two tokens.

`models/text2semantic/decoding.py` decodes a batch from its first token to its last. A server has no such batch: rows
come when somebody asks, end when their sentence does, and carry the adapter of their own voice
(`models/adapters/plugged.py`). Here every row has a slot. A new row is read by itself (the prefill) and put into a free
slot; a row that ends frees its slot at once. The tokens of a row follow from its own request and seed, whoever else is
in the batch.

Letters: R slots, T columns of a prefill, C columns so far, L capacity in columns, H heads, d width of a head,
D width of the network, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.adapters.plugged import EMPTY, LowRank, Slots
from models.configs.text2semantic import SamplingConfig
from models.text2semantic.decoding import Decoder, Generation, Request
from models.text2semantic.guidance import Followed
from models.text2semantic.network import Text2Semantic
from models.text2semantic.projections import Projection, WeightKind
from models.text2semantic.sampling import NOISE_BLOCK, draw, penalise, token_probabilities

FEWEST_SLOTS = 2
COLUMNS = 256  # by which the memory of keys and values grows


class PluggedDecoder(Decoder):
    """A decoder whose products add what the adapters of their rows say: those in `slots`."""

    def __init__(self, network: Text2Semantic, weights: WeightKind = "f32") -> None:
        super().__init__(network, weights)
        self.slots = Slots([EMPTY])
        for number, layer in enumerate(self.layers):
            place = f"h.layers.{number}"
            layer.qkv = self._plugged(layer.qkv, f"{place}.self_attn.in_proj")
            layer.out = self._plugged(layer.out, f"{place}.self_attn.out_proj")
            layer.up = self._plugged(layer.up, f"{place}.linear1")
            layer.down = self._plugged(layer.down, f"{place}.linear2")

    def _plugged(self, base: Projection, name: str) -> Projection:
        def product(x: Tensor) -> Tensor:
            change = self.slots.change(name, x)
            return base(x) if change is None else base(x) + change

        return product


@dataclass(eq=False)
class Row:
    """One sentence to be drawn, with the adapter it is drawn with; `tokens` grow while it is in the batch."""

    request: Request
    adapter: LowRank
    limit: int  # most tokens
    tokens: list[int] = field(default_factory=list)

    def done(self, ended: bool) -> Generation:
        return Generation(tuple(self.tokens), ended)


class Rows:
    """The batch. One thread at a time."""

    def __init__(self, decoder: PluggedDecoder, sampling: SamplingConfig, most: int = 32) -> None:
        self.decoder, self.sampling, self.most = decoder, sampling, max(most, sampling.candidates)
        self.live: dict[int, Row] = {}
        self.logits: Tensor
        self.slots: Slots
        self._clear(FEWEST_SLOTS)

    def __len__(self) -> int:
        return len(self.live)

    @property
    def free(self) -> int:
        return self.most - len(self.live)

    # -- coming and going -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def join(self, rows: Sequence[Row]) -> None:
        """Read the texts of new rows and give each a slot. There have to be as many `free`."""
        if not rows:
            return
        if not self.live:
            self._clear(FEWEST_SLOTS)
        self.decoder.slots = Slots([row.adapter for row in rows])
        read = self.decoder.read([row.request for row in rows])
        self._make_room(len(rows), read.used.shape[1])
        open_slots = (slot for slot in range(self._count) if slot not in self.live)
        followed = self.decoder.follow([row.request for row in rows])
        for place, (row, slot) in enumerate(zip(rows, open_slots, strict=False)):
            self.live[slot] = row
            self.slots.put(slot, row.adapter)
            length = int(read.used[place].sum())
            self.starts[slot] = self.columns - length
            self.bias[slot] = 0.0
            self.bias[slot, : self.columns - length] = -torch.inf
            for (keys, values), (new_keys, new_values) in zip(self.memory, read.layers, strict=True):
                keys[slot, :, self.columns - length : self.columns] = new_keys[place, :, -length:]
                values[slot, :, self.columns - length : self.columns] = new_values[place, :, -length:]
            self.positions[slot] = read.positions[place]
            self.logits[slot] = read.logits[place]
            self.steps[slot] = 0
            self.seen[slot] = False
            if row.request.prompt is not None:
                self.seen[slot, row.request.prompt.to(self.seen.device)] = True
            self.generators[slot] = torch.Generator(device=self.decoder.device).manual_seed(row.request.seed)
            if followed is not None and self.followed is not None:
                self.followed.put(slot, followed, place)

    def leave(self, rows: Sequence[Row]) -> None:
        """Take rows out of the batch, wherever they are."""
        gone = {id(row) for row in rows}
        for slot in [slot for slot, row in self.live.items() if id(row) in gone]:
            self._free(slot)

    def _free(self, slot: int) -> None:
        del self.live[slot]
        self.slots.put(slot, EMPTY)
        self.bias[slot] = 0.0  # no row of the softmax is empty
        self.starts[slot] = self.columns
        if self.followed is not None:
            self.followed.known[slot] = False

    # -- one token ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self) -> list[tuple[Row, Generation]]:
        """One more token in every row; returns the rows that are done by it, which have left."""
        if not self.live:
            return []
        tokens, ends = self._draw()
        done = []
        for slot, row in list(self.live.items()):
            if ends[slot]:
                done.append((row, row.done(True)))
            else:
                row.tokens.append(tokens[slot])
                if len(row.tokens) < row.limit:
                    continue
                done.append((row, row.done(False)))
            self._free(slot)
        if self.live:
            self._advance()
        return done

    def _draw(self) -> tuple[list[int], list[bool]]:
        """The tokens of all slots and which of them end, as `models.text2semantic.sampling.Sampler` chooses them."""
        config, end_token = self.sampling, self.decoder.config.end_token
        logits = self.logits.float()
        if self.followed is not None:
            logits = logits + max(config.temperature, 1e-5) * self.followed.weights()
        too_soon = self.steps < config.min_tokens
        logits[:, end_token] = logits[:, end_token].masked_fill(too_soon, -torch.inf)
        penalised = penalise(logits, self.seen, config.repetition_penalty)
        best = penalised.argmax(dim=-1)
        if config.top_k == 1:
            self._drawn = best
        else:
            chances = token_probabilities(penalised, config.top_k, config.top_p, config.temperature)
            self._drawn = draw(chances, self._noise())
        self.seen.scatter_(1, self._drawn[:, None], True)
        if self.followed is not None:
            self.followed.push(self._drawn)
        self.steps += 1
        return self._drawn.tolist(), ((self._drawn == end_token) | (best == end_token)).tolist()

    def _noise(self) -> Tensor:
        """Exp(1) noise (R, V), each row's from its own generator, in the blocks that a seed means."""
        within = self.steps % NOISE_BLOCK
        for slot in self.live:
            if int(within[slot]) == 0:
                self.noise[slot].exponential_(generator=self.generators[slot])
        return self.noise[torch.arange(self._count, device=within.device), within]

    def _advance(self) -> None:
        """Tell the network the tokens drawn last; the logits of the next."""
        decoder, position = self.decoder, self.decoder.network.ar_audio_position
        decoder.slots = self.slots
        self._open_column()
        position.rows(0, int(self.positions.max()) + 1)
        x = decoder.network.ar_audio_embedding.word_embeddings(self._drawn)
        x = x + position.alpha * position.table[self.positions]
        if self.followed is not None:
            x = x + self.followed.told()
        for layer, (keys, values) in zip(decoder.layers, self.memory, strict=True):
            x = decoder.through(layer, x, lambda qkv, k=keys, v=values: self._attend(k, v, qkv))  # type: ignore[misc]
        self.positions += 1
        self.logits = decoder.predict(x)

    def _attend(self, keys: Tensor, values: Tensor, qkv: Tensor) -> Tensor:
        """(R, 3 D) -> (R, D); only the columns that some row uses are looked at."""
        rows, heads, _, width = keys.shape
        query, key, value = qkv.view(rows, 3, heads, width).unbind(1)
        keys[:, :, self.columns - 1], values[:, :, self.columns - 1] = key, value
        used = slice(self._first, self.columns)
        scores = torch.matmul(keys[:, :, used], query[..., None])[..., 0] / math.sqrt(width)  # (R, H, C)
        weights = (scores + self.bias[:, None, used]).softmax(-1)
        return torch.matmul(weights[:, :, None], values[:, :, used]).flatten(1)

    # -- room -----------------------------------------------------------------------------------------------------

    def _clear(self, count: int) -> None:
        """Nothing but so many empty slots."""
        config, device = self.decoder.config, self.decoder.device
        width = config.hidden_dim // config.heads
        self._count, self.columns, self._first = count, 0, 0
        shape = (count, config.heads, COLUMNS, width)
        self.memory = [
            (torch.zeros(shape, device=device), torch.zeros(shape, device=device)) for _ in self.decoder.layers
        ]
        self.bias = torch.zeros(count, COLUMNS, device=device)
        self.starts = [0] * count
        self.positions = torch.zeros(count, dtype=torch.long, device=device)
        self.steps = torch.zeros(count, dtype=torch.long, device=device)
        self.seen = torch.zeros(count, config.vocab_size, dtype=torch.bool, device=device)
        self.logits = torch.zeros(count, config.vocab_size, device=device)
        self.noise = torch.ones(count, NOISE_BLOCK, config.vocab_size, device=device)
        self.generators: list[torch.Generator | None] = [None] * count
        self.slots = Slots([EMPTY] * count)
        guide = self.decoder.network.guide
        self.followed: Followed | None = None if guide is None else Followed(guide, [None] * count)
        self._drawn = torch.zeros(count, dtype=torch.long, device=device)

    def _make_room(self, more: int, columns: int) -> None:
        """Slots for so many more rows, and columns before the present one for a text of this length."""
        wanted = len(self.live) + more
        if wanted > self._count or wanted <= self._count // 4:
            self._rearrange(min(self.most, max(FEWEST_SLOTS, 1 << (wanted - 1).bit_length())))
        if columns > self.columns:
            self._shift(columns - self.columns)

    def _rearrange(self, count: int) -> None:
        """Another number of slots; the rows keep their order."""
        old = list(self.live.items())
        slots = [slot for slot, _ in old]
        kept = (self.memory, self.bias, self.starts, self.positions, self.steps, self.seen, self.logits, self.noise)
        memory, bias, starts, positions, steps, seen, logits, noise = kept
        generators, followed, columns, first = self.generators, self.followed, self.columns, self._first
        self._clear(count)
        self.live = {place: row for place, (_, row) in enumerate(old)}
        self.columns, self._first = columns, first
        length = bias.shape[1]
        self._grow(length - COLUMNS)
        part = slice(0, len(slots))
        for (keys, values), (old_keys, old_values) in zip(self.memory, memory, strict=True):
            keys[part], values[part] = old_keys[slots], old_values[slots]
        for new, before in (
            (self.bias, bias),
            (self.positions, positions),
            (self.steps, steps),
            (self.seen, seen),
            (self.logits, logits),
            (self.noise, noise),
        ):
            new[part] = before[slots]
        self.starts[part] = [starts[slot] for slot in slots]
        self.generators[part] = [generators[slot] for slot in slots]
        for place, (slot, row) in enumerate(old):
            self.slots.put(place, row.adapter)
            if followed is not None and self.followed is not None:
                self.followed.put(place, followed, slot)

    def _open_column(self) -> None:
        self._first = min((self.starts[slot] for slot in self.live), default=0)
        if self.columns == self.bias.shape[1]:
            if self._first >= COLUMNS // 2:
                self._shift(-self._first)
            else:
                self._grow(COLUMNS)
        self.columns += 1

    def _grow(self, more: int) -> None:
        if more > 0:
            pad = torch.nn.functional.pad
            self.memory = [(pad(k, (0, 0, 0, more)), pad(v, (0, 0, 0, more))) for k, v in self.memory]
            self.bias = pad(self.bias, (0, more))

    def _shift(self, by: int) -> None:
        """Move all columns later (or, below zero, earlier), and the present one with them."""
        end = self.columns + by
        while end >= self.bias.shape[1]:
            self._grow(COLUMNS)
        self.memory = [(torch.roll(k, by, 2), torch.roll(v, by, 2)) for k, v in self.memory]
        self.columns = end
        self.starts = [start + by for start in self.starts]
        self.bias.zero_()
        for slot in self.live:
            self.bias[slot, : self.starts[slot]] = -torch.inf
        self._first = max(0, self._first + by)


def draw_all(rows: Rows, wanted: Sequence[Row]) -> list[Generation]:
    """Draw some rows to their ends, as many at a time as there are slots."""
    found: dict[int, Generation] = {}
    waiting = list(wanted)
    while waiting or rows.live:
        new, waiting = waiting[: rows.free], waiting[rows.free :]
        rows.join(new)
        found.update({id(row): generated for row, generated in rows.step()})
    return [found[id(row)] for row in wanted]
