"""The numbers of the text-to-semantic network and its sampler. Free of torch, so that bases are listed cheaply."""

from pydantic import Field, model_validator

from models.configs.content import PHONE_CLASSES
from models.configs.strict import StrictConfig


class SamplingConfig(StrictConfig):
    """How the next semantic token is drawn. The defaults are those GPT-SoVITS uses for inference."""

    top_k: int = Field(default=15, ge=0, description="0 keeps every token")
    top_p: float = Field(default=1.0, gt=0, le=1)
    temperature: float = Field(default=1.0, ge=0)
    repetition_penalty: float = Field(default=1.35, gt=0)
    candidates: int = Field(default=1, ge=1, description="drawn together; the one that says the text best is kept")
    min_tokens: int = Field(default=11, ge=0, description="the end token cannot be drawn before this many tokens")
    max_tokens: int = Field(default=1500, ge=1, description="generation is cut here and reported as truncated")


class GuideConfig(StrictConfig):
    """How the network and its sampler follow the text (`models/text2semantic/guidance.py`); for codes that tell their
    phone."""

    classes: tuple[str, ...] = Field(default=PHONE_CLASSES, description="of the content encoder, silence first")
    longest_tokens: int = Field(default=14, ge=1, description="a phone that lasts longer counts as lasting this long")
    embedding_dim: int = Field(default=64, ge=1)
    strength: float = Field(default=1.0, ge=0, description="of the sampler's respect for the text; 0 for none")
    # What recordings do not pass (`models.text2semantic.coverage.Coverage`), so that generated tokens must not either:
    longest_gap: int = Field(default=3, ge=0, description="phones in a row that no token says")
    longest_addition: int = Field(default=8, ge=0, description="tokens in a row that say nothing of the text")
    largest_error_rate: float = Field(default=0.6, ge=0, description="edits per phone")


class Text2SemanticConfig(StrictConfig):
    """Sizes of one text-to-semantic transformer. The defaults are GPT-SoVITS `s1longer-v2` (also `s1v3`)."""

    phoneme_vocab_size: int = Field(default=732, ge=1)
    vocab_size: int = Field(default=1025, ge=2, description="semantic tokens plus the end token, which is the last one")
    hidden_dim: int = Field(default=512, ge=2)
    heads: int = Field(default=16, ge=1)
    layers: int = Field(default=24, ge=1)
    feedforward_dim: int = Field(default=2048, ge=1)
    bert_dim: int = Field(default=1024, ge=0, description="width of the BERT features; 0 builds a network without them")
    embedding_dropout: float = Field(default=0.0, ge=0, lt=1)
    position_dropout: float = Field(default=0.1, ge=0, lt=1)
    dropout: float = Field(default=0.1, ge=0, lt=1, description="inside the layers")
    attention_dropout: float = Field(default=0.1, ge=0, lt=1, description="on the attention weights")
    token_rate_hz: float = Field(default=25.0, gt=0)
    max_duration_s: float = Field(default=54.0, gt=0, description="longest clip used in training")
    prompted: bool = Field(default=True, description="whether it continues the tokens of a reference clip")
    guide: GuideConfig | None = Field(default=None, description="only for a network that is not prompted")
    sampling: SamplingConfig = Field(default=SamplingConfig(), description="used unless a caller asks otherwise")

    @property
    def end_token(self) -> int:
        return self.vocab_size - 1

    @model_validator(mode="after")
    def _check_heads(self) -> "Text2SemanticConfig":
        if self.hidden_dim % self.heads or self.hidden_dim % 2:
            raise ValueError(f"hidden_dim {self.hidden_dim} must be even and divisible by heads {self.heads}")
        if self.guide and self.prompted:
            raise ValueError("a guide follows one text from its first token: it needs prompted: false")
        return self
