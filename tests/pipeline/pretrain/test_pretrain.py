"""Pretraining on a corpus of seconds: the recipe, the data, exact resuming, and every stage for a few steps."""

import csv
import dataclasses
import json
import multiprocessing
import shutil
import signal
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from pipeline.cli.main import run_command
from pipeline.errors import SettingsError
from pipeline.pretrain.align import Aligner, Phone
from pipeline.pretrain.augment import add_noise, add_room, change_rate, spoil_mel, warp_formants
from pipeline.pretrain.content import frame_labels, speaker_weights
from pipeline.pretrain.gpt import cut_span, token_places
from pipeline.pretrain.loop import CHECKPOINT, Run, load_network, lr_factor, resume, train
from pipeline.pretrain.prepare import (
    Clip,
    load_corpus,
    normalise_level,
    pronounce,
    read_clip,
    read_manifest,
    read_sources,
    read_transcripts,
    write_corpus,
)
from pipeline.pretrain.quantizer import cluster
from pipeline.pretrain.recipe import Recipe, Source, Stage, read_recipe
from pipeline.pretrain.run import Pretraining
from pipeline.stages.evaluate.studio import gate_sentences

PHONES = [
    Phone("HH", 0.3, 0.4, 0), Phone("AH0", 0.4, 0.5, 0), Phone("L", 0.5, 0.6, 0), Phone("OW1", 0.6, 0.8, 0),
    Phone(",", 0.8, 1.2, -1),
    Phone("DH", 1.2, 1.3, 1), Phone("EH1", 1.3, 1.5, 1), Phone("R", 1.5, 1.7, 1), Phone(".", 1.7, 2.2, -1),
]  # fmt: skip


def clip(**changes) -> Clip:
    whole = Clip("a.flac", "ana", "en", "hello there", ("content", "synthesizer", "gpt"), 0, 35200, PHONES)
    return dataclasses.replace(whole, **changes)


def test_the_committed_recipe_has_its_stages_and_hears_no_judged_voice(repository, tmp_path):
    recipe = read_recipe(repository / "recipes" / "nano.yaml")
    pretraining = Pretraining(recipe, tmp_path, tmp_path, torch.device("cpu"))
    assert recipe.base == "nano"
    assert list(pretraining.stages) == ["content", "quantizer", "acoustic", "gpt", "export"]
    kept_out = {"bdl", "kathleen", "cathy", "S0252", "367", "1998", "3080", "3331", "p226", "533"}
    assert kept_out | {"slt", "LJ", "S0150", "p225"} <= set(recipe.exclude_speakers)
    corpus, spoken = recipe.sources
    assert len(read_transcripts(corpus.transcripts)) > 200 and not corpus.synthetic
    assert spoken.synthetic and "content" not in spoken.uses


def test_a_base_that_is_not_trained_here_and_a_stage_that_there_is_not_are_told(repository, tmp_path):
    recipe = read_recipe(repository / "recipes" / "nano.yaml")
    with pytest.raises(SettingsError, match="gpt-sovits-v2"):
        Pretraining(recipe.model_copy(update={"base": "gpt-sovits-v2"}), tmp_path, tmp_path, torch.device("cpu"))
    stages = {**recipe.stages, "posterior": recipe.stages["gpt"]}
    with pytest.raises(SettingsError, match="stages posterior; there are content, quantizer"):
        Pretraining(recipe.model_copy(update={"stages": stages}), tmp_path, tmp_path, torch.device("cpu"))


