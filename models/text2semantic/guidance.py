"""Where in the text the tokens are: which phones are due next, for the network to know and the sampler to respect.

Where the codes of a base tell which phone they are (nano's do: they are clusters of phone posteriors), a hidden Markov
model follows the text while tokens come. Its states are the phones and how many tokens each has lasted; its durations
are those of recordings. The text-to-semantic network is told the phones that are due, so it needs not learn to count
through the text, which takes more speech than nano has; and tokens that say something else are seldom drawn, the end
token not before the text is said.

Letters: B rows, S states (phones and pauses of a text), D tokens a phone may last, V vocabulary, P phone classes,
Y tokens, E width of a phone's embedding, W width of the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.configs.text2semantic import GuideConfig
from models.phones.phone_classes import pause_ids, sounds_of_ids
from models.sound.spectrogram import float32_region

SILENCE = 0  # class of the content encoder
SHORT_PAUSE = 0.1  # how fitting silence is inside speech, against the phone that is due
NEVER = 1e-4  # how fitting a code is that says something else; above zero, for alignments are not perfect
FORBIDDEN = -100.0  # nats
LONGEST_PAUSE = 18  # silent tokens in a row; recordings pause for 0.7 s, and the network, left alone, for seconds
LONGEST_SKIP = 3  # phones in a row that may be too short for a token
PLACES = ("lead", "pause", "tail")  # silences with durations of their own, behind those of the classes
FACTS = 4  # embedded of a state: the symbol before, its own, the one after, and its class


@dataclass(frozen=True)
class States:
    """One text as states, the last of which is "all is said"."""

    symbols: Tensor  # (S, FACTS) places in the embedding
    classes: Tensor  # (S,)
    durations: Tensor  # (S,) rows of the table of durations, -1 for the last
    origins: tuple[int | None, ...] = ()  # which symbol of the text each is of; None for the silence around it


class TextReader(nn.Module):
    """What every code says and how long phones last: enough to find a text in its tokens."""

    said: Tensor
    lasting: Tensor

    def __init__(self, config: GuideConfig, n_symbols: int, n_codes: int) -> None:
        super().__init__()
        self.config = config
        classes = len(config.classes)
        self.register_buffer("said", torch.full((n_codes, classes), 1 / classes))  # share of each class in a code
        lasting = torch.full((classes + len(PLACES), config.longest_tokens + 1), 1 / (config.longest_tokens + 1))
        self.register_buffer("lasting", lasting)  # chance to last 0, 1, 2 .. tokens
        self._class_place = n_symbols
        index = {name: number for number, name in enumerate(config.classes)}
        self._sounds = {
            number: [index[sound] for sound in sounds]
            for number, sounds in sounds_of_ids().items()
            if all(sound in index for sound in sounds)
        }

    def classes_of(self, phones: Tensor) -> list[int] | None:
        """Classes that a text (X,) of symbol ids is spoken in, without pauses; None for an unknown language."""
        if any(symbol not in self._sounds for symbol in phones.tolist()):
            return None
        return [sound for symbol in phones.tolist() for sound in self._sounds[symbol]]

    def states(self, phones: Tensor) -> States | None:
        """States of a text (X,); None for an unknown language or where there is nothing to say."""
        spoken = self.classes_of(phones)
        if not spoken:
            return None
        symbols = phones.tolist()
        facts: list[tuple[int, int, int, int]] = []
        origins: list[int | None] = []
        for place, symbol in enumerate(symbols):
            before, after = symbols[max(place - 1, 0)], symbols[min(place + 1, len(symbols) - 1)]
            is_pause = symbol in pause_ids() and facts and facts[-1][3] != SILENCE
            for sound in [SILENCE] if is_pause else self._sounds[symbol]:
                facts.append((before, symbol, after, sound))
                origins.append(place)
        if facts[-1][3] == SILENCE:
            facts.pop()
            origins.pop()
        stop = symbols[-1]
        facts = [(stop, stop, symbols[0], SILENCE), *facts, (symbols[-2:][0], stop, stop, SILENCE)]
        facts.append((stop, stop, stop, SILENCE))
        table = torch.tensor(facts)
        classes, places = table[:, 3].clone(), len(self.config.classes)
        durations = torch.where(classes == SILENCE, places + PLACES.index("pause"), classes)
        durations[0], durations[-2], durations[-1] = places + PLACES.index("lead"), places + PLACES.index("tail"), -1
        table[:, 3] += self._class_place
        return States(table, classes, durations, (None, *origins, None, None))


class TextGuide(TextReader):
    """Follows a text while its tokens come, and tells the network which phones are due."""

    def __init__(self, config: GuideConfig, n_symbols: int, n_codes: int, width: int) -> None:
        super().__init__(config, n_symbols, n_codes)
        self.symbols = nn.Embedding(n_symbols + len(config.classes), config.embedding_dim)
        self.project = nn.Linear(FACTS * config.embedding_dim + 1, width)

    def follow(self, texts: Sequence[Tensor]) -> "Followed":
        """Begin to follow one text (X,) per row."""
        return Followed(self, [self.states(text) for text in texts])

    def teach(self, phones: Tensor, phone_lengths: Tensor, tokens: Tensor) -> Tensor:
        """What the network is told after each of the tokens (B, Y) of texts (B, X): (B, Y, W)."""
        with torch.no_grad(), float32_region(self.project.weight):
            followed = self.follow([row[:length] for row, length in zip(phones, phone_lengths, strict=True)])
            chances, lasted = [], []
            for token in tokens.clamp(max=len(self.said)).unbind(1):
                followed.push(token)
                chances.append(followed.chances)
                lasted.append(followed.lasted)
        due = torch.stack(chances, 1) @ self.symbols(followed.symbols).flatten(2)  # (B, Y, S) @ (B, S, FACTS E)
        told: Tensor = self.project(torch.cat([due, torch.stack(lasted, 1)[..., None]], dim=2))
        return told * followed.known[:, None, None]


class Followed:
    """How far the rows of a batch may have come in their texts."""

    def __init__(self, guide: TextGuide, texts: Sequence[States | None]) -> None:
        self.guide, device = guide, guide.said.device
        rows = [text or _nothing() for text in texts]
        pad = nn.utils.rnn.pad_sequence
        self.known = torch.tensor([text is not None for text in texts], device=device)
        self.symbols = pad([row.symbols for row in rows], batch_first=True).to(device)  # (B, S, FACTS)
        self.fitting = pad([self._fitting(row.classes.to(device)) for row in rows], batch_first=True)  # (B, S, V)
        lasting = pad([self._lasting(row.durations.to(device)) for row in rows], batch_first=True)  # (B, S, D + 1)
        self.skip, self.leave = lasting[..., 0], phone_hazard(lasting[..., 1:])  # (B, S), (B, S, D)
        arriving = torch.zeros_like(self.skip)
        arriving[:, 0] = 1.0
        self.state = torch.zeros_like(self.leave)  # (B, S, D), chances before the next token is known
        self._enter(arriving)
        self.is_silent = F.pad(guide.said.argmax(1) == SILENCE, (0, 1))  # (V,); the end token is not
        self.hush = torch.zeros(len(rows), dtype=torch.long, device=device)  # silent tokens that came last
        self._table: Tensor | None = None  # (B, S, V + W)

    def _fitting(self, classes: Tensor) -> Tensor:
        """How fitting every token is in every state (S, V)."""
        said = self.guide.said.float()
        fitting = said.T[classes] + SHORT_PAUSE * said.T[SILENCE]
        fitting[-1] = 0.0  # behind the last state only the end token fits
        end = F.one_hot(torch.tensor([len(classes) - 1], device=said.device), len(classes)).T
        return torch.cat([fitting.clamp(min=NEVER), end], dim=1)

    def _lasting(self, durations: Tensor) -> Tensor:
        """Chance of every duration in every state (S, D + 1); nothing leaves the last one."""
        lasting = self.guide.lasting.float()[durations.clamp(min=0)]
        return torch.where((durations < 0)[:, None], 0.0, lasting)

    @property
    def chances(self) -> Tensor:
        """How likely each state is when the next token comes (B, S)."""
        return self.state.sum(2)

    @property
    def lasted(self) -> Tensor:
        """How long it will then have lasted, on average, in tokens (B,)."""
        tokens = torch.arange(self.state.shape[2], device=self.state.device, dtype=self.state.dtype)
        return (self.state.sum(1) * tokens).sum(1)

    def told(self) -> Tensor:
        """What the network is told now (B, W)."""
        project = self.guide.project
        told = (
            self._expected()[:, self.fitting.shape[2] :] + self.lasted[:, None] * project.weight[:, -1] + project.bias
        )
        return told * self.known[:, None]

    def weights(self) -> Tensor:
        """Log of how fitting every token is next (B, V), times the strength of the guide; 0 in a row it cannot read."""
        fitting = self._expected()[:, : self.fitting.shape[2]]
        weights = fitting.clamp(min=1e-8).log() * self.guide.config.strength
        too_long = (self.hush >= LONGEST_PAUSE)[:, None] & self.is_silent
        weights = weights.masked_fill(too_long, FORBIDDEN)
        return torch.where(self.known[:, None], weights, 0.0)

    def _expected(self) -> Tensor:
        """Fitting tokens and what the network is told of the phones, expected over the states (B, V + W).

        For generation: the weights of the guide must not change meanwhile.
        """
        return torch.bmm(self.chances[:, None], self._told_table())[:, 0]

    def _told_table(self) -> Tensor:
        if self._table is None:
            embedded = self.guide.symbols(self.symbols).flatten(2)  # (B, S, FACTS E)
            self._table = torch.cat([self.fitting, F.linear(embedded, self.guide.project.weight[:, :-1])], dim=2)
        return self._table

    def push(self, tokens: Tensor) -> None:
        """Take note of the tokens (B,) that came."""
        self.hush = torch.where(self.is_silent[tokens], self.hush + 1, 0)
        fitting = self.fitting.gather(2, tokens[:, None, None].expand(-1, self.fitting.shape[1], 1))  # (B, S, 1)
        here = self.state * fitting.clamp(min=1e-8)
        here = here / here.sum((1, 2), keepdim=True).clamp(min=1e-30)
        leaving = here * self.leave
        staying = here - leaving
        self.state = torch.roll(staying, 1, dims=2)
        self.state[:, :, -1] += self.state[:, :, 0]  # longer than the longest counts as the longest
        self.state[:, :, 0] = 0.0
        self._enter(F.pad(leaving.sum(2), (1, -1)))

    def keep(self, rows: Tensor) -> None:
        """Go on with the rows of this index only."""
        for name in ("known", "symbols", "fitting", "skip", "leave", "state", "hush"):
            setattr(self, name, getattr(self, name)[rows])
        self._table = None if self._table is None else self._table[rows]

    def put(self, row: int, other: "Followed", place: int) -> None:
        """Follow in this row what the other follows at that place."""
        table, others = self._told_table(), other._told_table()
        longer = other.symbols.shape[1] - self.symbols.shape[1]
        if longer > 0:
            for name in ("symbols", "fitting", "state", "leave"):
                setattr(self, name, F.pad(getattr(self, name), (0, 0, 0, longer)))
            self.skip, table = F.pad(self.skip, (0, longer)), F.pad(table, (0, 0, 0, longer))
        self._table, count = table, other.symbols.shape[1]
        pairs = [
            (getattr(self, name), getattr(other, name)) for name in ("symbols", "fitting", "skip", "leave", "state")
        ]
        for mine, theirs in [*pairs, (table, others)]:
            mine[row] = 0
            mine[row, :count] = theirs[place]
        self.known[row], self.hush[row] = other.known[place], other.hush[place]

    def _enter(self, arriving: Tensor) -> None:
        """Chances (B, S) that a state is reached, the skipping of short phones counted in."""
        for _ in range(LONGEST_SKIP + 1):
            self.state[:, :, 0] += arriving * (1 - self.skip)
            arriving = F.pad(arriving * self.skip, (1, -1))


def _nothing() -> States:
    return States(torch.zeros(2, FACTS, dtype=torch.long), torch.zeros(2, dtype=torch.long), torch.tensor([0, -1]))


def phone_hazard(lasting: Tensor) -> Tensor:
    """Chance to end after 1, 2 .. D tokens (.., D), given as many, from chances to last so many."""
    remaining = lasting.flip(-1).cumsum(-1).flip(-1)
    hazard = torch.where(remaining > 0, lasting / remaining.clamp(min=1e-12), 0.0)
    hazard[..., -1] *= 0.5  # the last stands for all that are longer
    return hazard
