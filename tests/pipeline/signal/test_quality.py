import numpy as np
import pytest

from pipeline.signal import quality

RATE_HZ = 16000


def speechlike(duration_s: float = 2.0, pitch_hz: float = 120.0, seed: int = 0) -> np.ndarray:
    """Pulses at a gliding pitch through two moving resonances, in syllables: enough of speech for every measure here."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(duration_s * RATE_HZ)) / RATE_HZ
    phase = np.cumsum(pitch_hz * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * time_s))) / RATE_HZ
    harmonics = sum(np.sin(2 * np.pi * k * phase) / k for k in range(1, 30))
    syllables = np.clip(np.sin(2 * np.pi * 3 * time_s + rng.uniform(0, 6)), 0, 1)
    noise = rng.standard_normal(len(time_s)) * np.clip(-np.sin(2 * np.pi * 3 * time_s), 0, 1) * 0.05
    return (0.2 * harmonics * syllables + noise).astype(np.float32)


@pytest.mark.parametrize("delay", [-800, -37, 0, 5, 1200])
def test_a_delay_is_found_and_undone(delay: int) -> None:
    clip = speechlike()
    moved = np.concatenate([np.zeros(delay, np.float32), clip]) if delay >= 0 else clip[-delay:]

    aligned = quality.align_globally(clip, moved, max_delay_samples=1600)

    assert aligned.delay_samples == delay
    assert len(aligned.reference) == len(aligned.other)
    assert np.array_equal(aligned.reference, aligned.other)


def test_alignment_gives_stoi_back_what_a_delay_took() -> None:
    clip = speechlike()
    late = np.concatenate([np.zeros(800, np.float32), clip])[: len(clip)]
    aligned = quality.align_globally(clip, late, max_delay_samples=1600)

    unaligned_score = quality.stoi(clip, late, RATE_HZ)
    aligned_score = quality.stoi(aligned.reference, aligned.other, RATE_HZ)

    assert unaligned_score is not None and aligned_score is not None
    assert aligned_score > 0.99 > unaligned_score + 0.1


@pytest.mark.parametrize("seed", range(3))
def test_a_wave_with_phases_of_its_own_is_not_aligned_to_another_pitch_period(seed: int) -> None:
    """A decoder may keep every magnitude and invent the phases; the waves then agree best half a period away."""
    invented = np.random.default_rng(seed).uniform(-np.pi, np.pi, 30)
    invented[1] = np.pi  # the fundamental upside down

    aligned = quality.align_globally(voiced(np.zeros(30)), voiced(invented), max_delay_samples=1600)

    assert abs(aligned.delay_samples) < 40


def voiced(phases: np.ndarray) -> np.ndarray:
    """Syllables at a gliding pitch around 90 Hz whose harmonics start at the given phases."""
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    phase = np.cumsum(90.0 * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * time_s))) / RATE_HZ
    harmonics = sum(np.sin(2 * np.pi * k * phase + phases[k]) / k for k in range(1, 30))
    return (0.2 * harmonics * np.clip(np.sin(2 * np.pi * 3 * time_s + 4.0), 0, 1)).astype(np.float32)


def test_every_measure_is_best_for_the_same_clip_and_falls_with_noise() -> None:
    clip = speechlike(3.0)
    rng = np.random.default_rng(1)
    worse = [clip + rng.standard_normal(len(clip)).astype(np.float32) * level for level in (0.0, 0.02, 0.2)]

    pesq = [quality.pesq_wb(clip, one) for one in worse]
    stoi = [quality.stoi(clip, one, RATE_HZ) for one in worse]
    distortion = [quality.mel_cepstral_distortion(clip, one, RATE_HZ) for one in worse]

    assert pesq[0] == pytest.approx(4.644, abs=0.01)
    assert pesq == sorted(pesq, reverse=True)
    assert stoi[0] == pytest.approx(1.0, abs=1e-6)
    assert stoi == sorted(stoi, reverse=True)
    assert distortion[0] == pytest.approx(0.0, abs=1e-6)
    assert distortion == sorted(distortion)


def test_distortion_does_not_mind_another_timing() -> None:
    clip = speechlike()
    paused = np.concatenate([clip[:8000], np.repeat(clip[8000:8400], 1), clip[8000:]])

    same_words = quality.mel_cepstral_distortion(clip, paused, RATE_HZ)
    other_words = quality.mel_cepstral_distortion(clip, speechlike(pitch_hz=250.0, seed=4)[::-1].copy(), RATE_HZ)

    assert same_words is not None and other_words is not None
    assert same_words < other_words / 2


@pytest.mark.parametrize("pitch_hz", [70.0, 120.0, 240.0, 400.0])
def test_pitch_of_a_buzz_is_found(pitch_hz: float) -> None:
    time_s = np.arange(RATE_HZ) / RATE_HZ
    buzz = sum(np.sin(2 * np.pi * k * pitch_hz * time_s) / k for k in range(1, 10))

    track = quality.pitch_track(buzz, RATE_HZ)

    assert np.mean(track > 0) > 0.95
    assert np.median(track[track > 0]) == pytest.approx(pitch_hz, rel=0.01)


def test_noise_has_no_pitch() -> None:
    noise = np.random.default_rng(0).standard_normal(RATE_HZ)
    assert np.mean(quality.pitch_track(noise, RATE_HZ) > 0) < 0.1


def test_pitch_error_is_a_semitone_for_a_semitone() -> None:
    low, high = speechlike(pitch_hz=120.0), speechlike(pitch_hz=120.0 * 2 ** (1 / 12))

    same, shifted = quality.pitch_error(low, low, RATE_HZ), quality.pitch_error(low, high, RATE_HZ)

    assert same is not None and shifted is not None
    assert same.rmse_cents == pytest.approx(0.0, abs=1e-6)
    assert shifted.rmse_cents == pytest.approx(100.0, abs=25.0)


@pytest.mark.parametrize("signal", [np.zeros(16000, np.float32), np.zeros(100, np.float32)])
def test_silence_is_not_measured_instead_of_scored(signal: np.ndarray) -> None:
    assert quality.pesq_wb(signal, signal) is None
    assert quality.stoi(signal, signal, RATE_HZ) is None
    assert quality.pitch_error(signal, signal, RATE_HZ) is None


def test_a_path_runs_from_corner_to_corner_in_single_steps() -> None:
    distances = np.random.default_rng(0).random((7, 11))

    rows, columns = quality.dtw_path(distances)

    assert (rows[0], columns[0]) == (0, 0)
    assert (rows[-1], columns[-1]) == (6, 10)
    assert set(zip(np.diff(rows), np.diff(columns), strict=True)) <= {(0, 1), (1, 0), (1, 1)}


def test_an_interval_holds_its_mean_and_narrows_with_more_values() -> None:
    rng = np.random.default_rng(0)
    few, many = quality.bootstrap(rng.normal(3.0, 1.0, 5)), quality.bootstrap(rng.normal(3.0, 1.0, 500))

    assert few.low <= few.mean <= few.high
    assert many.high - many.low < few.high - few.low
    assert many.low < 3.0 < many.high


def test_pairing_finds_a_small_but_constant_loss() -> None:
    old = np.random.default_rng(0).normal(3.0, 1.0, 6)
    difference = quality.paired_bootstrap((old - 0.1).tolist(), old.tolist())

    assert difference.high < 0
    with pytest.raises(ValueError, match="not the same clips"):
        quality.paired_bootstrap([1.0], [1.0, 2.0])
