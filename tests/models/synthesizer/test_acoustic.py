"""The acoustic model that speaks through FARGAN, on recordings."""

import pytest
import soundfile
import torch

from models.configs.acoustic import AcousticConfig
from models.learners.acoustic import Passage, acoustic_losses
from models.sound.fargan import FEATURES, periods
from models.sound.fargan_analysis import analyse
from models.synthesizer.acoustic import (
    PERIODICITY,
    PITCH,
    VOICED,
    AcousticModel,
    Saying,
    interpolate,
    is_active,
    prosody_of,
    statistics,
)

SMALL = AcousticConfig(
    n_tokens=20, n_symbols=30, channels=32, hidden_channels=64, n_blocks=2, prosody_channels=16, prosody_blocks=1
)


def features_of(shared, clip: str) -> torch.Tensor:
    samples, rate = soundfile.read(shared / "data/voices" / clip, dtype="float32")
    assert rate == 16000
    features = analyse(torch.from_numpy(samples))
    return features[: len(features) // 2 * 2]


@pytest.fixture(scope="module")
def woman(shared):
    return features_of(shared, "en_arctic_slt/wavs/slt_arctic_a0001.wav")


@pytest.fixture(scope="module")
def man(shared):
    return features_of(shared, "en_vctk_p226/wavs/p226_003.wav")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return AcousticModel(SMALL).eval()


def passage_of(features: torch.Tensor, reference: torch.Tensor) -> Passage:
    frames = len(features) // 2
    generator = torch.Generator().manual_seed(1)
    said = Saying(
        torch.randint(20, (1, frames), generator=generator),
        torch.randint(30, (1, frames), generator=generator),
        torch.randn(1, frames, 2, generator=generator),
    )
    prosody = prosody_of(features, statistics(features))[None]
    return Passage(said, reference[None], features[None], prosody, torch.ones(1, len(features)))


def test_a_womans_pitch_is_higher_than_a_mans_and_both_are_those_of_voiced_speech(woman, man):
    hers, his = (16000 * 2 ** (statistics(one)[PITCH] + 1.5) / 256 for one in (woman, man))
    assert 160 < hers < 220
    assert 80 < his < 140


def test_prosody_is_given_back_as_the_pitch_it_was_taken_from(woman):
    own = statistics(woman)
    back = prosody_of(woman, own)[:, 0] * own[FEATURES + PITCH] + own[PITCH]
    voiced = (woman[:, PERIODICITY] > VOICED) & is_active(woman)
    assert voiced.float().mean() > 0.3
    assert torch.allclose(back[voiced], woman[voiced, PITCH], atol=1e-4)
    steps = back.diff().abs()
    assert steps[~voiced[1:] & ~voiced[:-1]].max() < 0.1  # in a line where nothing is voiced


def test_lines_go_from_one_known_value_to_the_next_and_level_outside():
    values = torch.tensor([9.0, 1.0, 9.0, 9.0, 4.0, 9.0])
    assert interpolate(values, torch.tensor([1, 4])).tolist() == [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]


def test_pitch_is_the_speakers_own_mean_and_spread_whatever_the_weights_are(network, woman, man):
    reference = statistics(man)
    passage = passage_of(woman, reference)
    with torch.no_grad():
        made = network(passage.said, passage.reference, passage.prosody)[0]
    assert made.shape == woman.shape
    wanted = reference[PITCH] + reference[FEATURES + PITCH] * passage.prosody[0, :, 0]
    assert torch.allclose(made[:, PITCH], wanted, atol=1e-5)
    assert periods(made).float().median() > 1.3 * periods(woman).float().median()  # longer periods: a man's


def test_what_lies_behind_the_end_of_a_passage_is_not_learned_from(network, woman):
    short = passage_of(woman[:200], statistics(woman))
    said = Saying(
        *(torch.cat([one, one[:, -1:].expand(-1, 9, *one.shape[2:])], 1) for one in vars(short.said).values())
    )
    ends = [torch.cat([one, torch.full((1, 18, one.shape[2]), 50.0)], 1) for one in (short.features, short.prosody)]
    longer = Passage(said, short.reference, *ends, torch.cat([short.inside, torch.zeros(1, 18)], 1))
    with torch.no_grad():
        one, other = acoustic_losses(network, short), acoustic_losses(network, longer)
    for name in one:  # blocks see a little of what follows, so the last frames differ slightly
        assert float(other[name]) == pytest.approx(float(one[name]), rel=0.05)


@pytest.mark.slow
def test_it_learns_a_recording(woman):
    torch.manual_seed(0)
    network = AcousticModel(SMALL)
    passage = passage_of(woman[:200], statistics(woman))
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        found = acoustic_losses(network, passage, own=torch.zeros(1))
        optimizer.zero_grad()
        sum(found.values()).backward()
        optimizer.step()
        losses.append({name: float(value.detach()) for name, value in found.items()})
    assert losses[-1]["features"] < 0.7 * losses[0]["features"]
    assert losses[-1]["prosody"] < 0.7 * losses[0]["prosody"]
