"""How far the prior of an inverse-STFT base is from what is spoken: nano's training criterion, also in fine-tuning.

A likelihood alone prefers a prior that follows what varies most, which in recordings is the noise of their pauses. The
distances here are of the sound that the prior's mean would make, weighted by what can be heard of it.
Letters: B batch, Z latent channels, T frames, G width of the global condition, F bins.
"""

from torch import Tensor
from torch.nn import functional as F

from models.learners.losses import kl_loss
from models.sound.harmonics import PITCH_CHANNELS
from models.sound.spectrogram import expand, float32_region
from models.synthesizer.vits import Synthesizer
from models.synthesizer.wave_heads import IstftDecoder

AUDIBLE = 0.1  # magnitude below which differences count ever less
WEIGHTS = {"kl": 0.01, "latent": 2.0, "spectrum": 60.0, "pitch": 5.0, "voicing": 3.0}
LEAST_LOG_DEVIATION = -4.0


def can_judge_prior(network: Synthesizer) -> bool:
    """Whether the latent is a linear image of the spectrum with pitch in front, as these distances take it."""
    return network.config.pitch and isinstance(network.dec, IstftDecoder) and network.dec.skip is not None


def prior_losses(
    network: Synthesizer,
    z: Tensor,
    posterior: tuple[Tensor, Tensor],
    prior: tuple[Tensor, Tensor],
    mask: Tensor,
    ge: Tensor,
) -> dict[str, Tensor]:
    """The parts of the criterion, to be summed with `WEIGHTS`.

    Args:
        z: (B, Z, T), drawn from the posterior. posterior: mean and log deviation (B, Z, T). prior: the same before the
            flow. mask: (B, 1, T). ge: (B, G, 1).
    """
    (m_q, logs_q), (m_p, logs_p) = posterior, prior
    kl = kl_loss(network.flow(z, mask, ge), logs_q, m_p, logs_p.clamp(min=LEAST_LOG_DEVIATION), mask)
    predicted = network.flow(m_p * mask, mask, ge, reverse=True).float()
    apart = (predicted - m_q).abs() * mask
    voiced = mask * (m_q[:, 1:PITCH_CHANNELS] > 0)
    return {
        "kl": kl,
        "latent": apart.sum() / mask.sum() / m_q.shape[1],
        "spectrum": _audible_difference(network, predicted - m_q, m_q, mask),
        "pitch": (apart[:, :1] * voiced).sum() / voiced.sum().clamp(min=1),  # times LOG_F0_SPREAD: nepers
        "voicing": apart[:, 1:PITCH_CHANNELS].sum() / mask.sum(),
    }


def _audible_difference(network: Synthesizer, apart: Tensor, m_q: Tensor, mask: Tensor) -> Tensor:
    """What a difference of latents means in log magnitude, however quiet the sound: consonants are told by that."""
    decoder, magnitude = network.dec, network.config.magnitude
    assert isinstance(decoder, IstftDecoder) and decoder.skip is not None
    with float32_region(apart):
        envelope = expand(decoder.skip(m_q), magnitude)
        slope = (envelope + magnitude.floor) / (envelope + AUDIBLE)
        return ((F.conv1d(apart, decoder.skip.weight) * slope).abs() * mask).sum() / mask.sum() / slope.shape[1]
