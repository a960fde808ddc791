"""Each measure on signals whose true value is known, because they are made here."""

import numpy as np
import pytest
import soxr

from pipeline.io.audio import encode_audio, read_audio, resample
from pipeline.signal.bandwidth import measure_bandwidth_hz
from pipeline.signal.channels import compare_channels
from pipeline.signal.clipping import measure_clipping
from pipeline.signal.dropouts import measure_dropouts
from pipeline.signal.examine import examine
from pipeline.signal.frames import active_level_dbfs, analyse_frames, power_spectrogram
from pipeline.signal.levels import measure_levels, normalise, rms_dbfs
from pipeline.signal.noise import measure_noise
from pipeline.signal.prepare import prepare_piece, slice_pieces, whole_piece
from pipeline.signal.reverberation import measure_reverberation
from pipeline.signal.similarity import bit_error_rate, fingerprint
from pipeline.signal.speaker_change import likeliest_change
from pipeline.signal.vad import Region, find_speech, kept_seconds, regions_of

RATE = 16000
RANDOM = np.random.default_rng(7)


@pytest.fixture(scope="module")
def sentence(repository_root):
    """A sentence of the sample voice, mono 16 kHz."""
    audio = read_audio(sorted((repository_root / "voices" / "sample" / "wavs").glob("*"))[1])
    return resample(audio.mono, audio.sample_rate_hz, RATE)


@pytest.fixture(scope="module")
def repository_root(request):
    return request.config.rootpath


def noisy(samples, snr_db):
    noise = RANDOM.standard_normal(len(samples)).astype(np.float32)
    level = rms_dbfs(samples) - snr_db - rms_dbfs(noise)
    return samples + noise * np.float32(10 ** (level / 20))


def with_pauses(samples, seconds=0.6):
    silence = np.zeros(int(seconds * RATE), np.float32)
    return np.concatenate([silence, samples, silence])


def test_a_frame_of_the_spectrogram_holds_the_power_of_its_samples():
    noise = 0.1 * RANDOM.standard_normal(5 * RATE).astype(np.float32)
    assert 10 * np.log10(power_spectrogram(noise).sum(axis=0).mean()) == pytest.approx(-20, abs=0.2)


def test_levels_of_a_sine_and_its_peak_between_the_samples():
    phase = np.pi / 4 + np.pi / 2 * np.arange(4 * 8000)  # a quarter of the rate: no sample at the crest
    levels = measure_levels((0.5 * np.sin(phase)).astype(np.float32), RATE)
    assert levels.peak_dbfs == pytest.approx(-9.03, abs=0.05)
    assert levels.true_peak_dbfs == pytest.approx(-6.02, abs=0.3)
    assert levels.rms_dbfs == pytest.approx(-9.03, abs=0.05)


def test_normalising_reaches_the_level_and_keeps_true_peaks_under_the_ceiling(sentence):
    made = normalise(sentence, RATE, active_level_dbfs(sentence), -10.0, -1.0)
    raised = soxr.resample(made.samples, RATE, 8 * RATE, quality="VHQ")
    assert 20 * np.log10(np.abs(raised).max()) <= -0.99
    assert made.limited_db > 0
    assert made.gain_db == pytest.approx(-10.0 - active_level_dbfs(sentence), abs=0.01)
    gentle = normalise(sentence, RATE, active_level_dbfs(sentence), -30.0, -1.0)
    assert (gentle.limited_share, str(gentle.limited_db)) == (0, "0.0")  # and not -0.0
    assert np.allclose(gentle.samples, sentence * 10 ** (gentle.gain_db / 20), atol=1e-6)


@pytest.mark.parametrize("gain", [1.0, 0.2])
def test_flat_tops_are_found_whatever_the_level_is_now(sentence, gain):
    peak = np.abs(sentence).max()
    clipped = np.clip(sentence, -peak / 3, peak / 3) * np.float32(gain)
    assert measure_clipping(np.round(clipped * 32767) / 32768, RATE).share > 0.01
    assert measure_clipping(sentence, RATE).share == 0


def test_clipping_is_found_through_a_lossy_codec(sentence, tmp_path):
    loud = 0.5 * np.clip(8 / np.abs(sentence).max() * sentence, -1, 1)
    (tmp_path / "a.mp3").write_bytes(encode_audio(loud, RATE, "MP3", "MPEG_LAYER_III"))
    decoded = read_audio(tmp_path / "a.mp3").mono
    assert measure_clipping(decoded, RATE).crest_db < 2.4 < 3.5 < measure_clipping(sentence, RATE).crest_db