def test_sentences_to_be_spoken_are_in_the_recipe_and_no_judged_clip_says_one(repository, shared):
    lines = (repository / "recipes" / "mandarin_sentences.txt").read_text(encoding="utf-8").splitlines()
    sentences = {line.rstrip("\u3002") for line in lines if not line.startswith("#")}
    judged = (shared / "data/voices/zh_aishell_S0150/metadata.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert len(sentences) > 600 and not sentences & {line.rsplit("|", 1)[1] for line in judged}
    assert not sentences & {one.rstrip("\u3002") for one in gate_sentences("zh")}


def test_what_another_synthesizer_said_is_weighed_and_marked(tmp_path):
    pytest.importorskip("pocketsphinx", reason="the aligner is an optional package")
    noise = np.random.default_rng(0).standard_normal(16000) * 0.1
    soundfile.write(tmp_path / "a.wav", noise, 16000)
    (tmp_path / "m.csv").write_text("file|speaker|language|text|seconds|license\na.wav|ana|xx||1.0|CC0-1.0\n")
    sources = (Source(manifest="m.csv"), Source(manifest="m.csv", synthetic=True, weight=3.0))
    recipe = Recipe(base="nano", sources=sources, stages={})
    write_corpus(read_sources(recipe, tmp_path), tmp_path / "corpus")
    clips = load_corpus(tmp_path / "corpus").clips
    assert [(one.synthetic, one.weight) for one in clips] == [(False, 1.0), (True, 3.0)]


def test_no_excluded_or_held_out_speaker_is_left_in_the_manifest_that_is_trained_on(repository, shared):
    recipe = read_recipe(repository / "recipes" / "nano.yaml")
    lines = list(read_manifest(shared / "data" / recipe.sources[0].manifest))
    trained = {line["speaker"] for line in lines} - set(recipe.exclude_speakers)
    held_out = {voice.name.rsplit("_", 1)[1] for voice in recipe.held_out_voices}
    assert len(trained) > 200 and not held_out & trained


def test_an_excluded_speaker_never_reaches_the_prepared_corpus(tmp_path):
    pytest.importorskip("pocketsphinx", reason="the aligner is an optional package")
    noise = np.random.default_rng(0).standard_normal(16000) * 0.1
    lines = ["file|speaker|language|text|seconds|license"]
    for speaker in ("ana", "p226", "ben"):
        soundfile.write(tmp_path / f"{speaker}.wav", noise, 16000)
        lines.append(f"{speaker}.wav|{speaker}|xx||1.0|CC0-1.0")
    lines.append("missing.wav|long|xx||21.0|CC0-1.0")  # too long: left out before it is read
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    recipe = Recipe(base="nano", sources=(Source(manifest="manifest.csv"),), exclude_speakers=("p226",), stages={})
    write_corpus(read_sources(recipe, tmp_path), tmp_path / "corpus")
    corpus = load_corpus(tmp_path / "corpus")
    assert [clip.speaker for clip in corpus.clips] == ["ana", "ben"]
    assert len(corpus.sound) == 32000


def test_a_recipe_that_names_no_recordings_to_measure_on_is_refused_in_a_sentence(tmp_path):
    pytest.importorskip("pocketsphinx", reason="the aligner is an optional package")
    with pytest.raises(SettingsError, match="no recordings for held_out"):
        write_corpus(iter(()), tmp_path / "held_out")


def test_an_unknown_key_of_a_recipe_is_refused_with_its_name(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("base: nano\nsources: []\nstages: {}\nlearning: 3\n")
    with pytest.raises(SettingsError, match="learning"):
        read_recipe(path)


def test_a_manifest_without_a_column_is_refused(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_text("file|speaker|language|text|seconds\n")
    with pytest.raises(SettingsError, match="license"):
        read_manifest(path)


def test_frame_labels_follow_the_alignment_and_the_playing_speed():
    index = {"SIL": 0, "HH": 1, "AH": 2, "L": 3, "OW": 4, "DH": 5, "EH": 6, "R": 7}
    labels, order = frame_labels(PHONES, index, 110)
    assert labels[10] == 0 and labels[17] == 1 and labels[35] == 4 and labels[50] == 0 and labels[70] == 6
    assert order == [1, 2, 3, 4, 5, 6, 7]
    faster, _ = frame_labels(PHONES, index, 55, factor=2.0)
    assert faster[17] == 4 and faster[35] == 6
    later, order = frame_labels(PHONES, index, 50, start_s=1.1)
    assert later[2] == 0 and later[7] == 5 and order == [5, 6, 7]


def test_a_mandarin_final_is_labelled_with_its_sounds_in_turn():
    index = {"SIL": 0, "L": 1, "IY": 2, "AH": 3, "NG": 4}
    spoken = [Phone("l", 0.0, 0.1, 0), Phone("ing2", 0.1, 0.4, 0, (0.1, 0.2, 0.3)), Phone("EE", 0.4, 0.4, 1)]
    labels, order = frame_labels(spoken, index, 25)
    assert labels.tolist() == [1] * 5 + [2] * 5 + [3] * 5 + [4] * 5 + [0] * 5
    assert order == [1, 2, 3, 4]


@pytest.mark.slow
def test_mandarin_speech_is_aligned_syllable_by_syllable(shared):
    pytest.importorskip("pocketsphinx", reason="the aligner is an optional package")
    folder = shared / "data" / "voices" / "zh_aishell_S0150"
    samples = read_clip(folder / "wavs" / "BAC009S0150W0121.wav")
    phones = Aligner(pronounce).align(samples, "其中有两个是内因的指标", "zh")
    assert [p.symbol for p in phones if p.word == 0] == ["q", "i2"] and phones[-1].symbol == "."
    assert max(p.word for p in phones) == 10
    spoken = [p for p in phones if p.word >= 0]
    assert all(p.start_s < p.end_s or not list(p.sounds()) for p in spoken)
    assert all(one.end_s <= other.start_s for one, other in pairwise(spoken))
    assert Aligner(pronounce).align(samples[:1600], "其中有两个是内因的指标", "zh") is None


def test_what_has_no_sound_does_not_end_the_aligners_process(repository):
    pytest.importorskip("pocketsphinx", reason="the aligner is an optional package")
    samples = read_clip(repository / "voices" / "sample" / "wavs" / "001.flac")
    text = "Good morning, and welcome to the first lecture of the new term."
    plain = Aligner(pronounce).align(samples, text)
    assert plain and Aligner(pronounce).align(samples, text.replace("and", "' and '") + "'") == plain
    assert Aligner(lambda word: [[]]).align(samples, text) is None


def test_a_span_is_whole_words_with_tokens_that_cover_them():
    rng = np.random.default_rng(0)
    tokens = np.arange(55)
    for _ in range(20):
        span = cut_span(clip(), tokens, 5.0, rng)
        assert len(span.places) == len(span.tokens)
        assert span.places[0] == 0 and (np.diff(span.places) >= 0).all() and span.places.max() == len(span.phones) - 1
    short = cut_span(clip(), tokens, 0.4, rng)
    assert len(short.tokens) < 30


def test_tokens_find_the_phone_at_their_middle():
    assert token_places(PHONES, 8, 14).tolist() == [0, 0, 1, 1, 2, 2]


def test_levels_are_made_equal_without_clipping():
    rng = np.random.default_rng(0)
    speech = rng.standard_normal(32000).astype(np.float32) * 0.003
    loud = normalise_level(speech)
    assert 0.05 < np.sqrt((loud**2).mean()) < 0.15 and np.abs(loud).max() <= 0.95
    np.testing.assert_allclose(normalise_level(loud), loud, rtol=1e-3)


def test_augmentation_keeps_lengths_and_changes_what_it_says():
    rng = np.random.default_rng(0)
    tone = np.sin(np.arange(16000) * 2 * np.pi * 200 / 16000).astype(np.float32)
    fast = change_rate(tone, 1.25)
    assert len(fast) == 12800
    assert abs(np.abs(np.fft.rfft(fast)).argmax() * 16000 / 12800 - 250) < 2
    assert len(add_room(tone, rng)) == len(add_noise(tone, rng)) == len(tone)
    mel = torch.zeros(2, 64, 60) + torch.arange(64)[:, None]
    masked = spoil_mel(mel, rng)
    assert masked.shape == mel.shape and not torch.equal(masked, mel) and torch.equal(mel[0], mel[1])


def test_formants_move_by_the_factor_and_stay_where_it_is_one():
    mel = torch.zeros(2, 64, 3)
    mel[:, 30] = 1.0
    raised = warp_formants(mel, torch.tensor([1.0, 1.1]))
    torch.testing.assert_close(raised[0], mel[0], atol=1e-4, rtol=0)
    assert raised[1, :, 0].argmax() == 32  # 1.07 kHz to 1.18 kHz


def test_speakers_with_little_speech_are_drawn_more_often_per_second():
    clips = [clip(speaker="long", samples=100) for _ in range(90)] + [clip(speaker="short", samples=100)]
    weights = speaker_weights(clips)
    assert weights.sum() == pytest.approx(1) and weights[-1] > 5 * weights[0]


def test_clusters_are_found_and_none_is_empty():
    rng = np.random.default_rng(0)
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    points = centres.repeat(50, 1) + 0.1 * torch.randn(150, 2, generator=torch.Generator().manual_seed(0))
    table, distortion = cluster(points, 3, rng)
    assert distortion < 0.05
    assert torch.cdist(centres, table).min(1).values.max() < 0.2


STAGE = Stage(steps=12, batch=1, lr=1e-2, warmup_steps=2, checkpoint_every_s=1e-6)


def small_training(folder, steps: int) -> nn.Module:
    """Fit a line; the forward draws from both random sources, as real stages do."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Linear(8, 1))

    def forward(step, rng):
        if step == steps:
            raise KeyboardInterrupt
        x = torch.from_numpy(rng.standard_normal((16, 3))).float()
        return {"loss": (network(x)[:, 0].float() - x.sum(1)).square().mean()}

    train(network, forward, Run(STAGE, folder, 7, torch.device("cpu")))
    return network


def test_a_killed_run_continues_to_the_very_same_weights(tmp_path):
    whole = small_training(tmp_path / "whole", steps=-1)
    with pytest.raises(KeyboardInterrupt):
        small_training(tmp_path / "killed", steps=5)
    assert (tmp_path / "killed" / CHECKPOINT).exists()
    continued = small_training(tmp_path / "killed", steps=-1)
    for one, other in zip(whole.parameters(), continued.parameters(), strict=True):
        assert torch.equal(one, other)
    fresh = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Linear(8, 1))
    assert load_network(fresh, tmp_path / "whole") == 12
    assert "loss" in (tmp_path / "whole" / "log.csv").read_text()


def train_with_pauses(folder, pause_s: float) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Linear(8, 1))

    def forward(step, rng):
        time.sleep(pause_s)
        x = torch.from_numpy(rng.standard_normal((16, 3))).float()
        return {"loss": (network(x)[:, 0].float() - x.sum(1)).square().mean()}

    often = Stage(steps=60, batch=1, lr=1e-2, checkpoint_every_s=1e-6)
    train(network, forward, Run(often, folder, 7, torch.device("cpu")))


def begin(action, *arguments) -> multiprocessing.Process:
    """A process of its own, which need not import everything again."""
    process = multiprocessing.get_context("fork").Process(target=action, args=arguments)
    process.start()
    return process


def exit_code(process) -> int:
    process.join()
    return process.exitcode


@pytest.mark.slow
def test_a_run_that_is_shot_in_the_middle_of_its_work_continues_to_the_very_same_weights(tmp_path):
    """SIGKILL, which nothing can catch, at whatever the process is doing: computing, or writing a checkpoint."""
    assert exit_code(begin(train_with_pauses, tmp_path / "whole", 0)) == 0
    for _ in range(3):
        before = _steps_done(tmp_path / "shot")
        process = begin(train_with_pauses, tmp_path / "shot", 0.05)
        while process.is_alive() and _steps_done(tmp_path / "shot") < before + 5:
            time.sleep(0.01)
        process.kill()
        assert exit_code(process) == -signal.SIGKILL
    assert 0 < _steps_done(tmp_path / "shot") < 60
    assert exit_code(begin(train_with_pauses, tmp_path / "shot", 0)) == 0
    one, other = (load_file(tmp_path / folder / CHECKPOINT) for folder in ("whole", "shot"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _steps_done(folder) -> int:
    if not (folder / CHECKPOINT).exists():
        return 0
    with safe_open(folder / CHECKPOINT, framework="pt") as file:
        return int(file.metadata()["step"])


@pytest.mark.slow
def test_tensorboard_shows_what_the_csv_says_after_a_kill_and_a_resume(tmp_path, shared):
    """`voxline pretrain` on three clips, shot with more steps told than saved, and continued."""
    pytest.importorskip("pocketsphinx", reason="the aligner is an optional package")
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    voice = shared / "data" / "voices" / "en_arctic_slt"
    heading, *rows = (voice / "metadata.csv").read_text(encoding="utf-8").splitlines()[:5]
    (tmp_path / "unheard").mkdir()
    (tmp_path / "unheard" / "metadata.csv").write_text(f"{heading}\n{voice / rows.pop()}\n", encoding="utf-8")
    lines = [f"{voice / file}|slt|{language}|{text}|3.0|free" for file, language, text in (r.split("|") for r in rows)]
    header = "file|speaker|language|text|seconds|license"
    (tmp_path / "manifest.csv").write_text("\n".join([header, *lines]), encoding="utf-8")
    stage = "{steps: 45, batch: 1, lr: 1.0e-3, segment_s: 1.0, checkpoint_every_s: 1.0e-6}"
    (tmp_path / "r.yaml").write_text(
        f"base: nano\nsources: [{{manifest: manifest.csv}}]\nheld_out_voices: [unheard]\nstages: {{content: {stage}}}\n",
        encoding="utf-8",
    )
    folder = tmp_path / "work" / "content"
    command = ["pretrain", str(tmp_path / "r.yaml"), "--data", str(tmp_path)]
    command += ["--work", str(tmp_path / "work"), "--stage", "content", "--threads", "1"]

    process = begin(lambda: sys.exit(run_command(command)))
    while process.is_alive() and _steps_done(folder) < 25:
        if 3 <= _steps_done(folder) < 20 and not (tmp_path / "earlier").exists():
            shutil.copy(folder / CHECKPOINT, tmp_path / "earlier")
        time.sleep(0.005)
    process.kill()
    assert exit_code(process) == -signal.SIGKILL
    assert any(step == 20 for step, _ in _told_by_csv(folder))
    shutil.copy(tmp_path / "earlier", folder / CHECKPOINT)  # step 20 was told, not saved
    with (folder / "log.csv").open("a") as log:
        log.write("4")  # cut short
    assert exit_code(begin(lambda: sys.exit(run_command(command)))) == 0

    told = _told_by_csv(folder)
    assert {step for step, name in told if name == "loss"} == {0, 20, 40}
    assert any(name.startswith("held_out/") for _, name in told)
    board = events.EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    shown = {(one.step, name): one.value for name in board.Tags()["scalars"] for one in board.Scalars(name)}
    assert sum(len(board.Scalars(name)) for name in board.Tags()["scalars"]) == len(shown)  # nothing twice
    assert shown == pytest.approx(told, rel=1e-4)


def _told_by_csv(folder) -> dict[tuple[int, str], float]:
    with (folder / "log.csv").open(newline="") as file:
        rows = [(int(step), name, float(value)) for step, _, name, value in csv.reader(file)]
    told = {(step, name): value for step, name, value in rows}
    assert len(told) == len(rows)  # nothing twice
    return told


def test_moments_are_found_again_by_the_name_of_their_parameter(tmp_path):
    network = small_training(tmp_path, steps=-1)
    for ordered in (list(network.parameters()), list(network.parameters())[::-1]):
        optimizer = torch.optim.AdamW(ordered, 1e-2)
        assert resume(network, optimizer, ordered, tmp_path / CHECKPOINT) == 12
        assert all(optimizer.state[one]["exp_avg"].shape == one.shape for one in ordered)


def test_the_learning_rate_warms_up_and_falls():
    factors = [lr_factor(step, STAGE) for step in range(12)]
    assert factors[0] == 0.5 and max(factors) == 1.0 and factors[-1] < 0.15


def test_clips_survive_the_round_trip_through_the_cache(tmp_path):
    (tmp_path / "clips.json").write_text(json.dumps([dataclasses.asdict(clip(start=5, samples=10))]))
    np.save(tmp_path / "sound.npy", np.arange(40, dtype=np.int16))
    corpus = load_corpus(tmp_path)
    assert corpus.clips == [clip(start=5, samples=10)]
    assert corpus.wave(corpus.clips[0])[0] == 5 / 32768
