import pytest
import torch

from models.configs.speech_tokens import SpeechTokensConfig
from models.encoders.speech_tokens import FiniteScalarQuantizer, SpeechTokens

SMALL = SpeechTokensConfig(
    channels=32, front_blocks=1, layers=1, heads=2, feedforward=32, position_groups=4, reader_blocks=1, teacher_dim=5
)


@pytest.mark.parametrize("levels", [(8, 8, 8), (5, 4)])
def test_every_token_has_values_of_its_own_that_lead_back_to_it(levels):
    quantizer = FiniteScalarQuantizer(levels)
    tokens = torch.arange(quantizer.size)
    values = quantizer.values(tokens)
    assert len(torch.unique(values, dim=0)) == quantizer.size
    assert torch.equal(quantizer.tokens(values), tokens)
    assert values.abs().max() <= 1


def test_numbers_of_any_size_become_values_of_tokens_and_all_can_be_reached():
    quantizer = FiniteScalarQuantizer((8, 8, 8))
    line = torch.linspace(-3, 3, 61)
    rounded = quantizer(torch.cartesian_prod(line, line, line))
    torch.testing.assert_close(quantizer.values(quantizer.tokens(rounded)).float(), rounded)
    assert len(quantizer.tokens(rounded).unique()) == 512


def test_gradients_pass_the_rounding():
    x = torch.zeros(4, 3, requires_grad=True)
    FiniteScalarQuantizer((8, 8, 8))(x).sum().backward()
    assert (x.grad > 0).all()


@torch.no_grad()
def test_there_is_one_token_every_20_ms_and_a_louder_recording_has_nearly_the_same():
    torch.manual_seed(0)
    network = SpeechTokens(SMALL).eval()
    wave = torch.randn(1, 16319) * torch.sin(torch.arange(16319) / 900).abs()
    tokens = network(0.05 * wave)
    assert tokens.shape == (1, 50)
    assert (network(0.2 * wave) == tokens).float().mean() > 0.9