def test_a_sway_below_all_voices_is_no_clipping(sentence):
    """A breath or a hand moves the membrane once a second: that alone ends at one level."""
    sway = 10 * np.abs(sentence).max() * np.sin(2 * np.pi * np.arange(len(sentence)) / RATE).astype(np.float32)
    assert measure_clipping(sentence + sway, RATE).crest_db > 3.0
    assert measure_clipping(np.clip(sentence + sway, -0.5 * sway.max(), 0.5 * sway.max()), RATE).share > 0.01


@pytest.mark.parametrize("level_dbfs", [-10.0, -6.0, 0.0])
@pytest.mark.parametrize("rate", [16000, 22050, 48000])
def test_no_peak_between_samples_passes_the_ceiling_at_any_rate(sentence, rate, level_dbfs):
    raised = resample(sentence, RATE, rate)
    made = normalise(raised, rate, active_level_dbfs(sentence), level_dbfs, -1.0)
    peaks = np.abs(soxr.resample(made.samples, rate, 16 * rate, quality="VHQ"))
    assert 20 * np.log10(peaks.max()) <= -0.99
    assert made.limited_db > 0.5


@pytest.mark.parametrize("edge_hz", [3400, 5000, 7000])
def test_bandwidth_is_that_of_the_filter_not_of_the_header(edge_hz):
    noise = 0.1 * RANDOM.standard_normal(3 * 2 * edge_hz).astype(np.float32)
    raised = np.asarray(soxr.resample(noise, 2 * edge_hz, 48000, quality="HQ"), np.float32)
    assert measure_bandwidth_hz(raised, 48000) == pytest.approx(edge_hz, rel=0.08)


@pytest.mark.parametrize("snr_db", [0, 5, 15])
def test_the_snr_of_added_noise_is_measured_within_a_few_decibels(sentence, snr_db):
    frames = analyse_frames(noisy(with_pauses(sentence), snr_db).astype(np.float32))
    clean = find_speech(analyse_frames(with_pauses(sentence)))
    noise = measure_noise(frames, clean.sure, clean.pause)
    active = active_level_dbfs(with_pauses(sentence)) - rms_dbfs(with_pauses(sentence))
    assert noise.pause_snr_db == pytest.approx(snr_db + active, abs=6)


def test_hum_is_named_with_its_frequency(sentence):
    time_s = np.arange(len(sentence)) / RATE
    hum = sum(0.04 / k * np.sin(2 * np.pi * 50 * k * time_s) for k in (1, 2, 3, 4, 5))
    speech = find_speech(analyse_frames(sentence))
    plain = measure_noise(analyse_frames(sentence), speech.sure, speech.pause)
    humming = measure_noise(analyse_frames((sentence + hum).astype(np.float32)), speech.sure, speech.pause)
    assert humming.hum_hz == 50
    assert humming.hum_db > max(25, plain.hum_db + 10)


def test_a_longer_room_gives_a_longer_reverberation_time(sentence):
    times = [measure_reverberation(analyse_frames(sentence)).rt60_s]
    for rt60_s in (0.4, 0.9, 1.8):
        size = int(rt60_s * RATE)
        tail = RANDOM.standard_normal(size) * 10 ** (-3 * np.arange(size) / size)
        wet = np.convolve(sentence, tail / np.sqrt(np.sum(tail**2)))[: len(sentence)].astype(np.float32)
        times.append(measure_reverberation(analyse_frames(wet)).rt60_s)
    assert times == sorted(times)
    assert times[0] < 0.5 < 0.8 < times[-1]


