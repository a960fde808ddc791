"""Numbers of the content encoder: speech at 16 kHz to features at 50 Hz, and of its phone heads."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from models.configs.strict import StrictConfig
from models.configs.synthesizer import MelConfig

ARPABET = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY", "JH", "K",
    "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip
PHONE_CLASSES = ("SIL", *ARPABET)


class HubertConfig(StrictConfig):
    """A pretrained HuBERT folder (cn-hubert of GPT-SoVITS): the last hidden state is the feature."""

    kind: Literal["hubert"] = "hubert"
    ssl_dim: PositiveInt = 768


class PhoneEncoderConfig(StrictConfig):
    """HuBERT's transformer over log mels with phone heads: features are phone evidence and intonation.

    A feature is [sqrt of the phone posteriors | relative pitch, voicing, relative level], each times its weight.
    """

    kind: Literal["phones"] = "phones"
    mel: MelConfig = MelConfig(sample_rate_hz=16000, n_fft=512, win_samples=512, hop_samples=160, n_mels=64)
    channels: PositiveInt = 192
    front_blocks: PositiveInt = 3
    layers: PositiveInt = 3
    heads: PositiveInt = 4
    feedforward: PositiveInt = 512
    position_kernel: PositiveInt = 16
    position_groups: PositiveInt = 16
    dropout: float = Field(default=0.1, ge=0, lt=1)
    phones: tuple[str, ...] = PHONE_CLASSES  # classes of the frame head; the CTC head has a blank in place of SIL
    pitch_weight: float = 1.0
    voicing_weight: float = 0.5
    level_weight: float = 0.3

    @property
    def ssl_dim(self) -> int:
        return len(self.phones) + 3


ContentConfig = Annotated[HubertConfig | PhoneEncoderConfig, Field(discriminator="kind")]
