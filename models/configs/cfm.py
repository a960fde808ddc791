"""Numbers of GPT-SoVITS v3 and v4: the encoder they share with v2 and the flow-matching decoder
(docs/networks/flow-matching.md)."""

from pydantic import Field, PositiveInt

from models.configs.strict import StrictConfig
from models.configs.synthesizer import MelConfig, SynthesizerConfig


class DiTConfig(StrictConfig):
    """The velocity estimator: a diffusion transformer over mel frames."""

    mel_channels: PositiveInt = 100
    condition_channels: PositiveInt = 512
    dim: PositiveInt = 1024
    depth: PositiveInt = 22
    heads: PositiveInt = 16
    head_dim: PositiveInt = 64
    ff_mult: PositiveInt = 2
    condition_layers: PositiveInt = 4
    dropout: float = Field(default=0.1, ge=0, lt=1)
    time_channels: PositiveInt = 256  # sinusoid in front of the two time embeddings
    time_scale: float = 1000.0
    max_positions: PositiveInt = 4096  # rows of the condition's position table; later frames reuse the last row
    position_kernel: PositiveInt = 31
    position_groups: PositiveInt = 16


class FlowMatchingConfig(StrictConfig):
    """How the estimator is trained: flow matching, with a part of the steps teaching it to take long steps."""

    shortcut_probability: float = Field(default=0.3, ge=0, le=1)  # per batch
    shortcut_exponent_min: PositiveInt = 2
    shortcut_exponent_max: PositiveInt = 7
    shortcut_smallest_step: float = 0.01  # shorter ones are shown to the estimator as 0, the plain step


class CfmSynthesizerConfig(StrictConfig):
    """Everything `models.synthesizer.cfm_synthesizer.CfmSynthesizer` needs. Defaults are those of v4."""

    encoder: SynthesizerConfig = SynthesizerConfig()  # its flow, posterior encoder and decoder do not exist here
    mel: MelConfig = MelConfig(n_fft=1280, win_samples=1280, hop_samples=320, n_mels=100)
    bridge_channels: PositiveInt = 512
    condition_layers: PositiveInt = 8  # of the WaveNet stack over the upsampled features
    condition_kernel: PositiveInt = 5
    frames_ratio: float = 2.0  # mel frames per 50 Hz frame: 2 in v4, 1.875 in v3
    mask_frames_per_token: float = 4.0  # 4 in v4; 3.875 in v3, above the true 3.75, so that the mask never cuts
    prompt_fraction: float = Field(default=2 / 3, gt=0, lt=1)  # longest prompt in training, of the clip
    prompt_frames: PositiveInt = 500  # of the reference at synthesis, its last ones [T_ref]
    chunk_frames: PositiveInt = 1000  # prompt and new frames of one pass of the sampler [T_chunk]
    sampling_steps: PositiveInt = 8
    dit: DiTConfig = DiTConfig()
    flow: FlowMatchingConfig = FlowMatchingConfig()
