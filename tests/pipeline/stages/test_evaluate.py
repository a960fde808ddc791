"""Evaluation on real recordings: a working path passes, a broken one is stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.adapters.lora import adapter_parameters
from models.clip_tensors import ClipTensors
from models.loading.bases import find_base
from pipeline.io.answers import Answers
from pipeline.io.audio import resample
from pipeline.records.metrics import METRICS
from pipeline.records.quality import Check, Floor, Floors
from pipeline.records.settings import EvaluateSettings
from pipeline.signal import gate
from pipeline.stages.evaluate import measures
from pipeline.stages.evaluate import studio as studios
from pipeline.stages.evaluate.ears import Ears, Speaker, Utterance
from pipeline.stages.evaluate.measures import Foundation, Measuring, Pair, is_complete, measure
from pipeline.stages.evaluate.studio import FreeSentence, Studio

pytestmark = pytest.mark.slow

FLOORS = Floors.model_validate({"pesq_wb": Floor(value=1.5, source="test"), "stoi": Floor(value=0.75, source="test")})
DEAF = Ears("en", Speaker(lambda wave: torch.zeros(256), torch.zeros(256)), lambda wave: 1.0)


class Lines(torch.nn.Module):
    """Ten milliseconds to ten milliseconds, by one linear layer that begins as no change at all."""

    def __init__(self) -> None:
        super().__init__()
        self.dec = torch.nn.Linear(160, 160)
        with torch.no_grad():
            self.dec.weight.copy_(torch.eye(160))
            self.dec.bias.zero_()

    def adaptable_modules(self) -> list[str]:
        return ["dec"]


class LinesResynthesizer:
    """Copies are as good as the layer; what tokens say is the same hum, whatever they are."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network

    @torch.inference_mode()
    def copy(self, clip: ClipTensors) -> Tensor:
        return self.network.dec(clip.wave[: len(clip.wave) // 160 * 160].reshape(-1, 160)).flatten()

    def speak(self, tokens: Tensor, clip: ClipTensors, reference: ClipTensors, seed: int) -> Tensor:
        return 0.1 * torch.sin(torch.arange(640 * len(tokens)) / 12)


@pytest.fixture
def studio(walked, tmp_path: Path) -> Studio:
    """The voice with a decoder that works."""
    job = walked.job(tmp_path, ("validate", "extract", "finetune"), EvaluateSettings())
    made = Studio(job, find_base("tiny", walked.root / "bases"))
    made.__dict__["resynthesizer"] = LinesResynthesizer(adapted(Lines()))
    return made


def adapted(network):
    """Fresh adapters, which change nothing yet."""
    from models.adapters.lora import inject

    for parameter in network.parameters():
        parameter.requires_grad_(False)
    inject(network, network.adaptable_modules(), 2, 4.0)
    return network.eval()


def resounded(studio: Studio, path: str) -> dict[str, Pair]:
    """Held-out clip -> it beside what becomes of it on a path, at 16 kHz."""
    rate_hz = studio.features.sample_rate_hz
    return {
        studio.features.clips[index].clip: Pair(
            resample(studio.wave(index), rate_hz, 16_000),
            resample(studios.resound(studio, index, seed=0)[path], rate_hz, 16_000),
        )
        for index in studio.heldout
    }


def copy_checks(studio: Studio) -> dict[str, str]:
    """The two checks of copies -> status."""
    copies = {path: resounded(studio, path) for path in ("copy", "bare_copy")}
    return {id_: check.status for id_, check in judged("copy_synthesis", copies).items()}


def judged(evidence: str, pairs: dict[str, dict[str, Pair]]) -> dict[str, Check]:
    """All checks of one part of the report."""
    takes = Measuring(Foundation((), ("en",), "en"), pairs, {}, {}, DEAF)
    rows = [metric for metric in METRICS.values() if metric.evidence == evidence]
    return {row.id: gate.judge(row, measure(row, takes), FLOORS) for row in rows}


def test_a_decoder_that_works_passes_and_one_that_an_adapter_broke_is_stopped(
    studio: Studio,
) -> None:
    ids = ("copy_synthesis.pesq_wb", "copy_synthesis.stoi")
    assert copy_checks(studio) == dict.fromkeys(ids, "passed")

    with torch.no_grad():
        for parameter in adapter_parameters(studio.resynthesizer.network):
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    assert copy_checks(studio) == dict.fromkeys(ids, "failed")

    with torch.no_grad():
        for parameter in adapter_parameters(studio.resynthesizer.network):
            parameter.zero_()
        for parameter in studio.resynthesizer.network.dec.parameters():
            parameter.zero_()
    # The base itself is broken, and no training is to blame; PESQ gives no number for silence, and that blocks.
    assert copy_checks(studio) == dict(zip(ids, ("not_measured", "noted"), strict=True))


def test_shuffled_tokens_are_stopped(studio: Studio) -> None:
    """Clips whose tokens say nothing: right and shuffled ones sound the same."""
    same = resounded(studio, "shuffled")
    assert judged("resynthesis", dict.fromkeys(("adapted", "bare", "shuffled"), same))[
        "resynthesis.tokens_matter"
    ].blocks


def test_a_recording_that_survives_its_tokens_is_told_from_one_that_does_not(studio: Studio) -> None:
    recording = studio.wave(studio.heldout[0])
    rng = np.random.default_rng(0)
    pieces = np.array_split(recording, 40)
    scrambled = np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])
    whole = {"a": Pair(recording, recording)}
    paths = {"adapted": whole, "bare": whole, "shuffled": {"a": Pair(recording, scrambled)}}
    checks = judged("resynthesis", paths)
    assert not checks["resynthesis.tokens_matter"].blocks
    assert not checks["resynthesis.stoi_change"].blocks
    assert checks["resynthesis.mcd_db"].value == pytest.approx(0.0, abs=1e-6)


