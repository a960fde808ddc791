"""Train the text-to-semantic network: phones to tokens, two attention heads taught where in the text each token is."""

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.configs.text2semantic import GuideConfig
from models.text2semantic.guidance import TextReader
from models.text2semantic.network import SelfAttention, Text2Semantic, TextAndTokens, sequence_mask
from pipeline.pretrain.align import Phone
from pipeline.pretrain.loop import Losses, Run, train
from pipeline.pretrain.prepare import Clip, Corpus
from pipeline.pretrain.recipe import Stage
from pipeline.text.symbols import symbol_ids

TOKENS_PER_SECOND = 25
GUIDED_LAYER = 1
GUIDED_HEADS = 2  # the first learns the phone a token belongs to, the second the phone after it
LONGEST_S = 9.0
PAUSES = {",", "."}
KEPT_ONE_IN = 33
SMOOTHING = 20.0  # phones of average length that are added to the count of each class
LEAD_S, TAIL_S = (0.0, 0.15), (0.12, 0.25)  # silence left around a stretch
SKIPPED_PAUSES = 0.25  # share of commas that are read over


@dataclass(frozen=True)
class Span:
    """Phones, tokens and, per token, the index of its phone."""

    phones: list[int]
    tokens: NDArray[np.int64]
    places: NDArray[np.int64]


@dataclass(frozen=True)
class GptBatch:
    """Right-padded rows; `places` (B, Y) counts from 0 at the first phone."""

    phones: Tensor
    phone_lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor
    places: Tensor


class Spans:
    """Draws stretches of transcribed clips: single phrases at first, longer ones later."""

    def __init__(
        self, corpus: Corpus, tokens: list[NDArray[np.int64]], stage: Stage, part: Literal["all", "heard", "unheard"]
    ) -> None:
        """part: all transcribed clips, those that are trained on, or those kept to measure on."""
        self.stage = stage
        rows = [
            (clip, row)
            for clip, row in zip(corpus.clips, tokens, strict=True)
            if clip.phones and not clip.guessed and "gpt" in clip.uses and part in ("all", part_of(clip))
        ]
        self.clips, self.tokens = [clip for clip, _ in rows], [row for _, row in rows]
        weights = np.array([clip.weight * clip.samples for clip in self.clips], dtype=np.float64)
        self.weights = weights / weights.sum()

    def batch(self, rng: np.random.Generator, progress: float) -> GptBatch:
        """`progress` 0 to 1 lengthens the stretches from about 2 s to LONGEST_S."""
        target_s = 2.0 + (LONGEST_S - 2.0) * min(1.0, progress * 1.5) * rng.random()
        count = max(4, round(self.stage.batch * 3.0 / max(target_s, 1.5)))
        spans = [self._span(rng, target_s) for _ in range(count)]
        lengths = [(len(span.phones), len(span.tokens)) for span in spans]
        pad = torch.nn.utils.rnn.pad_sequence
        return GptBatch(
            phones=pad([torch.tensor(span.phones) for span in spans], batch_first=True),
            phone_lengths=torch.tensor([phones for phones, _ in lengths]),
            tokens=pad([torch.from_numpy(span.tokens) for span in spans], batch_first=True),
            token_lengths=torch.tensor([tokens for _, tokens in lengths]),
            places=pad([torch.from_numpy(span.places) for span in spans], batch_first=True),
        )

    def _span(self, rng: np.random.Generator, target_s: float) -> Span:
        pick = int(rng.choice(len(self.clips), p=self.weights))
        return cut_span(self.clips[pick], self.tokens[pick], target_s, rng)


def part_of(clip: Clip) -> Literal["heard", "unheard"]:
    """One transcribed clip in KEPT_ONE_IN is not trained on, chosen by its name."""
    return "heard" if zlib.crc32(clip.file.encode()) % KEPT_ONE_IN else "unheard"


