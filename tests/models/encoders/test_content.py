"""The small content encoder: its grid, its features, its phone heads, and that it hears no level and no speaker."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.configs.content import HubertConfig, PhoneEncoderConfig
from models.encoders.content import MAX_FRAMES, PhoneEncoder, build_content_encoder
from models.errors import WeightsError

SMALL = PhoneEncoderConfig(channels=32, front_blocks=1, layers=1, heads=2, feedforward=32, position_groups=4)


@pytest.fixture(scope="module")
def encoder() -> PhoneEncoder:
    torch.manual_seed(0)
    return PhoneEncoder(SMALL).eval()


def speech_like(seconds: float) -> torch.Tensor:
    rng = np.random.default_rng(0)
    t = np.arange(int(16000 * seconds)) / 16000
    tone = np.sin(2 * np.pi * (150 + 20 * np.sin(5 * t)) * t) * (np.sin(7 * t) > 0)
    return torch.from_numpy((0.2 * tone + 0.01 * rng.standard_normal(len(t))).astype(np.float32))[None]


@pytest.mark.parametrize("samples", [16000, 16001, 16319, 20480])
@torch.no_grad()
def test_there_is_one_feature_per_hop_of_320_samples(encoder, samples):
    features = encoder(speech_like(2.0)[:, :samples])
    assert features.shape == (1, SMALL.ssl_dim, samples // 320)


@torch.no_grad()
def test_features_begin_with_phone_posteriors_that_sum_to_one(encoder):
    features = encoder(speech_like(1.0))
    posteriors = features[:, : len(SMALL.phones)].square().sum(1)
    torch.testing.assert_close(posteriors, torch.ones_like(posteriors))


@torch.no_grad()
def test_a_louder_recording_has_the_same_features(encoder):
    wave = speech_like(1.0)
    torch.testing.assert_close(encoder(wave), encoder(4 * wave), atol=2e-2, rtol=0)


@torch.no_grad()
def test_relative_pitch_ignores_whose_pitch_it_is(encoder):
    t = torch.arange(32000) / 16000
    rising = 2 * torch.pi * (t + 0.05 * t**2)

    def voice(pitch_hz: float) -> torch.Tensor:
        return sum(torch.cos(k * pitch_hz * rising) / k for k in range(1, 8))[None] * 0.1

    low, high = (encoder(voice(pitch))[0, len(SMALL.phones), 8:-8] for pitch in (110.0, 200.0))
    assert (low - high).abs().max() < 0.15 * (low.max() - low.min())
    assert low[-1] > low[0] + 0.3


@torch.no_grad()
def test_long_speech_is_encoded_in_pieces_of_bounded_length(encoder):
    wave = speech_like((MAX_FRAMES + 20) * 0.02)
    assert encoder(wave).shape[2] == MAX_FRAMES + 20


def test_the_recogniser_returns_phones_of_the_table(encoder):
    assert set(encoder.recognise(speech_like(1.0)[0])) <= set(SMALL.phones[1:])


def test_a_pretrained_hubert_needs_its_folder(tmp_path):
    with pytest.raises(WeightsError, match="folder"):
        build_content_encoder(HubertConfig())
    with pytest.raises(WeightsError, match=r"config\.json"):
        build_content_encoder(HubertConfig(), tmp_path)


@torch.no_grad()
def test_the_transformer_gives_what_transformers_gives_with_the_same_weights():
    """Ours is imported in a fraction of the time; names of parameters and every output must stay the same."""
    from models.compat import prepare_torchaudio

    prepare_torchaudio()
    from transformers import HubertConfig as TheirConfig
    from transformers import HubertModel

    torch.manual_seed(1)
    ours = PhoneEncoder(SMALL).eval()
    theirs = HubertModel(
        TheirConfig(
            hidden_size=SMALL.channels,
            num_hidden_layers=SMALL.layers,
            num_attention_heads=SMALL.heads,
            intermediate_size=SMALL.feedforward,
            conv_dim=(SMALL.channels,),
            conv_kernel=(1,),
            conv_stride=(1,),
            num_conv_pos_embeddings=SMALL.position_kernel,
            num_conv_pos_embedding_groups=SMALL.position_groups,
        )
    ).eval()
    theirs.feature_extractor = ours.front
    theirs.load_state_dict(ours.hubert.state_dict())
    wave = speech_like(1.3)
    torch.testing.assert_close(ours.hubert(wave), theirs(wave).last_hidden_state, atol=2e-6, rtol=1e-5)


def test_a_pretrained_hubert_gives_what_transformers_gives_from_the_same_files(tmp_path):
    from models.compat import prepare_torchaudio

    prepare_torchaudio()
    from transformers import HubertConfig as TheirConfig
    from transformers import HubertModel

    torch.manual_seed(2)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    front = {"conv_dim": (24, 24, 24), "conv_kernel": (10, 3, 2), "conv_stride": (5, 2, 2)}
    theirs = HubertModel(TheirConfig(**sizes, **front, num_conv_pos_embedding_groups=4)).eval()
    theirs.save_pretrained(tmp_path)
    ours = build_content_encoder(HubertConfig(), tmp_path)
    wave = speech_like(0.5)
    with torch.no_grad():
        expected = theirs(wave).last_hidden_state.transpose(1, 2)
        torch.testing.assert_close(ours(wave), expected, atol=1e-5, rtol=1e-5)
        _write_older_names(tmp_path)
        torch.testing.assert_close(
            build_content_encoder(HubertConfig(), tmp_path)(wave), expected, atol=1e-5, rtol=1e-5
        )


def _write_older_names(folder):
    state = load_file(folder / "model.safetensors")
    renamed = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for name, value in state.items()
    }
    assert renamed.keys() != state.keys()
    save_file(renamed | {"final_proj.weight": torch.zeros(2)}, folder / "model.safetensors")


@pytest.mark.parametrize("change", [{"do_stable_layer_norm": True}, {"hidden_size": "wide"}, {"conv_dim": None}])
def test_another_kind_of_hubert_is_refused_by_name(tmp_path, change):
    plain = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    conv = {"conv_dim": [8], "conv_kernel": [2], "conv_stride": [2]}
    position = {"num_conv_pos_embeddings": 2, "num_conv_pos_embedding_groups": 1}
    (tmp_path / "config.json").write_text(json.dumps(plain | conv | position | change))
    save_file({"encoder.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="HuBERT"):
        build_content_encoder(HubertConfig(), tmp_path)
