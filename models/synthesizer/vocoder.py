"""The v4 vocoder: the decoder of v2 on mels, without a speaker (docs/networks/flow-matching.md)."""

from models.blocks.weight_norm import fold_weight_norm
from models.configs.vocoder import AnyVocoderConfig, VocoderConfig
from models.synthesizer.bigvgan import BigVGAN
from models.synthesizer.wave_heads import HifiGanDecoder


class MelVocoder(HifiGanDecoder):
    """(B, mel_channels, L) natural-log mel -> (B, 1, L * hop_samples) in [-1, 1]."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__(config.decoder, config.mel_channels)
        if not config.weight_norm:
            fold_weight_norm(self)  # the published file holds plain weights


def build_vocoder(config: AnyVocoderConfig) -> MelVocoder | BigVGAN:
    """The vocoder a base asks for."""
    return MelVocoder(config) if isinstance(config, VocoderConfig) else BigVGAN(config)
