"""Numbers of the ERes2NetV2 speaker encoder and its Kaldi filter bank (docs/networks/signals.md)."""

from pydantic import PositiveInt

from models.configs.strict import StrictConfig


class FbankConfig(StrictConfig):
    """Kaldi's log mel filter bank on samples in [-1, 1], without dither and without mean subtraction."""

    sample_rate_hz: PositiveInt = 16000
    frame_samples: PositiveInt = 400
    hop_samples: PositiveInt = 160
    fft_samples: PositiveInt = 512
    mel_bins: PositiveInt = 80
    low_hz: float = 20.0
    high_hz: float | None = None  # None: half the sample rate
    preemphasis: float = 0.97
    log_floor: float = 1.1920929e-07


class SpeakerEncoderConfig(StrictConfig):
    """ERes2NetV2 w24 s4 ep4, as trained by 3D-Speaker."""

    mel_bins: PositiveInt = 80
    channels: PositiveInt = 64
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (3, 4, 6, 3)
    base_width: PositiveInt = 24
    scale: PositiveInt = 4
    expansion: PositiveInt = 4
    embedding_channels: PositiveInt = 192

    @property
    def feature_channels(self) -> int:
        """Width of the vector that v2Pro takes: channels times frequency rows of the last stage, 20480 at full size."""
        return self.channels * 8 * self.expansion * -(-self.mel_bins // 8)
