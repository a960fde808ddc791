"""Fine-tuning: exact after any stop, never on held-out clips, kept only where it helped."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.adapters.lora import adapter_state, load_adapter
from models.configs.synthesizer import DiscriminatorConfig, ScaleLayer
from models.families.vits import load_synthesizer
from models.learners.discriminator import Discriminator
from models.learners.vits import SynthesizerLearner
from models.loading.bases import find_base
from pipeline.errors import OutOfMemoryError, TransientError
from pipeline.records.feature import ClipFeatures
from pipeline.records.settings import FinetuneSettings
from pipeline.stages import finetune

pytestmark = pytest.mark.slow

FILES = ("adapter/text2semantic/adapter_model.safetensors", "adapter/synthesizer/adapter_model.safetensors")


@pytest.fixture(scope="module", autouse=True)
def short_epochs():
    """Two steps per epoch instead of eight: what is tested does not depend on how many there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "CLIPS_PER_EPOCH", 8)
        yield


def a_clip(name: str, *, duration_s: float = 4.0, split: str | None = None) -> ClipFeatures:
    return ClipFeatures(
        clip=name, file=f"clips/{name}.flac", text="Hello.", language="en", duration_s=duration_s, frames=200, tokens=100, symbols=("HH",),
        content_sha256=(name * 64)[:64], split=split,
    )  # fmt: skip