def a_sentence(wave: np.ndarray, problems: tuple[str, ...] = ()) -> FreeSentence:
    return FreeSentence("01", "Hello there.", ("HH",) * 12, wave.astype(np.float32), 16_000, problems)


def test_a_sentence_is_complete_when_it_ends_by_itself_at_a_human_pace_and_can_be_heard() -> None:
    second = np.sin(np.arange(16000) / 8) * 0.3
    assert is_complete(a_sentence(second))
    for broken in (
        a_sentence(second, ("no_end",)),
        a_sentence(second[:0]),
        a_sentence(np.tile(second, 10)),
        a_sentence(second[:1000]),
        a_sentence(second * 1e-4),
        a_sentence(np.sign(second)),
        a_sentence(second * np.nan),
    ):
        assert not is_complete(broken)


def test_every_language_has_sentences_and_they_can_be_pronounced_in_english() -> None:
    from pipeline.text.frontend import phonemize_for_synthesis
    from pipeline.text.languages import LANGUAGES

    assert all(len(studios.gate_sentences(language)) >= 8 for language in LANGUAGES)
    for text in studios.gate_sentences("en"):
        assert not phonemize_for_synthesis(text, "en").unknown


def test_character_errors_are_counted_as_they_sound() -> None:
    ears = replace(DEAF, words=lambda speech: "hello WORLT")
    second = np.ones(16_000, dtype=np.float32)
    assert measures.character_errors(Utterance(second, (), "Hello, world!"), ears) == 0.1
    assert measures.character_errors(Utterance(second, (), "?!"), ears) is None
    assert measures.character_errors(Utterance(second, (), "Hello."), DEAF) is None
    assert measures.character_errors(Utterance(second * 0, (), "Hello."), ears) is None


SAID = "The children carried their lanterns along the narrow path."


@pytest.mark.parametrize(
    ("heard", "fault"),
    [
        (SAID, ()),
        ("The children carry there lanterns along a narrow path", ()),
        ("The children carried their", ("it breaks off",)),
        ("lanterns along the narrow path", ("the beginning is missing",)),
        (
            "The children carried their lanterns carried their lanterns along the narrow path",
            ("a passage is repeated",),
        ),
        (f"{SAID} Thank you for watching and see you soon", ("words are invented",)),
    ],
)
def test_what_a_listener_would_miss_besides_single_sounds_is_told(heard, fault) -> None:
    ears = replace(DEAF, words=lambda speech: heard, spoken=Answers())
    said = Utterance(np.ones(16_000, dtype=np.float32), (), SAID)
    assert measures.heard_faults(said, ears) == fault
    assert measures.as_written(said, ears) == float(not fault)


def test_ears_hear_a_clip_once_whoever_asks_and_however_many_listen_at_a_time() -> None:
    heard = []

    def words(speech: np.ndarray) -> str:
        heard.append(len(speech))
        return "hello"

    ears = replace(DEAF, words=words, spoken=Answers())
    clips = [Utterance(np.ones(16_000 + number, dtype=np.float32), (), "Hello.") for number in range(6)]
    ears.listen(clips, threads=2)
    assert sorted(heard) == [16_000 + number for number in range(6)]
    assert [measures.character_errors(clip, ears) for clip in clips] == [0.0] * 6
    assert len(heard) == 6


def test_the_reference_is_the_clip_nearest_to_five_seconds_that_a_network_can_be_prompted_with() -> None:
    assert studios.choose_reference([2.9, 9.0, 6.0, 11.0]) == 2
    assert studios.choose_reference([1.0, 2.0, 30.0]) == 1


def test_the_report_is_there_in_four_forms_whatever_the_verdict(walked) -> None:
    folder = walked.outcomes["evaluate"].folder
    report = json.loads((folder / "report" / "report.json").read_text())
    record = walked.outcomes["evaluate"].record
    assert report["passed"] is record.passed is False
    assert "Blocked" in (folder / "report" / "index.html").read_text()
    assert 'failures="' in (folder / "report" / "junit.xml").read_text()
    assert "## Voice ana" in (folder / "report" / "summary.md").read_text().splitlines()[0]
    assert record.heldout_clips == walked.outcomes["finetune"].record.heldout_clips
    assert all((folder / sound.path).is_file() for sample in record.samples for sound in sample.sounds)


def test_a_clip_is_called_by_its_owners_path_from_the_folder_to_the_report(walked) -> None:
    records = {name: outcome.record for name, outcome in walked.outcomes.items()}
    written = [line.partition(",")[0] for line in (walked.root / "voices/ana/metadata.csv").read_text().split()[1:]]
    owned = {name for name in written if name.startswith("wavs/")}
    adapter, report = records["finetune"], records["evaluate"]
    assert {result.clip.file_name for result in records["validate"].clips} == owned
    assert [clip.clip for clip in records["extract"].clips] == sorted(owned)
    assert {*adapter.training_clips, *adapter.heldout_clips} == owned
    assert {sample.name for sample in report.samples if sample.evidence != "free_speech"} == set(report.heldout_clips)
    assert {name for check in report.checks for name in check.per_clip if name.startswith("wavs/")} == set(
        report.heldout_clips
    )
    reference = json.loads((walked.outcomes["evaluate"].folder / "reference/reference.json").read_text())
    assert reference["clip"] in adapter.training_clips