def cut_span(clip: Clip, tokens: NDArray[np.int64], target_s: float, rng: np.random.Generator) -> Span:
    """A stretch of whole words of at most about `target_s`, from a start of a phrase where one fits.

    Silence around it is cut to at most a fifth of a second, and the stretch ends with a full stop or comma.
    """
    phones = clip.phones
    starts = [i for i, p in enumerate(phones) if p.word >= 0 and (i == 0 or phones[i - 1].symbol in PAUSES)]
    first = starts[int(rng.integers(len(starts)))]
    ends = [i for i in range(first, len(phones)) if phones[i].symbol in PAUSES]
    inside = [i for i in ends if phones[i].start_s - phones[first].start_s <= target_s]
    if inside:
        last = inside[int(rng.integers(len(inside)))] if rng.random() < 0.3 else inside[-1]
    else:  # no phrase is that short: break between words
        words = [
            i
            for i in range(first + 1, len(phones))
            if phones[i].word != phones[i - 1].word and phones[i].start_s - phones[first].start_s <= target_s
        ]
        last = words[-1] - 1 if words else ends[0]
    chosen = phones[first : last + 1]
    ends_phrase = chosen[-1].symbol in PAUSES
    lead_s, tail_s = rng.uniform(*LEAD_S), rng.uniform(*TAIL_S) if ends_phrase else 0.0
    spoken_end_s = chosen[-2].end_s if ends_phrase and len(chosen) > 1 else chosen[-1].end_s
    begin = max(0, round((chosen[0].start_s - lead_s) * TOKENS_PER_SECOND))
    end = max(begin + 2, min(len(tokens), round((spoken_end_s + tail_s) * TOKENS_PER_SECOND)))
    symbols = [p.symbol for p in chosen]
    if ends_phrase:
        symbols[-1] = "."
    return Span(symbol_ids(symbols), tokens[begin:end], token_places(chosen, begin, end))


def token_places(phones: list[Phone], begin: int, end: int) -> NDArray[np.int64]:
    """Index of the phone at the middle of every token."""
    middles = (np.arange(begin, end) + 0.5) / TOKENS_PER_SECOND
    starts = np.array([phone.start_s for phone in phones])
    return np.clip(np.searchsorted(starts, middles, side="right") - 1, 0, len(phones) - 1).astype(np.int64)


@torch.no_grad()
def set_guide(guide: TextReader, codebook: Tensor, corpus: Corpus) -> None:
    """Fill the guide's tables: what the codes (K, C) say, by their phone evidence, and how long phones last."""
    classes = len(guide.config.classes)
    said = codebook[:, :classes].float().clamp(min=0).square()  # features are roots of posteriors
    guide.said.copy_(said / said.sum(1, keepdim=True))
    guide.lasting.copy_(torch.from_numpy(count_durations(corpus, guide.config)))


def count_durations(corpus: Corpus, config: GuideConfig) -> NDArray[np.float32]:
    """Chance of lasting 0, 1, 2 .. tokens for every class, then for silence before, within and after a text."""
    index = {name: number for number, name in enumerate(config.classes)}
    longest = config.longest_tokens
    phones, pause = np.full((len(index), longest + 1), 1e-2), np.full(longest + 1, 1e-2)
    for clip in corpus.clips:
        if clip.guessed:
            continue
        for phone in clip.phones[:-1]:  # the last is what follows the text
            for sound, start_s, end_s in phone.sounds():
                tokens = round(end_s * TOKENS_PER_SECOND) - round(start_s * TOKENS_PER_SECOND)
                (pause if phone.word < 0 else phones[index[sound]])[min(tokens, longest)] += 1
    average = phones.sum(0) / phones.sum()
    pause[0] = SKIPPED_PAUSES / (1 - SKIPPED_PAUSES) * pause.sum()
    table = np.stack([*(phones + SMOOTHING * average), _even(*LEAD_S, longest), pause, _even(*TAIL_S, longest)])
    chances: NDArray[np.float32] = (table / table.sum(1, keepdims=True)).astype(np.float32)
    return chances


