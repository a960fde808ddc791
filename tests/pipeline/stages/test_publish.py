"""Publishing: only what passed, only exactly that, with its papers."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from models.loading.bases import find_base
from models.machine.switches import switch_off
from models.speaking.options import INT8_WITHOUT_BF16
from pipeline.errors import ConsentError, GateBlocked, SettingsError, UsageError
from pipeline.io.audio import read_audio, write_audio
from pipeline.io.registry.registry import open_registry
from pipeline.io.speakers import published_speaker
from pipeline.io.store import DamagedResult, list_marks
from pipeline.io.voices import load_voice
from pipeline.jobs.speak import Saying, read_reference, speak
from pipeline.records.job import Destination, Machine
from pipeline.records.release import Provenance, Release, release_version
from pipeline.records.settings import PublishSettings
from pipeline.records.spoken import Spoken
from pipeline.stages.publish import PublishJob, work

pytestmark = pytest.mark.slow


@pytest.fixture
def registry(tmp_path):
    return open_registry("file:registry", root=tmp_path)


CONTENT_DIGEST, RECIPE_DIGEST = "a" * 64, "c" * 64
PROVENANCE = Provenance(author="Ana | [link](http://example.org)", git_revision="f" * 40)


def version_here(walked) -> str:
    return release_version(CONTENT_DIGEST, find_base("tiny", walked.root / "bases").digest, RECIPE_DIGEST)


@pytest.fixture
def what(walked, tmp_path) -> PublishJob:
    manifest = load_voice(walked.root / "voices" / "ana").manifest
    return walked.job(
        tmp_path / "work",
        ("validate", "extract", "finetune", "evaluate"),
        PublishSettings(),
        version=version_here(walked),
        content=CONTENT_DIGEST,
        recipe=RECIPE_DIGEST,
        manifest=manifest.model_dump(mode="json"),
        channel="production",
    )


def publish(what: PublishJob, inputs, registry) -> Release:
    return work(replace(what, inputs=inputs, destination=Destination(registry, PROVENANCE)))


def passed(walked, **changes):
    """What the stages left, with a report that passed."""
    inputs = {stage: walked.input(stage) for stage in ("validate", "extract", "finetune", "evaluate")}
    report = inputs["evaluate"].record.model_copy(
        update={"passed": True, "reasons": (), "version": version_here(walked), **changes}
    )
    return {**inputs, "evaluate": replace(inputs["evaluate"], record=report)}


def of_another_voice(walked, tmp_path: Path) -> Path:
    """The folder of finetune with the numbers of its adapter changed: the same names, the same sizes."""
    folder = tmp_path / "finetune"
    shutil.copytree(walked.input("finetune").folder, folder)
    weights = folder / "adapter" / "synthesizer" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    return folder


def test_an_adapter_that_is_not_the_trained_one_is_not_published(walked, what, registry, tmp_path) -> None:
    inputs = passed(walked)
    swapped = replace(inputs["finetune"], folder=of_another_voice(walked, tmp_path))
    with pytest.raises(DamagedResult, match=r"adapter_model\.safetensors: is not what the stage wrote"):
        publish(what, {**inputs, "finetune": swapped}, registry)
    assert registry.voices() == []


def test_an_adapter_with_a_result_of_its_own_is_not_the_one_that_was_judged(walked, what, registry, tmp_path) -> None:
    inputs = passed(walked)
    folder = of_another_voice(walked, tmp_path)
    rewritten = replace(inputs["finetune"], folder=folder, files=list_marks(folder, ["adapter"]))
    with pytest.raises(GateBlocked, match="judged another adapter"):
        publish(what, {**inputs, "finetune": rewritten}, registry)
    assert registry.voices() == []


def test_what_was_slipped_into_a_report_is_not_published(walked, what, registry, tmp_path) -> None:
    inputs = passed(walked)
    folder = tmp_path / "evaluate"
    shutil.copytree(inputs["evaluate"].folder, folder)
    (folder / "report" / "more.html").write_text("<script>")
    release = publish(what, {**inputs, "evaluate": replace(inputs["evaluate"], folder=folder)}, registry)
    assert "report/index.html" in release.files
    assert "report/more.html" not in release.files


def test_a_blocked_voice_is_not_published(walked, what, registry) -> None:
    with pytest.raises(GateBlocked, match="Base has trained weights"):
        publish(what, passed(walked, passed=False, reasons=("Base has trained weights",)), registry)
    assert registry.voices() == []


def test_what_one_ear_alone_failed_goes_to_a_person_with_the_reason(walked, what, registry) -> None:
    release = publish(what, passed(walked, review=("Naturalness: 2.1 is below 3",)), registry)
    assert (release.review, registry.pointer("ana", "production")) == ("required", None)
    pointer = registry.pointer("ana", "candidate")
    assert (pointer.version, pointer.why_published) == (release.version, "Naturalness: 2.1 is below 3")


@pytest.mark.parametrize("changes", [{"version": "0" * 12}, {"voice": "ben"}, {"base_digest": "0" * 64}])
def test_a_report_of_something_else_does_not_count(walked, what, registry, changes) -> None:
    with pytest.raises(GateBlocked, match="the report is of"):
        publish(what, passed(walked, **changes), registry)
    assert registry.voices() == []


def test_a_consent_that_ran_out_meanwhile_stops_it(walked, what, registry) -> None:
    manifest = what.parameters["manifest"]
    expired = {**manifest, "consent": {**manifest["consent"], "expires_on": "2026-02-01"}}
    with pytest.raises(ConsentError):
        publish(replace(what, parameters={**what.parameters, "manifest": expired}), passed(walked), registry)
    assert registry.voices() == []


def test_a_release_carries_its_measurements_and_a_card_that_nobody_can_write_markup_into(
    walked, what, registry
) -> None:
    release = publish(what, passed(walked), registry)
    assert release.metrics["copy_synthesis.stoi"] == walked.outcomes["evaluate"].record.metrics["copy_synthesis.stoi"]
    assert release.metrics["free_speech.cer"] is None
    card = (registry.verified("ana", release.version)[1] / "card.md").read_text()
    assert "[link](http" not in card and "Ana \\| \\[link\\]" in card
    assert "| Consent granted on | 2026-01-09 |" in card
    assert registry.verify("ana") == []


def test_a_base_that_changed_since_is_not_spoken_on(walked, what, registry, tmp_path) -> None:
    publish(what, passed(walked), registry)
    other = tmp_path / "bases" / "tiny"
    other.mkdir(parents=True)
    text = (walked.root / "bases" / "tiny" / "base.yaml").read_text()
    (other / "base.yaml").write_text(text.replace("segment_frames: 16", "segment_frames: 18"))
    with pytest.raises(SettingsError, match="another base") as told:
        speak(
            published_speaker(registry, "ana"), Saying("Hello."), output=tmp_path / "a.wav",
            machine=Machine("cpu", 1, tmp_path, tmp_path / "bases"),
        )  # fmt: skip
    assert told.value.hint.endswith("speaks it; here, train it again: voxline run ana")
    assert not (tmp_path / "a.wav").exists()


class TestPrecision:
    """What the processor lacks is refused where it was asked for, and told where the rest can be computed."""

    @pytest.fixture
    def say(self, walked, what, registry, tmp_path):
        publish(what, passed(walked), registry)

        def run(precision: str) -> Spoken:
            machine = Machine("cpu", 1, tmp_path, walked.root / "bases")
            path = tmp_path / f"{precision}.wav"
            return speak(
                published_speaker(registry, "ana"),
                Saying("Hello.", precision=precision, seed=1),
                output=path,
                machine=machine,
            )

        return run

    @pytest.mark.parametrize(
        ("off", "asked", "others"),
        [
            (("bf16",), "bf16", "--precision int8 or --precision f32"),
            (("bf16", "int8"), "bf16", "--precision f32"),
            (("bf16", "int8"), "int8", "--precision f32"),
        ],
    )
    def test_it_is_refused_where_the_processor_does_not_have_it(self, say, off, asked, others, tmp_path) -> None:
        switch_off(off, {})
        with pytest.raises(SettingsError) as error:
            say(asked)
        assert error.value.exit_code == 3
        assert error.value.message == f"--precision {asked}: it is switched off"
        assert error.value.hint == f"{others}; voxline doctor says what there is"
        assert not (tmp_path / f"{asked}.wav").exists()

    def test_int8_without_bf16_speaks_and_says_what_is_float32(self, say) -> None:
        switch_off(["bf16"], {})
        assert say("f32").notes == ()
        assert [note for note in say("int8").notes if "float32" in note] == [INT8_WITHOUT_BF16]


@pytest.mark.parametrize("spoil", [os.mkfifo, lambda path: path.write_bytes(b"{" * 2_000_000)])
def test_a_reference_that_is_no_file_or_endless_is_damaged_and_not_waited_for(tmp_path, spoil) -> None:
    spoil(tmp_path / "reference.json")
    with pytest.raises(SettingsError, match="damaged"):
        read_reference(tmp_path, "v2")


class TestMoreReferences:
    """Other recordings of the same speaker; whoever is heard in them must be the one who consented."""

    @pytest.fixture
    def say(self, walked, what, registry, tmp_path):
        publish(what, passed(walked), registry)

        def run(name: str, *references: Path) -> bytes:
            path = tmp_path / f"{name}.wav"
            machine = Machine("cpu", 1, tmp_path, walked.root / "bases")
            text = "Hello there, good morning."
            speak(
                published_speaker(registry, "ana"),
                Saying(text, references=references),
                output=path,
                machine=machine,
            )
            return path.read_bytes()

        return run

    @pytest.fixture
    def clips(self, walked) -> list[Path]:
        return sorted((walked.root / "voices" / "ana" / "wavs").iterdir())

    def test_they_change_the_sound_and_twice_the_same_is_the_same(self, say, clips) -> None:
        alone, one, two = say("0"), say("1", clips[0]), say("2", clips[0], clips[1])
        assert len({alone, one, two}) == 3
        assert say("again", clips[0], clips[1]) == two

    def test_somebody_else_is_refused(self, say, clips, tmp_path) -> None:
        audio = read_audio(clips[0])
        write_audio(tmp_path / "child.wav", audio.mono, int(audio.sample_rate_hz * 1.7))
        with pytest.raises(ConsentError, match="speaker similarity") as error:
            say("a", tmp_path / "child.wav")
        assert error.value.exit_code == 13
        assert "synthetic" not in error.value.message, "a log is no place for the speaker's name"

    def test_no_recording_is_a_wrong_command(self, say, tmp_path) -> None:
        (tmp_path / "no.wav").write_text("not a sound")
        for path in (tmp_path / "no.wav", tmp_path / "absent.wav"):
            with pytest.raises(UsageError):
                say("a", path)