def weights(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def uninterrupted(walked, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    finetune.work(walked.finetune_job(folder))
    return folder


class TestHeldOutClips:
    def test_the_same_recordings_are_held_out_whatever_they_are_called(self) -> None:
        clips = [a_clip(letter) for letter in "abcdefgh"]
        renamed = [clip.model_copy(update={"clip": f"{9 - i}.wav"}) for i, clip in enumerate(clips)]
        assert finetune.choose_heldout(clips, 3, seed=1) == finetune.choose_heldout(renamed, 3, seed=1)
        assert finetune.choose_heldout(clips, 3, seed=1) != finetune.choose_heldout(clips, 3, seed=2)

    def test_adding_a_clip_moves_at_most_one(self) -> None:
        clips = [a_clip(letter) for letter in "abcdefghijk"]
        before = {clips[i].clip for i in finetune.choose_heldout(clips[:-1], 3, seed=1)}
        after = {clips[i].clip for i in finetune.choose_heldout(clips, 3, seed=1)}
        assert len(before - after) <= 1

    def test_clips_marked_test_are_held_out_and_no_others(self) -> None:
        clips = [a_clip("a"), a_clip("b", split="test"), a_clip("c"), a_clip("d", split="test")]
        assert finetune.choose_heldout(clips, 1, seed=1) == [1, 3]

    def test_a_voice_that_marks_too_few_is_judged_on_drawn_clips_too(self) -> None:
        clips = [a_clip(letter) for letter in "abcdefghi"]
        clips[4] = a_clip("e", split="test")
        chosen = finetune.choose_heldout(clips, 3, seed=1)
        assert len(chosen) == 3
        assert 4 in chosen

    def test_something_is_always_left_to_train_on(self) -> None:
        clips = [a_clip(letter) for letter in "abc"]
        assert len(finetune.choose_heldout(clips, 50, seed=1)) == 1

    def test_no_held_out_clip_is_ever_in_a_batch(self, walked, tmp_path: Path, monkeypatch) -> None:
        seen: set[int] = set()
        original = finetune.Training._accumulate

        def watch(self, clips):
            seen.update(clip.tokens.data_ptr() for clip in clips)
            return original(self, clips)

        loaded = []
        load = finetune.load_clips
        monkeypatch.setattr(finetune, "load_clips", lambda *a: loaded.append(load(*a)) or loaded[-1])
        monkeypatch.setattr(finetune.Training, "_accumulate", watch)
        record = finetune.work(walked.finetune_job(tmp_path, epochs=1))
        names = [clip.clip for clip in walked.outcomes["extract"].record.clips]
        trained = {name for name, clip in zip(names, loaded[0], strict=True) if clip.tokens.data_ptr() in seen}
        assert trained == set(record.training_clips)
        assert not trained & set(record.heldout_clips)
        assert len(record.heldout_clips) == 2


class TestResuming:
    @pytest.mark.parametrize("steps", [1, 6])
    def test_a_stopped_run_ends_in_the_same_weights(self, walked, tmp_path, uninterrupted, steps) -> None:
        asked = 0

        def is_stopping() -> bool:
            nonlocal asked
            asked += 1
            return asked == steps

        with pytest.raises(TransientError) as stopped:
            finetune.work(walked.finetune_job(tmp_path, is_stopping))
        assert stopped.value.exit_code == 75
        finetune.work(walked.finetune_job(tmp_path, is_stopping))
        assert weights(tmp_path) == weights(uninterrupted)

    def test_kill_9_in_the_middle_loses_nothing_but_time(self, walked, tmp_path, uninterrupted) -> None:
        child = os.fork()
        if child == 0:
            asked = 0

            def kill_at_the_sixth_step() -> bool:
                nonlocal asked
                asked += 1
                if asked == 6:
                    os.kill(os.getpid(), signal.SIGKILL)
                return False

            finetune.work(walked.finetune_job(tmp_path, kill_at_the_sixth_step))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert (tmp_path / "checkpoint" / "text2semantic.safetensors").exists()
        finetune.work(walked.finetune_job(tmp_path))
        assert weights(tmp_path) == weights(uninterrupted)

    def test_a_damaged_checkpoint_is_not_trusted(self, walked, tmp_path, uninterrupted) -> None:
        job = walked.finetune_job(tmp_path)
        (job.checkpoint / "text2semantic.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      half")
        finetune.work(job)
        assert weights(tmp_path) == weights(uninterrupted)

    def test_the_checkpoint_of_another_job_is_not_continued(self, walked, tmp_path, uninterrupted) -> None:
        """What somebody laid there for another voice, or for other settings, is a whole checkpoint all the same."""
        other, told = walked.finetune_job(tmp_path / "other", lambda: True, seed=7), []
        with pytest.raises(TransientError):
            finetune.work(replace(other, key="1" * 32))
        job = walked.finetune_job(tmp_path / "own")
        shutil.copytree(other.checkpoint, job.checkpoint, dirs_exist_ok=True)
        reporter = type(job.reporter)()
        reporter.log = told.append
        finetune.work(replace(job, reporter=reporter))
        assert weights(tmp_path / "own") == weights(uninterrupted)
        assert "text2semantic.safetensors: warning: the checkpoint is of another job; training begins anew" in told


class TestDiscriminator:
    """A base that has one trains it along; it stays out of the adapter and in the checkpoint."""

    SMALL = DiscriminatorConfig(
        periods=(2,), scale_layers=(ScaleLayer(channels=4, kernel_size=5, stride=4, groups=1),), period_channels=(4, 4)
    )

    def training(self, walked) -> finetune.Training:
        base = find_base("tiny", walked.root / "bases")
        torch.manual_seed(1)
        cpu = torch.device("cpu")
        learner = SynthesizerLearner(load_synthesizer(base, walked.root), Discriminator(self.SMALL), cpu)
        settings = FinetuneSettings(epochs=2, rank=2, batch_size=4, checkpoint_every_s=0.001)
        return finetune.Training("synthesizer", learner, settings, torch.float32)

    def test_a_stopped_run_ends_in_the_same_weights(self, walked, tmp_path) -> None:
        inputs = {stage: walked.input(stage) for stage in ("validate", "extract")}
        clips = finetune.load_clips(inputs, find_base("tiny", walked.root / "bases"), torch.device("cpu"))
        ended = []
        for name, stops in (("straight", []), ("stopped", [3])):
            training, count = self.training(walked), iter(range(100))
            before = {key: value.clone() for key, value in training.learner.critic.network.state_dict().items()}

            def is_stopping(count=count, stops=stops) -> bool:
                return next(count) + 1 in stops

            checkpoint = finetune.Checkpoint(tmp_path / name, "", print)
            for _ in range(1 + len(stops)):
                try:
                    list(training.run(clips[1:], clips[:1], checkpoint, is_stopping))
                except TransientError:
                    training = self.training(walked)
            critic = training.learner.critic.network.state_dict()
            assert any(not torch.equal(value, before[key]) for key, value in critic.items())
            ended.append((adapter_state(training.learner.network), critic))
        for straight, stopped in zip(*ended, strict=True):
            assert straight.keys() == stopped.keys()
            assert all(torch.equal(value, stopped[key]) for key, value in straight.items())


class TestMemory:
    @pytest.fixture
    def small_memory(self, monkeypatch):
        """Room for so many clips at a time and no more."""

        def limit(clips: int) -> None:
            original = finetune.Text2SemanticLearner.step_loss

            def step_loss(self, batch, seeds, weight):
                if len(batch) > clips:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                return original(self, batch, seeds, weight)

            monkeypatch.setattr(finetune.Text2SemanticLearner, "step_loss", step_loss)

        return limit

    def test_the_micro_batch_is_halved_and_the_effective_batch_kept(self, walked, tmp_path, small_memory) -> None:
        small_memory(2)
        part = finetune.work(walked.finetune_job(tmp_path, epochs=1)).parts[0]
        assert (part.batch_size, part.micro_batch, part.steps) == (4, 2, 2)

    def test_with_one_clip_too_many_it_is_exit_20(self, walked, tmp_path, small_memory) -> None:
        small_memory(0)
        with pytest.raises(OutOfMemoryError) as error:
            finetune.work(walked.finetune_job(tmp_path))
        assert error.value.exit_code == 20

    def test_another_runtime_error_is_not_taken_for_memory(self) -> None:
        assert finetune.is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
        assert not finetune.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


class TestWhatIsKept:
    def test_training_lowers_the_held_out_loss_and_the_curve_says_so(self, walked, tmp_path) -> None:
        record = finetune.work(walked.finetune_job(tmp_path, epochs=3))
        for part in record.parts:
            assert part.trainable_parameters < part.frozen_parameters
            # of random numbers: a prior under a decoder that draws nothing yet need not get better in six steps
            assert any(group.heldout_loss < group.heldout_loss_before for group in part.groups)
            for group in part.groups:
                assert group.heldout_loss <= group.heldout_loss_before
                assert group.heldout_loss == min(point.heldout_loss for point in group.curve)
                assert group.curve[0].step == 0 and group.curve[0].training_loss is None

    def test_an_adapter_that_never_helped_changes_nothing(self, walked, tmp_path) -> None:
        job = walked.finetune_job(tmp_path, epochs=50, synthesizer_learning_rate=1.0, text2semantic_learning_rate=1.0)
        record = finetune.work(job)
        for part in record.parts:
            state = load_file(tmp_path / part.folder / "adapter_model.safetensors")
            for group in part.groups:
                if group.best_step == 0:
                    prefixes = tuple(f"base_model.model.{p}" for p in GROUPS[group.name])
                    lora_b = [v for n, v in state.items() if "lora_B" in n and n.startswith(prefixes)]
                    assert lora_b and all(not value.any() for value in lora_b)
        groups = [group for part in record.parts for group in part.groups]
        assert any(group.best_step == 0 for group in groups)
        assert all(part.ended_by == "heldout" and part.steps < 50 * 2 for part in record.parts)

    def test_the_base_stays_as_it_is(self, walked, tmp_path) -> None:
        finetune.work(walked.finetune_job(tmp_path, epochs=1))
        base = find_base("tiny", walked.root / "bases")
        bare, adapted = load_synthesizer(base, tmp_path), load_synthesizer(base, tmp_path)
        load_adapter(adapted, tmp_path / "adapter" / "synthesizer")
        after = {n.replace(".base_layer", ""): v for n, v in adapted.state_dict().items() if "lora_" not in n}
        assert all(torch.equal(value, after[name]) for name, value in bare.state_dict().items())


GROUPS = {"tokens": ("h.",), "decoder": ("dec.",), "prior": ("enc_p.", "flow.")}