def _even(shortest_s: float, longest_s: float, longest: int) -> NDArray[np.float64]:
    """Durations (in tokens) of silences drawn evenly between two lengths, which begin anywhere within a token."""
    drawn = np.random.default_rng(0).uniform((shortest_s, 0), (longest_s, 1 / TOKENS_PER_SECOND), (4000, 2))
    tokens = np.floor(drawn.sum(1) * TOKENS_PER_SECOND).astype(int)
    return np.bincount(np.minimum(tokens, longest), minlength=longest + 1).astype(np.float64)


def train_gpt(
    network: Text2Semantic,
    spans: Spans,
    held_out: dict[str, Spans],
    run: Run,
) -> None:
    """The stage `gpt`; `held_out` are spans to measure on, by name."""
    stage = run.stage
    losses = GuidedLosses(network, stage.options.get("guide", 1.0), run.device)
    mistakes = stage.options.get("mistakes", 0.0)

    def forward(step: int, rng: np.random.Generator) -> Losses:
        batch = spans.batch(rng, step / stage.steps)
        return losses(batch, make_mistakes(batch.tokens, mistakes, rng))

    def evaluate(step: int) -> dict[str, float]:
        return {
            f"{part}/{name}": float(value)
            for part, unheard in held_out.items()
            for name, value in losses(unheard.batch(np.random.default_rng(0), 0.5)).items()
        }

    train(network, forward, run, evaluate=evaluate, evaluate_every=250)


def make_mistakes(tokens: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Tokens (B, Y) with a share of them replaced by others of the batch, as generation will now and then draw them."""
    others = tokens.flatten()[torch.from_numpy(rng.integers(0, tokens.numel(), tokens.shape))]
    return torch.where(torch.from_numpy(rng.random(tokens.shape) < share), others, tokens)


class GuidedLosses:
    """Cross entropy of the tokens and of the guided heads' attention."""

    def __init__(self, network: Text2Semantic, weight: float, device: torch.device) -> None:
        self.network, self.weight, self.device = network, weight, device
        self._seen: list[Tensor] = []
        attention = network.h.layers[GUIDED_LAYER].self_attn
        assert isinstance(attention, SelfAttention)
        attention.register_forward_pre_hook(lambda module, args: self._seen.append(args[0]))
        self._attention = attention

    def __call__(self, batch: GptBatch, heard: Tensor | None = None) -> Losses:
        device = self.device
        self._seen.clear()
        rows = TextAndTokens(
            batch.phones.to(device),
            batch.phone_lengths.to(device),
            batch.tokens.to(device),
            batch.token_lengths.to(device),
            heard=None if heard is None else heard.to(device),
        )
        prediction = self.network(rows)
        guide = self._guide(self._seen.pop(), batch)
        accuracy = prediction.top_accuracy(3, self.network.config.end_token)
        return {
            "loss": prediction.loss + self.weight * guide,
            "token": prediction.loss,
            "guide": guide,
            "top3": accuracy,
        }

    def _guide(self, x: Tensor, batch: GptBatch) -> Tensor:
        """Mean over tokens of -log attention, among all keys, to the right phone."""
        attention, device = self._attention, self.device
        text, audio = batch.phones.shape[1], batch.tokens.shape[1]
        q, k, _ = attention.in_proj(x).float().unflatten(-1, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = q[:, :GUIDED_HEADS, text:], k[:, :GUIDED_HEADS]  # (B, 2, Y, K), (B, 2, T, K)
        text_used = torch.arange(text, device=device) < batch.phone_lengths.to(device)[:, None]
        audio_used = torch.arange(audio, device=device) < batch.token_lengths.to(device)[:, None]
        mask = sequence_mask(text_used, audio_used)[:, :, text:]
        scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(~mask, -1e4)
        logs = scores.log_softmax(-1)[..., :text]  # (B, 2, Y, X)
        place = batch.places.to(device)
        following = torch.minimum(place + 1, batch.phone_lengths.to(device)[:, None] - 1)
        target = torch.stack([place, following], dim=1)[..., None]
        picked = logs.gather(3, target)[..., 0] * audio_used[:, None]
        mean: Tensor = -picked.sum() / audio_used.sum() / GUIDED_HEADS
        return mean
