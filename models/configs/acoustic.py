"""Numbers of the acoustic model that speaks through FARGAN."""

from pydantic import Field, PositiveInt

from models.configs.strict import StrictConfig
from models.configs.text2semantic import GuideConfig


class AcousticConfig(StrictConfig):
    """What is said and how, and by whom, to the 20 numbers every 10 ms that FARGAN speaks from."""

    n_symbols: PositiveInt = 732
    n_tokens: PositiveInt = 512
    channels: PositiveInt = 256
    hidden_channels: PositiveInt = 768
    n_blocks: PositiveInt = 8
    kernel_size: PositiveInt = 7
    condition_channels: PositiveInt = 128
    prosody_channels: PositiveInt = 128  # of the head that predicts pitch and energy
    prosody_blocks: PositiveInt = 4
    dropout: float = Field(default=0.1, ge=0, lt=1)


class FarganSynthesizerConfig(StrictConfig):
    """A synthesizer that speaks through FARGAN: how tokens are heard, what they say, and the acoustic model."""

    ssl_dim: PositiveInt = 43
    frames_per_token: PositiveInt = 2
    reader: GuideConfig = GuideConfig()
    acoustic: AcousticConfig = AcousticConfig()
