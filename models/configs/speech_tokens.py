"""Numbers of the speech tokens that are learned from a teacher."""

from pydantic import Field, PositiveInt

from models.configs.content import PHONE_CLASSES, PhoneEncoderConfig


class SpeechTokensConfig(PhoneEncoderConfig):
    """An encoder of mels, its quantizer and the heads by which it learns."""

    channels: PositiveInt = 256
    feedforward: PositiveInt = 1024
    levels: tuple[PositiveInt, ...] = Field(default=(8, 8, 8), min_length=1)  # steps of each coordinate
    reader_blocks: PositiveInt = 3
    teacher_dim: PositiveInt = 512  # Whisper base
    classes: tuple[str, ...] = PHONE_CLASSES
