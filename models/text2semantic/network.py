"""Text to semantic tokens: the transformer of GPT-SoVITS (docs/networks/text-to-semantic.md).

Letters: B rows, X text positions, Y audio positions, T = X + Y, D width, H heads, V vocabulary.
A sequence is [text | audio]. Text sees all text and no audio; audio sees all text and the audio up to itself.

State-dict names are those of GPT-SoVITS without the leading `model.` of its files. There the query, key and value
projection is a bare parameter; here it is an `nn.Linear`, so that an adapter can wrap it, and is renamed on the way
in and out. The layers are not `nn.TransformerEncoderLayer`: its fused path in eval mode would skip adapters.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks.dropout import Dropout, drop_attention
from models.blocks.linear import Linear
from models.configs.text2semantic import Text2SemanticConfig
from models.text2semantic.guidance import TextGuide

INITIAL_POSITIONS = 4000
IGNORED = -100  # target of positions outside the loss


def sine_positions(count: int, dim: int) -> Tensor:
    """Sinusoid table (count, dim): sine in even columns, cosine in odd ones, base 10000."""
    angle = torch.arange(count, dtype=torch.float32)[:, None] * torch.exp(
        torch.arange(0, dim, 2, dtype=torch.float32) * -(math.log(10000.0) / dim)
    )
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


class TokenEmbedding(nn.Module):
    def __init__(self, vocab_size: int, dim: int, p: float) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, dim)
        self.dropout = Dropout(p)

    def forward(self, ids: Tensor) -> Tensor:
        return self.dropout(self.word_embeddings(ids))  # (B, T) -> (B, T, D)


class SinePosition(nn.Module):
    """Adds alpha * sinusoid, alpha learned."""

    table: Tensor

    def __init__(self, dim: int, p: float) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1))
        self.dropout = Dropout(p)
        self.register_buffer("table", sine_positions(INITIAL_POSITIONS, dim), persistent=False)

    def rows(self, start: int, count: int) -> Tensor:
        """Table rows (count, D) of the positions from start; the table grows when it is too short."""
        if start + count > self.table.shape[0]:
            self.table = sine_positions(2 * (start + count), self.table.shape[1]).to(self.table)
        return self.table[start : start + count]

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        return self.dropout(x + self.alpha * self.rows(start, x.shape[1]))


class SelfAttention(nn.Module):
    """Multi-head attention. Names of the projection in the state dict: `in_proj_weight`, `in_proj_bias`."""

    def __init__(self, dim: int, heads: int, p: float) -> None:
        super().__init__()
        self.heads = heads
        self.p = p
        self.in_proj = Linear(dim, 3 * dim)
        self.out_proj = Linear(dim, dim)
        self.register_state_dict_post_hook(_rename_for_files)
        self.register_load_state_dict_pre_hook(_rename_for_module)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: (B, T, D); mask: (B, 1, T, T), true where a query (row) may look at a key (column)."""
        q, k, v = self.in_proj(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, H, T, D/H)
        if self.training and self.p and x.device.type == "cpu":
            out = drop_attention(q, k, v, mask, self.p)
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, self.p if self.training else 0.0)
        return self.out_proj(out.transpose(1, 2).flatten(2))  # (B, H, T, D/H) -> (B, T, D)


