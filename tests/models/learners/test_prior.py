"""Fine-tuning nano: only the speaker's ways into the prior learn, and copies stay what they are."""

from pathlib import Path

import pytest
import soundfile
import torch

from models.adapters.lora import adapter_parameters, adapter_state, adapters_off, inject, scaled, set_adapter_state
from models.clip_tensors import ClipTensors
from models.learners.prior import PriorLearner, with_decided_voicing
from models.learners.vits import Text2SemanticLearner
from models.loading.bases import load_base
from models.loading.networks import load_content_encoder, load_synthesizer, load_text2semantic
from models.sound.spectrogram import Spectrogram

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clips(shared):
    """Two recordings of a speaker that nano never met, 2.4 s each."""
    base, found = load_base("nano"), []
    encoder, network = load_content_encoder(base, Path()), load_synthesizer(base, Path())
    for name in ("p226_003", "p226_005"):
        samples, _ = soundfile.read(shared / f"data/voices/en_vctk_p226/wavs/{name}.wav", dtype="float32")
        wave = torch.from_numpy(samples[8000 : 8000 + 120 * 320])
        content = encoder(wave[None])
        found.append(
            ClipTensors(
                wave=wave,
                acoustic_features=Spectrogram(base.synthesizer.spectrogram)(wave[None])[0, :, :120],
                tokens=network.extract_tokens(content[:, :, :120])[0, 0],
                phones=torch.randint(1, 80, (20,), generator=torch.Generator().manual_seed(1)),
                speaker=torch.nn.functional.normalize(
                    torch.rand(256, generator=torch.Generator().manual_seed(2)), dim=0
                ),
            )
        )
    return found


@pytest.fixture
def learner():
    learner = PriorLearner(load_synthesizer(load_base("nano"), Path()), CPU)
    inject(learner.network, learner.targets(), 4, 8.0)
    return learner


def test_adapters_go_where_the_speaker_enters_the_prior():
    learner = PriorLearner(load_synthesizer(load_base("nano"), Path()), CPU)
    targets = learner.targets()
    assert "ge_to512" in targets
    assert {name.rpartition(".")[2] for name in targets} == {"ge_to512", "cond_layer"}
    assert all(f"{name}.".startswith(learner.groups["prior"]) for name in targets)


def test_a_few_steps_come_nearer_to_clips_and_leave_copies_alone(learner, clips):
    network = learner.network
    optimizer = torch.optim.AdamW(adapter_parameters(network), lr=6e-3)
    before = learner.heldout_losses(clips)["prior"]
    for step in range(4):
        network.train()
        optimizer.zero_grad()
        learner.step_loss(clips, [step, step + 100], 2.0).total.backward()
        optimizer.step()
    network.eval()
    assert learner.heldout_losses(clips)["prior"] < before - 0.05
    spec, speaker = clips[0].acoustic_features[None], clips[0].speaker[None]
    copies = []
    for _ in range(2):
        copies.append(network.copy_synthesis(spec, network.condition(spec, speaker=speaker)))
        with adapters_off(network):
            copies.append(network.copy_synthesis(spec, network.condition(spec, speaker=speaker)))
    assert all(torch.equal(copies[0], copy) for copy in copies[1:])


def test_losses_of_a_batch_are_those_of_its_parts(learner, clips):
    learner.network.eval()  # no dropout
    whole = learner.step_loss(clips, [1, 2], 2.0).total.item()
    parts = [learner.step_loss([clip], [seed], 2.0).total.item() for clip, seed in zip(clips, (1, 2), strict=True)]
    assert whole == pytest.approx(sum(parts), rel=5e-3)  # pitch is a mean over voiced frames, wherever they are


def test_a_guided_text_to_semantic_network_is_not_fine_tuned():
    assert Text2SemanticLearner(load_text2semantic(load_base("nano"), Path()), CPU).rate_factor == 0


def test_half_of_an_adapter_changes_the_network_by_half(learner):
    with torch.no_grad():
        for parameter in adapter_parameters(learner.network):
            parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    layer, x = learner.network.ge_to512, torch.ones(1, learner.network.config.gin_channels)
    with adapters_off(learner.network):
        bare = layer(x)
    whole = layer(x) - bare
    set_adapter_state(learner.network, scaled(adapter_state(learner.network), 0.5), "half")
    torch.testing.assert_close(layer(x) - bare, whole / 2, rtol=1e-3, atol=1e-5)


def test_voicing_is_learned_as_decided_and_nothing_else_changes():
    mean = torch.linspace(-1, 1, 60).reshape(1, 3, 20)
    mean[0, 1] = torch.linspace(-1, 1, 20)
    decided = with_decided_voicing(mean)
    assert torch.equal(decided[:, [0, 2]], mean[:, [0, 2]])
    assert decided[0, 1].abs().min() > 0.2 and (decided[0, 1].sign() == mean[0, 1].sign()).all()
    assert (decided[0, 1].abs() == 1).sum() >= 14
