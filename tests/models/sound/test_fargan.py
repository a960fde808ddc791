import io
import tarfile

import numpy as np
import pytest
import torch
from convert_fargan import ROUNDED, layers, read_arrays, read_member
from make_golden_fargan import STRETCHES, stretch
from safetensors.numpy import load_file

from models.sound.fargan import DELAY_SAMPLES, FRAME, Stream, load_fargan, periods
from models.sound.fargan_analysis import analyse

CLIPS = [number for number, _ in STRETCHES]


@pytest.fixture(scope="module")
def golden(repository):
    return load_file(repository / "tests" / "golden" / "fargan.safetensors")


def features(golden, number):
    return torch.from_numpy(golden[f"{number}.features"])[None]


def speech(golden, number):
    return torch.from_numpy(golden[f"{number}.speech"] / 32768.0).float()[None]


def recording(number):
    samples = next(stretch(clip, start_s) for clip, start_s in STRETCHES if clip == number)
    return torch.from_numpy(samples.astype(np.float32) / 32768)


def emphasised(wave):
    return wave - 0.85 * torch.nn.functional.pad(wave, (1, 0))[:, :-1]


def made_after_the_same_past(network, rows, truth):
    """Every subframe from what the C program had spoken until then: without this the noise of the two soon differs."""
    stream = network.begin(rows[:, 0])
    conditions, _ = network.condition(rows, periods(rows), stream.frames)
    late = torch.cat([stream.period, periods(rows)], 1)
    past, made = stream.past, []
    for step, (sums, gain) in enumerate(network._subframes(torch.cat([stream.condition, conditions], 1))):
        samples, past = network.signal(sums, gain, late[:, step // 4], past)
        made.append(samples)
        spoken = truth[:, 40 * step : 40 * (step + 1)]
        past = past._replace(samples=torch.cat([past.samples[:, :-40], spoken], 1))
    return torch.cat(made, 1)


def correlation(one, other):
    return float(np.corrcoef(one.flatten().numpy(), other.flatten().numpy())[0, 1])


@pytest.mark.parametrize("number", CLIPS)
@torch.no_grad()
def test_the_waveform_is_that_of_opus(golden, number):
    truth = emphasised(speech(golden, number))
    made = made_after_the_same_past(load_fargan(), features(golden, number), truth)
    assert made.shape == truth.shape
    assert correlation(made, truth) >= 0.999


@pytest.mark.parametrize("number", CLIPS)
def test_a_whole_stretch_sounds_as_that_of_opus(golden, number):
    wave, _ = load_fargan()(features(golden, number))
    ours, theirs = analyse(wave[0])[10:, :18], analyse(speech(golden, number)[0])[10:, :18]
    others = analyse(speech(golden, CLIPS[CLIPS.index(number) - 1])[0])[10:, :18]
    assert (ours - theirs).abs().mean() < 0.1 * (others - theirs).abs().mean()


def test_pieces_of_an_utterance_join_without_a_seam(golden):
    rows = features(golden, CLIPS[0])[:, :24]
    whole, _ = load_fargan()(rows)
    stream: Stream | None = None
    pieces = []
    for piece in rows.split([1, 7, 3, 13], dim=1):
        wave, stream = load_fargan()(piece, stream)
        pieces.append(wave)
    assert correlation(torch.cat(pieces, 1), whole) > 0.999
    apart = torch.cat([load_fargan()(piece)[0] for piece in rows.split([1, 7, 3, 13], dim=1)], 1)
    assert correlation(apart, whole) < 0.99, "the streams carried nothing"


def test_utterances_in_one_batch_do_not_mix(golden):
    rows = torch.cat([features(golden, number)[:, :12] for number in CLIPS])
    together, _ = load_fargan()(rows)
    alone = torch.cat([load_fargan()(row[None])[0] for row in rows])
    assert correlation(together, alone) > 0.999


def test_a_pitch_no_period_fits_is_spoken_all_the_same(golden):
    rows = features(golden, CLIPS[0])[:, :6].clone()
    rows[:, :, 18] = torch.tensor([-9.0, 9.0, 1.6, -1.6, 0.0, 3.0])
    wave, _ = load_fargan()(rows)
    assert wave.abs().max() <= 1
    rows[:, :, 18].clamp_(-1.5, 1.5)
    assert torch.equal(wave, load_fargan()(rows)[0])


@pytest.mark.parametrize("number", CLIPS)
def test_features_are_those_of_opus(golden, number):
    found, expected = analyse(recording(number)), features(golden, number)[0]
    assert found.shape == expected.shape
    off = (found - expected).abs()
    assert off[:, :18].max() < 1e-3
    # a period on the border of two samples falls to either side, and the periodicity with it
    assert (off[:, 18] > 0.02).float().mean() <= 0.02 and off[:, 18].median() < 1e-3
    assert (off[:, 19] > 0.02).float().mean() <= 0.05 and off[:, 19].median() < 1e-3


def test_a_copy_follows_its_recording_by_the_delay(golden):
    wave, _ = load_fargan()(features(golden, CLIPS[0]))
    energy = [samples.square().unfold(0, 40, 1).mean(1) for samples in (wave[0], recording(CLIPS[0]))]
    spoken, heard = (values - values.mean() for values in energy)
    scores = [float((spoken[lag:] * heard[: len(heard) - lag]).sum()) for lag in range(0, 3 * FRAME, 16)]
    assert abs(16 * int(np.argmax(scores)) - DELAY_SAMPLES) <= 48


def test_analysis_leaves_out_a_part_of_a_frame():
    assert analyse(torch.zeros(3 * FRAME + 17)).shape == (3, 20)


def test_blocks_of_the_archive_become_rows_of_weights():
    weight = np.arange(16 * 8).reshape(16, 8) - 64  # outputs, inputs
    blocks = [weight[i : i + 8, j : j + 4].flatten() for i in (0, 8) for j in (0, 4)]
    source = "\n".join(
        f"static const {kind} d_{name}[{len(values)}] = {{\n{', '.join(map(str, values))}\n}};"
        for kind, name, values in (
            ("opus_int8", "weights_int8", np.concatenate(blocks).tolist()),
            ("float", "scale", [0.5] * 16),
            ("float", "bias", [-1e-3] * 16),
        )
    )
    source += 'if (linear_init(&model->d,arrays,"d_bias","d_subias","d_weights_int8",NULL,"d_scale",8,16)) return 1;'
    tensors = dict(layers(source, read_arrays(source), {"d": ("ours", ROUNDED)}))
    assert np.array_equal(tensors["ours.weight"], weight) and tensors["ours.weight"].dtype == np.int8
    assert np.allclose(tensors["ours.bias"], -1e-3) and np.allclose(tensors["ours.scale"], 0.5)


def test_an_archive_with_other_weights_is_refused(tmp_path):
    archive = tmp_path / "opus-1.5.2.tar.gz"
    with tarfile.open(archive, "w:gz") as files:
        member = tarfile.TarInfo("opus-1.5.2/dnn/fargan_data.c")
        member.size = 3
        files.addfile(member, io.BytesIO(b"int"))
    with pytest.raises(SystemExit, match="sha256"):
        read_member(archive, "fargan")
    with pytest.raises(SystemExit, match=r"no file dnn/pitchdnn_data\.c"):
        read_member(archive, "pitchdnn")
