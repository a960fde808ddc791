"""What a text front end returns: phones, and how they belong to the text."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

Language = Literal["zh", "en", "ja", "ko", "yue"]


class LanguageSpan(BaseModel):
    """A stretch of text read in one language; ``symbols[first_symbol:last_symbol]`` come from ``normalised_text``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    language: Language
    text: str
    normalised_text: str
    first_symbol: int
    last_symbol: int  # exclusive
    word2ph: tuple[int, ...] | None  # phones per character of normalised_text; zh and yue only


class Phones(BaseModel):
    """Phones of one sentence.

    ``word2ph`` counts the phones of every character of ``normalised_text``, where every span has one (zh, yue).
    ``unknown`` are the characters that no rule could read, in order of appearance, each once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbols: tuple[str, ...]
    word2ph: tuple[int, ...] | None
    normalised_text: str
    unknown: tuple[str, ...]
    spans: tuple[LanguageSpan, ...]

    @property
    def bert_spans(self) -> tuple[tuple[str, tuple[int, ...] | None, int], ...]:
        """Normalised text, phones per character and phones of every span; only Mandarin has BERT features."""
        return tuple(
            (
                span.normalised_text,
                span.word2ph if span.language == "zh" else None,
                span.last_symbol - span.first_symbol,
            )
            for span in self.spans
        )

    @model_validator(mode="after")
    def _counts_agree(self) -> Phones:
        if self.word2ph is not None:
            if sum(self.word2ph) != len(self.symbols):
                raise ValueError(f"word2ph counts {sum(self.word2ph)} phones, there are {len(self.symbols)}")
            if len(self.word2ph) != len(self.normalised_text):
                raise ValueError(f"word2ph has {len(self.word2ph)} entries for {len(self.normalised_text)} characters")
        return self
