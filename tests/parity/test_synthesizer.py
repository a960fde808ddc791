"""The v2-family synthesizer against upstream's numbers: every fixture s2_v2*, small and full size."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from models.configs.synthesizer import HifiGanDecoderConfig, SynthesizerConfig
from models.learners.losses import kl_loss
from models.loading.bases import list_bases, load_base
from models.synthesizer.tokens import TrainingBatch
from models.synthesizer.vits import NO_NOISE, Noise, StreamPiece, Synthesizer

SMALL_TOLERANCE, FULL_TOLERANCE, GRADIENT_RELATIVE = 2e-5, 1e-4, 1e-3
NUMBERS = ("one", "two", "three", "four", "five")


def synthesizer_config(meta: dict[str, Any]) -> SynthesizerConfig:
    """Our config of the sizes a fixture was made with."""
    built, swapped = meta["config"]["constructor"], meta["config"]["swapped_constants"]
    decoder = HifiGanDecoderConfig(**{key: built[key] for key in HifiGanDecoderConfig.model_fields if key in built})
    same = {key: built[key] for key in SynthesizerConfig.model_fields if key in built}
    renamed = {"speaker_dim": swapped.get("sv_dim"), "segment_frames": built["segment_size"], "decoder": decoder}
    constants = {key: swapped[key] for key in ("ssl_dim", "codebook_size", "mrte_hidden", "style_hidden")}
    return SynthesizerConfig(**{**same, **constants, **renamed})


def tolerance_of(fixture: Any) -> float:
    return SMALL_TOLERANCE if fixture.weights else FULL_TOLERANCE


@pytest.fixture(scope="module")
def networks() -> dict[str, Synthesizer]:
    """Filled networks by fixture name, so that a full-size one is made once."""
    return {}


def network_of(fixture: Any, networks: dict[str, Synthesizer]) -> Synthesizer:
    if str(fixture) not in networks:
        networks.clear()  # one full-size network at a time in memory
        networks[str(fixture)] = fixture.load(Synthesizer(synthesizer_config(fixture.meta)))
    return networks[str(fixture)]


def speaker_of(fixture: Any, name: str) -> Tensor | None:
    return fixture[name] if fixture.has(name) else None


def references(fixture: Any, count: int) -> list[tuple[Tensor, Tensor | None]]:
    return [(fixture[f"refer{i}"], speaker_of(fixture, f"sv{i}")) for i in range(1, count + 1)]


@pytest.mark.state_dict("s2-v2")
def test_names_and_shapes_are_those_of_the_files(described: Any) -> None:
    version = described.meta["constructor"]["version"]
    base = next(b for b in map(load_base, list_bases()) if b.upstream_version == version)
    assert base.synthesizer is not None
    with torch.device("meta"):
        described.check(Synthesizer(base.synthesizer))


@pytest.mark.reference("s2_v2")
def test_training_forward_and_gradients(fixture: Any, networks: dict[str, Synthesizer]) -> None:
    network, tolerance = network_of(fixture, networks), tolerance_of(fixture)
    codes = network.extract_tokens(fixture["ssl"])
    out = network(
        TrainingBatch(
            fixture["spec"],
            fixture["spec_lengths"],
            fixture["text"],
            fixture["text_lengths"],
            codes,
            speaker_of(fixture, "sv"),
        ),
        noise=fixture["noise_q"],
        uniform=fixture["u_slice"],
    )
    ours = {
        "y_hat": out.wave,
        "ids_slice": out.starts,
        "y_mask": out.mask,
        **{name: getattr(out, name) for name in ("z", "z_p", "m_p", "logs_p", "m_q", "logs_q", "quantized")},
    }
    for name in fixture.outputs("train."):
        fixture.check(f"train.{name}", ours[name], tolerance)

    kl = kl_loss(out.z_p, out.logs_q, out.m_p, out.logs_p, out.mask)
    probe = (out.wave * fixture["probe"]).mean() * 100 + kl
    assert kl.item() == pytest.approx(fixture.meta["scalars"]["train.kl_loss"], rel=1e-5)
    assert probe.item() == pytest.approx(fixture.meta["scalars"]["train.probe_loss"], rel=1e-5)
    network.zero_grad(set_to_none=True)
    probe.backward()
    norms = {name: None if p.grad is None else p.grad.double().norm().item() for name, p in network.named_parameters()}
    network.zero_grad(set_to_none=True)
    expected = fixture.meta["grad_norms"]
    assert norms.keys() == expected.keys()
    assert {name for name in norms if norms[name] is None} == {name for name in expected if expected[name] is None}
    largest = max(value for value in expected.values() if value is not None)
    for name, value in expected.items():
        if value is not None:  # key biases have a gradient of zero up to rounding
            assert norms[name] == pytest.approx(value, rel=GRADIENT_RELATIVE, abs=1e-6 * largest), name


@pytest.mark.reference("s2_v2")
def test_tokens_of_content_features(fixture: Any, networks: dict[str, Synthesizer]) -> None:
    fixture.check("extract_latent", network_of(fixture, networks).extract_tokens(fixture["ssl"]), 0)


@pytest.mark.reference("s2_v2")
def test_reference_encoder(fixture: Any, networks: dict[str, Synthesizer]) -> None:
    network, spec = network_of(fixture, networks), fixture["refer1"]
    with torch.no_grad():
        style = network.ref_enc(spec[:, : network.config.style_bins], torch.tensor([spec.shape[-1]]))
    fixture.check("ref_enc", style, tolerance_of(fixture))


@pytest.mark.reference("s2_v2")
def test_decoding_with_one_and_two_references_speed_and_noise(fixture: Any, networks: dict[str, Synthesizer]) -> None:
    network = network_of(fixture, networks)
    codes, text = fixture["codes"], fixture["text"][:1]
    for name in fixture.outputs("decode."):
        count, options = decode_call(name)
        noise = Noise(fixture["noise_p"], options["noise"]) if options["noise"] else NO_NOISE
        wave = network.decode(codes, text, condition_of(network, fixture, count), noise, speed=options["speed"])
        fixture.check(f"decode.{name}", wave, tolerance_of(fixture))


def condition_of(network: Synthesizer, fixture: Any, count: int) -> Tensor:
    """Who speaks, by so many references: the mean of what each gives."""
    with torch.no_grad():
        each = [network.condition(spec, speaker=speaker) for spec, speaker in references(fixture, count)]
        return torch.stack(each).mean(0)


def decode_call(name: str) -> tuple[int, dict[str, float]]:
    """Number of references and options of `decode`, which an output's name tells: one_ref, speed1.25, noise0.5 ..."""
    told = {kind: float(value) for kind, value in re.findall(r"(speed|noise)([\d.]+)", name)}
    options = {"noise": told.get("noise", 0.0), "speed": told.get("speed", 1.0)}
    several = re.search(r"(\w+?)_refs", name)
    return NUMBERS.index(several[1]) + 1 if several else 1, options


def stream_call(fixture: Any) -> tuple[int, int, int]:
    """Tokens of the first piece, tokens that the second repeats, frames that are blended; from the json's `calls`."""
    told = fixture.meta["calls"]["stream.*"]
    match = re.search(
        r"codes\[\.\.\., :(\d+)\].*result_length=n_codes-\1\+(\d+), overlap_frames=\w+\[\.\.\., -(\d+):\]", told
    )
    assert match is not None, told
    first, repeated, blended = map(int, match.groups())
    return first, repeated, blended


@pytest.mark.reference("s2_v2")
def test_streaming_decode(fixture: Any, networks: dict[str, Synthesizer]) -> None:
    network, codes = network_of(fixture, networks), fixture["codes"]
    text = fixture["text"][:1]
    first_tokens, repeated_tokens, blended_frames = stream_call(fixture)
    ge = condition_of(network, fixture, 1)
    first, first_latent = network.decode_stream(
        codes[..., :first_tokens], text, ge, StreamPiece(first_tokens), NO_NOISE
    )
    rest = codes.shape[-1] - first_tokens + repeated_tokens
    piece = StreamPiece(rest, first_latent[..., -blended_frames:], "upstream")
    second, second_latent = network.decode_stream(codes, text, ge, piece, NO_NOISE)
    ours = {"first": first, "first_latent": first_latent, "second": second, "second_latent": second_latent}
    for name in fixture.outputs("stream."):
        fixture.check(f"stream.{name}", ours[name], tolerance_of(fixture))


@pytest.mark.reference("s2_v2", names="infer")
def test_resynthesis_of_a_recording_from_its_own_tokens(fixture: Any, networks: dict[str, Synthesizer]) -> None:
    """upstream's `infer`: the reference is the recording itself; the padded frames are masked."""
    network, lengths = network_of(fixture, networks), fixture["spec_lengths"][:1]
    codes = network.extract_tokens(fixture["ssl"][:1])
    with torch.no_grad():
        ge = network.condition(fixture["spec"][:1], lengths, speaker_of(fixture, "sv1"))
        latent, mask = network._encode(codes, fixture["text"][:1], ge, lengths, fixture["text_lengths"][:1])
        fixture.check("infer", network._speak(latent, mask, ge, NO_NOISE), tolerance_of(fixture))