def test_holes_with_hard_edges_count_and_faded_pauses_do_not(sentence):
    holed = sentence.copy()
    loud = np.flatnonzero(np.abs(sentence) > 0.5 * np.abs(sentence).max())
    for at in loud[:: len(loud) // 4][:4]:
        holed[at : at + 320] = 0
    active = active_level_dbfs(sentence)
    assert measure_dropouts(holed, RATE, active).count >= 3
    gated = with_pauses(sentence)
    gated[:9600] = 0
    assert measure_dropouts(gated, RATE, active).count == 0
    coarse = np.round(sentence * 127) / np.float32(128)
    assert measure_dropouts(coarse.astype(np.float32), RATE, active).count == 0


def test_channels_are_told_apart(sentence):
    other = np.roll(sentence[::-1], 4000)
    silence = np.zeros_like(sentence)
    kinds = {
        "copies": [sentence, 0.5 * sentence],
        "antiphase": [sentence, -sentence],
        "one_silent": [silence, sentence],
        "one_source": [sentence, np.roll(sentence, 40)],
        "two_sources": [sentence, other],
    }
    for kind, channels in kinds.items():
        assert compare_channels(np.stack(channels).astype(np.float32), RATE).kind == kind
    assert compare_channels(np.stack([silence, sentence]), RATE).chosen == 1


def test_a_copy_through_mp3_at_another_level_is_the_same_recording_and_another_is_not(sentence, tmp_path):
    (tmp_path / "a.mp3").write_bytes(encode_audio(0.3 * sentence, RATE, "MP3", "MPEG_LAYER_III"))
    copy = read_audio(tmp_path / "a.mp3").mono
    marks = [marks_of(one) for one in (sentence, copy, sentence[::-1].copy())]
    assert bit_error_rate(marks[0], marks[1]) < 0.3
    assert bit_error_rate(marks[0], marks[2]) > 0.4


def marks_of(samples):
    frames = analyse_frames(samples)
    flags = find_speech(frames).webrtc
    return fingerprint(frames, int(np.flatnonzero(flags)[0]))


def test_regions_keep_pauses_drop_clicks_and_count_long_pauses_once():
    flags = np.zeros(400, bool)
    flags[20:100] = flags[150:250] = flags[380:384] = True
    flags[390:400] = True
    regions = regions_of(flags, 0.01, 0.6, 0.09)
    assert [(round(r.start_s, 2), round(r.end_s, 2)) for r in regions] == [(0.2, 2.5), (3.9, 4.0)]
    assert kept_seconds(regions, 0.8) == pytest.approx(2.3 + 0.1 + 0.8)


def test_a_change_of_speaker_shows_and_a_steady_one_does_not():
    one, two = np.zeros(256, np.float32), np.zeros(256, np.float32)
    one[:128], two[64:192] = 1, 1
    jitter = 0.1 * np.abs(RANDOM.standard_normal((14, 256))).astype(np.float32)
    assert likeliest_change(np.stack([one] * 7 + [two] * 7) + jitter) < 0.7
    assert likeliest_change(np.stack([one] * 14) + jitter) > 0.9
    assert likeliest_change(np.stack([one] * 4)) is None


def test_slices_are_cut_in_pauses_and_take_their_sentences_only_when_that_is_certain():
    regions = [Region(0.5 + 6 * i, 0.5 + 6 * i + 5) for i in range(6)]
    speech = regions, np.zeros(4000, np.float32)
    fitting = " ".join(["This sentence is as long as all of the others are."] * 6)
    pieces = slice_pieces(speech, 40.0, (fitting, "en"), 12.0, 0.8)
    assert all(2 <= piece.end_s - piece.start_s <= 12 for piece in pieces)
    assert " ".join(piece.text for piece in pieces) == fitting
    for uncertain in ("no punctuation at all in this text", "Short. " + "A very long sentence indeed. " * 9, None):
        assert {piece.text for piece in slice_pieces(speech, 40.0, (uncertain, "en"), 12.0, 0.8)} == {None}


def test_a_prepared_piece_is_trimmed_and_its_long_pause_shortened():
    regions = (Region(1.0, 2.0), Region(5.0, 6.0))
    samples = 0.1 * RANDOM.standard_normal(8 * RATE).astype(np.float32)
    piece = whole_piece(regions, 8.0, "text", 0.8)
    made, left_out_s = prepare_piece(samples, RATE, piece, regions, 0.8, (-20.0, -16.0, -1.0))
    assert left_out_s == pytest.approx((8.0 - 5.4) + 2.2, abs=0.01)
    assert len(made.samples) / RATE == pytest.approx(5.4 - 2.2, abs=0.01)


def test_examining_silence_one_sample_or_a_second_of_nothing_raises_nothing():
    for samples in (np.zeros((1, 1)), np.zeros((2, 16000)), np.ones((1, 300)), RANDOM.standard_normal((3, 700))):
        seen = examine(samples.astype(np.float32), RATE, 0.8)
        assert seen.speech_s >= 0