def _rename_for_files(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    for part in ("weight", "bias"):
        ours = f"{prefix}in_proj.{part}"
        if ours in state:  # absent while an adapter wraps the projection
            state[f"{prefix}in_proj_{part}"] = state.pop(ours)


def _rename_for_module(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    for part in ("weight", "bias"):
        theirs = f"{prefix}in_proj_{part}"
        if theirs in state:
            state[f"{prefix}in_proj.{part}"] = state.pop(theirs)


class Block(nn.Module):
    """Post-norm transformer layer: attention, then a ReLU network, each added and normalised."""

    def __init__(self, config: Text2SemanticConfig) -> None:
        super().__init__()
        dim, p = config.hidden_dim, config.dropout
        self.self_attn = SelfAttention(dim, config.heads, config.attention_dropout)
        self.linear1 = Linear(dim, config.feedforward_dim)
        self.linear2 = Linear(config.feedforward_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = Dropout(p)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attn(x, mask)))
        hidden = self.dropout(F.relu(self.linear1(x)))
        return self.norm2(x + self.dropout(self.linear2(hidden)))


class Stack(nn.Module):
    def __init__(self, config: Text2SemanticConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block(config) for _ in range(config.layers)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, mask)
        return x


@dataclass(frozen=True)
class Prediction:
    """Logits (B, Y+1, V) and targets (B, Y+1); targets outside the loss are IGNORED."""

    logits: Tensor
    targets: Tensor

    @property
    def loss_sum(self) -> Tensor:
        """Cross entropy in nats, summed over the positions in the loss, as GPT-SoVITS reports it."""
        logits = self.logits.flatten(0, 1).float()
        return F.cross_entropy(logits, self.targets.flatten(), ignore_index=IGNORED, reduction="sum")

    @property
    def count(self) -> Tensor:
        """How many positions are in the loss (a 0-d tensor, so that nothing waits for the device)."""
        return (self.targets != IGNORED).sum()

    @property
    def loss(self) -> Tensor:
        """Cross entropy in nats per position."""
        return self.loss_sum / self.count

    def row_log_probability(self) -> Tensor:
        """Sum of the log-probabilities of the targets, per row (B,)."""
        used = self.targets != IGNORED
        targets = self.targets.masked_fill(~used, 0)[..., None]
        return (self.logits.float().log_softmax(-1).gather(-1, targets)[..., 0] * used).sum(-1)

    def top_accuracy(self, k: int, ignored_token: int) -> Tensor:
        """Share of targets among the k best, the targets equal to `ignored_token` left out."""
        counted = (self.targets != IGNORED) & (self.targets != ignored_token)
        hit = (self.logits.topk(k, dim=-1).indices == self.targets[..., None]).any(-1)
        return (hit & counted).sum() / counted.sum().clamp(min=1)


@dataclass(frozen=True, eq=False)
class TextAndTokens:
    """Right-padded rows of texts and of the tokens that say them: phones (B, X), tokens (B, Y), lengths (B,).

    bert: (B, bert_dim, X), None for a network without BERT or for all-zero features. heard: (B, Y) tokens to go on from
    in place of the right ones, so that training meets mistakes, too.
    """

    phones: Tensor
    phone_lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor
    bert: Tensor | None = None
    heard: Tensor | None = None


class Text2Semantic(nn.Module):
    """The network; sizes from its config. Generation lives in `models/text2semantic/decoding.py`."""

    def __init__(self, config: Text2SemanticConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.hidden_dim
        if config.bert_dim:
            self.bert_proj = Linear(config.bert_dim, dim)
        self.ar_text_embedding = TokenEmbedding(config.phoneme_vocab_size, dim, config.embedding_dropout)
        self.ar_text_position = SinePosition(dim, config.position_dropout)
        self.ar_audio_embedding = TokenEmbedding(config.vocab_size, dim, config.embedding_dropout)
        self.ar_audio_position = SinePosition(dim, config.position_dropout)
        self.h = Stack(config)
        self.ar_predict_layer = Linear(dim, config.vocab_size, bias=False)
        self.guide = None
        if config.guide:
            self.guide = TextGuide(config.guide, config.phoneme_vocab_size, config.vocab_size - 1, dim)

    def embed_text(self, phones: Tensor, bert: Tensor | None = None) -> Tensor:
        """phones: (B, X) ids; bert: (B, bert_dim, X), None for a network without BERT or for all-zero features."""
        x = self.ar_text_embedding(phones)
        if self.config.bert_dim:
            x = x + (self.bert_proj.bias if bert is None else self.bert_proj(bert.transpose(1, 2)))
        elif bert is not None:
            raise ValueError("this network was built without BERT features (bert_dim 0) but received some")
        return self.ar_text_position(x)  # (B, X, D)

    def embed_audio(self, tokens: Tensor, start: int = 0) -> Tensor:
        """tokens: (B, Y) ids whose first sits at audio position `start`."""
        return self.ar_audio_position(self.ar_audio_embedding(tokens), start)  # (B, Y, D)

    def forward(self, batch: TextAndTokens, upstream_padding: bool = False) -> Prediction:
        """Teacher forcing.

        `upstream_padding` reproduces GPT-SoVITS: the text mask of left padding over right-padded phones, the first
        prediction read at the last column whatever the row's length, and padded positions trained to predict the end.
        """
        phones, phone_lengths = batch.phones, batch.phone_lengths
        tokens, token_lengths = batch.tokens, batch.token_lengths
        text_columns = torch.arange(phones.shape[1], device=phones.device)
        audio_columns = torch.arange(tokens.shape[1], device=tokens.device)
        text_used = text_columns < phone_lengths[:, None]
        if upstream_padding:
            text_used = text_used.flip(1)
        audio_used = audio_columns < token_lengths[:, None]
        inputs = tokens.masked_fill(~audio_used, self.config.end_token)
        said = inputs if batch.heard is None else torch.where(audio_used, batch.heard, inputs)
        audio = self.embed_audio(said)
        if self.guide is not None:
            audio = audio + self.guide.teach(phones, phone_lengths, said)
        x = torch.cat([self.embed_text(phones, batch.bert), audio], dim=1)  # (B, X + Y, D)
        x = self.h(x, sequence_mask(text_used, audio_used))

        last_text = torch.full_like(phone_lengths, phones.shape[1]) if upstream_padding else phone_lengths
        first = x.gather(1, (last_text - 1)[:, None, None].expand(-1, 1, x.shape[2]))
        logits = self.ar_predict_layer(torch.cat([first, x[:, phones.shape[1] :]], dim=1))
        targets = F.pad(inputs, (0, 1), value=self.config.end_token)
        if not upstream_padding:
            outside = torch.arange(targets.shape[1], device=targets.device) > token_lengths[:, None]
            targets = targets.masked_fill(outside, IGNORED)
        return Prediction(logits, targets)

    def adaptable_modules(self) -> list[str]:
        """Names of the linear layers that LoRA adapts: the products of every transformer layer."""
        return [f"h.{name}" for name, module in self.h.named_modules() if isinstance(module, nn.Linear)]


def sequence_mask(text_used: Tensor, audio_used: Tensor) -> Tensor:
    """Who may look at whom, (B, 1, T, T), from the unpadded text (B, X) and audio (B, Y) positions.

    Padded queries see all text, so no row of the softmax is empty.
    """
    text, audio = text_used.shape[1], audio_used.shape[1]
    total = text + audio
    causal = torch.ones(total, total, dtype=torch.bool, device=text_used.device).tril()
    causal[:text, :text] = True
    return causal & torch.cat([text_used, audio_used], dim=1)[:, None, None, :]


def preference_loss(chosen: Prediction, rejected: Prediction, beta: float = 0.2) -> Tensor:
    """Reference-free DPO: mean over rows of -log sigmoid(beta * (log p(chosen) - log p(rejected)))."""
    return -F.logsigmoid(beta * (chosen.row_log_probability() - rejected.row_log_probability())).mean()


def make_rejected(tokens: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Spoil every row of tokens (B, Y) for preference training: a random stretch is said twice or left out.

    Returns zero-padded tokens (B, Y') and their lengths (B,). Draws on the CPU.
    """
    rows = []
    for row in tokens:
        is_loss = int(torch.randint(0, 2, (1,), generator=generator))
        start, end = torch.randint(0, len(row), (2,), generator=generator).sort().values.tolist()
        middle = [] if is_loss else [row[start:end], row[start:end]]
        rows.append(torch.cat([row[:start], *middle, row[end:]]))
    lengths = torch.tensor([len(row) for row in rows], device=tokens.device)
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths
