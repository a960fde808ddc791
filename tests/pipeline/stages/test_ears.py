"""Ears on real speech: whose clips these are, and which of them are somebody else's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.judges.ecapa import load_ecapa
from pipeline.io.answers import remembered
from pipeline.io.audio import read_audio, resample
from pipeline.records.quality import Check
from pipeline.signal.dnsmos import measure_dnsmos
from pipeline.stages.evaluate.ears import Ears, Speaker, Utterance, dnsmos, know_speaker
from pipeline.stages.evaluate.stage import LIKENESS, _naming_strangers
from pipeline.stages.evaluate.studio import FreeSentence

SPEAKER, SOMEBODY_ELSE = "en_vctk_p226", "en_libri_2609"


@pytest.fixture(scope="module")
def clips(shared):
    """Four clips of a voice, one of them another person's, at 16 kHz."""

    def read(voice: str, count: int) -> dict:
        folder = shared / "data" / "voices" / voice / "wavs"
        found = {}
        for path in sorted(folder.iterdir())[:count]:
            audio = read_audio(path)
            found[path.name] = resample(audio.mono, audio.sample_rate_hz, 16_000)[:48_000]
        return found

    return read(SPEAKER, 4), read(SOMEBODY_ELSE, 1)


def test_a_clip_of_somebody_else_is_named_and_no_other(artifacts, clips) -> None:
    ecapa = load_ecapa(artifacts("ecapa-voxceleb") / "ecapa.safetensors")

    def embed(wave):
        return ecapa(torch.from_numpy(wave))

    own, strange = clips
    assert know_speaker(embed, own).strange == ()
    mixed = know_speaker(embed, own | strange)
    assert mixed.strange == tuple(strange)
    assert min(mixed.likeness(embed(wave)) for wave in own.values()) > mixed.likeness(embed(*strange.values())) + 0.2


def test_dnsmos_of_a_short_clip_is_nearly_that_of_the_original_which_repeats_it(clips) -> None:
    (_, wave), *_ = clips[0].items()
    quick, original = dnsmos()(wave), measure_dnsmos(wave).ovr
    assert original - 0.3 < quick < original + 0.1
    noise = np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32) * 0.05
    assert dnsmos()(wave + noise) < quick - 0.5


def a_check(status: str) -> Check:
    return Check(
        id=LIKENESS, evidence="free_speech", title="Likeness", unit="", status=status, required=True, value=0.1,
        limit=0.4, floor=0.0, ceiling=1.0, explanation="", advice="record more",
    )  # fmt: skip


def test_the_advice_for_an_unlike_voice_names_the_clips_that_are_somebody_else_s() -> None:
    mixed = Speaker(lambda wave: torch.zeros(2), torch.zeros(2), ("wavs/4.wav",))
    assert "another person: wavs/4.wav" in _naming_strangers(a_check("failed"), mixed).advice
    assert _naming_strangers(a_check("passed"), mixed).advice == "record more"
    assert _naming_strangers(a_check("failed"), None).advice == "record more"


def test_a_recording_is_heard_once_for_all_runs_and_speech_in_each(tmp_path) -> None:
    asked: list[str] = []

    def embed(wave):
        asked.append("ecapa")
        return torch.tensor([float(wave[0]), 1.0]) / 3

    def listening() -> Ears:
        def heard(kind, answer):
            return lambda wave: asked.append(kind) or answer(wave)

        return Ears(
            "en",
            Speaker(embed, torch.ones(2)),
            heard("dnsmos", lambda wave: float(wave[0]) / 3),
            words=heard("words", lambda wave: f"heard {wave[0]}"),
            speaker=Speaker(embed, torch.ones(2)),
            listener=heard("distillmos", lambda wave: float(wave[0]) / 7),
            judges={kind: f"{kind} 1" for kind in ("words", "ecapa", "distillmos", "dnsmos")},
            recorded=remembered(tmp_path / "answers.json"),
        )

    wave = np.full(16_000, 0.1, np.float32)
    recorded = Utterance(wave, (), "")
    spoken = Utterance(wave * 2, (), "", FreeSentence("01", "", (), wave * 2, 16_000, ()))

    def answers(ears: Ears, one: Utterance) -> tuple:
        return ears.read(one), ears.like(one), ears.score(one), ears.grade(one)

    cold = listening()
    first = [answers(cold, one) for one in (recorded, spoken, recorded, Utterance(wave.copy(), (), ""))]
    assert sorted(asked) == sorted(2 * ["words", "ecapa", "dnsmos", "distillmos"])
    cold.recorded.save()
    asked.clear()
    warm = listening()
    assert [answers(warm, one) for one in (recorded, spoken)] == first[:2]
    assert sorted(asked) == sorted(["words", "ecapa", "dnsmos", "distillmos"]), "the speech alone"
