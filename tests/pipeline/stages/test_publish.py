"""Publishing: only what passed, only exactly that, with its papers."""

from __future__ import annotations

from datetime import date

import pytest

from models.bases import find_base
from pipeline.errors import ConsentError, GateBlocked
from pipeline.io.registry import open_registry
from pipeline.io.voices import load_voice
from pipeline.records.job import Input
from pipeline.records.release import Provenance
from pipeline.stages.publish import Publication, publish
from pipeline.stages.speak import speak


@pytest.fixture
def registry(tmp_path):
    return open_registry("file:registry", root=tmp_path)


@pytest.fixture
def what(walked) -> Publication:
    return Publication(
        voice=load_voice(walked.root / "voices" / "ana"),
        version=walked.outcomes["evaluate"].record.version,
        content_digest="a" * 64,
        recipe_digest="c" * 64,
        base=find_base("tiny", walked.root / "bases"),
        channel="production",
        provenance=Provenance(author="Ana | [link](http://example.org)", git_revision="f" * 40),
        voxline_version="0.1.0",
    )


def passed(walked, **changes):
    """What the stages left, with a report that passed."""
    inputs = {stage: walked.input(stage) for stage in ("validate", "extract", "finetune", "evaluate")}
    report = inputs["evaluate"].record.model_copy(update={"passed": True, "reasons": (), **changes})
    return {**inputs, "evaluate": Input(report, inputs["evaluate"].folder)}


def test_a_blocked_voice_is_not_published(walked, what, registry) -> None:
    with pytest.raises(GateBlocked, match="Base has trained weights"):
        publish(what, passed(walked, passed=False, reasons=("Base has trained weights",)), registry)
    assert registry.voices() == []


@pytest.mark.parametrize("changes", [{"version": "0" * 12}, {"voice": "ben"}, {"base_digest": "0" * 64}])
def test_a_report_of_something_else_does_not_count(walked, what, registry, changes) -> None:
    with pytest.raises(GateBlocked, match="the report is of"):
        publish(what, passed(walked, **changes), registry)
    assert registry.voices() == []


def test_a_voice_that_was_never_evaluated_is_not_published(walked, what, registry) -> None:
    inputs = {stage: one for stage, one in passed(walked).items() if stage != "evaluate"}
    with pytest.raises(GateBlocked, match="never evaluated"):
        publish(what, inputs, registry)


def test_a_consent_that_ran_out_meanwhile_stops_it(walked, what, registry) -> None:
    consent = what.voice.manifest.consent.model_copy(update={"expires_on": date(2026, 2, 1)})
    voice = what.voice.__class__("ana", what.voice.folder, what.voice.manifest.model_copy(update={"consent": consent}))
    with pytest.raises(ConsentError):
        publish(what.__class__(**{**what.__dict__, "voice": voice}), passed(walked), registry)
    assert registry.voices() == []


def test_a_release_carries_its_measurements_and_a_card_that_nobody_can_write_markup_into(
    walked, what, registry
) -> None:
    release = publish(what, passed(walked), registry)
    assert release.metrics["copy_synthesis.stoi"] == walked.outcomes["evaluate"].record.metrics["copy_synthesis.stoi"]
    assert release.metrics["free_speech.cer"] is None
    card = (registry.fetch("ana", release.version) / "card.md").read_text()
    assert "[link](http" not in card and "Ana \\| \\[link\\]" in card
    assert "| Consent granted on | 2026-01-09 |" in card
    assert registry.verify("ana") == []


def test_a_base_that_changed_since_is_not_spoken_on(walked, what, registry, tmp_path) -> None:
    from pipeline.errors import SettingsError
    from pipeline.records.job import Machine

    publish(what, passed(walked), registry)
    other = tmp_path / "bases" / "tiny"
    other.mkdir(parents=True)
    text = (walked.root / "bases" / "tiny" / "base.yaml").read_text()
    (other / "base.yaml").write_text(text.replace("segment_frames: 16", "segment_frames: 18"))
    with pytest.raises(SettingsError, match="another base"):
        speak(
            registry, "ana", "Hello.", output=tmp_path / "a.wav", reporter=None,
            machine=Machine("cpu", 1, tmp_path, tmp_path / "bases"),
        )  # fmt: skip
    assert not (tmp_path / "a.wav").exists()
