import io
import os
import struct
import subprocess
import tracemalloc
from shutil import which

import numpy as np
import pytest
import soundfile

from pipeline.io.audio import (
    AudioFileError,
    AudioLimits,
    decode_listened,
    encode_audio,
    encode_for_listening,
    read_audio,
    resample,
    sniff_container,
    write_audio,
)


def tone(duration_s=0.5, sample_rate_hz=22050, channels=1, hz=440.0):
    time = np.arange(int(duration_s * sample_rate_hz)) / sample_rate_hz
    return np.tile(0.5 * np.sin(2 * np.pi * hz * time), (channels, 1)).astype(np.float32)


def fault_of(path, limits=None):
    with pytest.raises(AudioFileError) as caught:
        read_audio(path, limits)
    return caught.value.fault


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_the_container_is_recognised_by_its_bytes_whatever_the_name_says(tmp_path, container):
    subtype = {"OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}.get(container, "PCM_16")
    path = tmp_path / "wrong.txt"
    path.write_bytes(encode_audio(tone(), 22050, container, subtype))
    audio = read_audio(path)
    assert audio.info.container == container
    assert audio.samples.shape[0] == 1
    assert abs(audio.samples.shape[1] - 11025) < 2400
    assert np.sqrt(np.mean(audio.samples[0, 2000:9000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


def test_writing_and_reading_keeps_the_samples_and_the_channels(tmp_path):
    samples = np.stack([tone()[0], -0.25 * tone(hz=300)[0]])
    write_audio(tmp_path / "a.wav", samples, 22050, "PCM_24")
    audio = read_audio(tmp_path / "a.wav")
    assert audio.samples.shape == samples.shape
    assert np.abs(audio.samples - samples).max() < 2e-7
    assert list(tmp_path.iterdir()) == [tmp_path / "a.wav"]


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken.flac").mkdir()
    with pytest.raises(OSError):
        write_audio(tmp_path / "taken.flac", tone(), 22050)
    assert list(tmp_path.iterdir()) == [tmp_path / "taken.flac"]


def test_a_header_that_promises_more_than_the_file_holds_is_corrupt(tmp_path):
    data = encode_audio(tone(), 22050, "WAV")
    (tmp_path / "half.wav").write_bytes(data[: len(data) // 2])
    assert fault_of(tmp_path / "half.wav") == "corrupt"
    flac = encode_audio(tone(5), 22050, "FLAC")
    (tmp_path / "half.flac").write_bytes(flac[: len(flac) // 2])
    assert fault_of(tmp_path / "half.flac") == "corrupt"


def test_a_wav_from_a_pipe_without_a_known_size_is_read(tmp_path):
    data = bytearray(encode_audio(tone(), 22050, "WAV"))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    (tmp_path / "pipe.wav").write_bytes(data)
    assert read_audio(tmp_path / "pipe.wav").samples.shape == (1, 11025)


def test_bounds_hold_before_and_while_decoding(tmp_path):
    (tmp_path / "a.flac").write_bytes(encode_audio(tone(2), 22050, "FLAC"))
    assert fault_of(tmp_path / "a.flac", AudioLimits(max_duration_s=1.0)) == "too_long"
    assert fault_of(tmp_path / "a.flac", AudioLimits(max_bytes=1000)) == "too_large"
    (tmp_path / "a.ogg").write_bytes(encode_audio(tone(2), 22050, "OGG", "VORBIS"))
    assert fault_of(tmp_path / "a.ogg", AudioLimits(max_duration_s=1.0)) == "too_long"
    (tmp_path / "wide.wav").write_bytes(encode_audio(tone(0.1, channels=20), 22050, "WAV"))
    assert fault_of(tmp_path / "wide.wav") == "unsupported_format"


def test_links_pipes_and_lfs_pointers_are_named_for_what_they_are(tmp_path):
    (tmp_path / "real.wav").write_bytes(encode_audio(tone(), 22050, "WAV"))
    (tmp_path / "link.wav").symlink_to(tmp_path / "real.wav")
    assert fault_of(tmp_path / "link.wav") == "unsafe_path"
    os.mkfifo(tmp_path / "pipe.wav")
    assert fault_of(tmp_path / "pipe.wav") == "unreadable"
    assert fault_of(tmp_path / "absent.wav") == "unreadable"
    (tmp_path / "pointer.wav").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(AudioFileError, match="git lfs pull"):
        read_audio(tmp_path / "pointer.wav")


def test_what_the_header_says_is_told(tmp_path):
    write_audio(tmp_path / "a.flac", tone(3, channels=2), 22050)
    info = read_audio(tmp_path / "a.flac").info
    assert (info.container, info.channels, info.sample_rate_hz, info.duration_s) == ("FLAC", 2, 22050, 3.0)


def test_non_finite_samples_survive_decoding_so_that_they_can_be_reported(tmp_path):
    samples = tone()
    samples[0, 100] = np.nan
    (tmp_path / "n.wav").write_bytes(encode_audio(samples, 22050, "WAV", "FLOAT"))
    assert np.isnan(read_audio(tmp_path / "n.wav").samples).sum() == 1


def test_resampling_keeps_a_tone_and_removes_what_does_not_fit():
    kept = resample(tone(1, 48000), 48000, 16000)
    assert kept.shape == (1, 16000)
    assert np.sqrt(np.mean(kept[0, 1000:-1000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=1e-3)
    aliased = resample(tone(1, 48000, hz=10000)[0], 48000, 16000)
    assert np.abs(aliased[1000:-1000]).max() < 1e-4


def test_text_is_no_audio():
    assert sniff_container(b"hello, this is text") is None
    assert sniff_container(b"") is None


THROUGH_FFMPEG = {
    "speech.m4a": ("M4A", "AAC", ["-c:a", "aac", "-b:a", "128k"]),
    "speech.aac": ("AAC", "AAC", ["-c:a", "aac", "-b:a", "128k", "-f", "adts"]),
    "speech.webm": ("MATROSKA", "OPUS", ["-c:a", "libopus", "-b:a", "64k"]),
    "speech.wma": ("ASF", "WMAV2", ["-c:a", "wmav2", "-b:a", "128k"]),
    "speech.3gp": ("M4A", "AAC", ["-c:a", "aac", "-b:a", "64k"]),
}


@pytest.fixture
def spoken(request):
    audio = read_audio(sorted((request.config.rootpath / "voices" / "sample" / "wavs").glob("*"))[0])
    return resample(audio.mono, audio.sample_rate_hz, 48000)


@pytest.mark.skipif(which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("name", THROUGH_FFMPEG)
def test_what_phones_and_browsers_record_is_read_through_ffmpeg(tmp_path, spoken, name):
    container, codec, options = THROUGH_FFMPEG[name]
    write_audio(tmp_path / "speech.wav", spoken, 48000)
    command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "speech.wav"), *options, str(tmp_path / name)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip(f"this ffmpeg encodes no {codec}")
    audio = read_audio(tmp_path / name)
    assert (audio.info.container, audio.info.subtype, audio.sample_rate_hz) == (container, codec, 48000)
    assert audio.info.size_bytes == (tmp_path / name).stat().st_size
    assert audio.duration_s == pytest.approx(len(spoken) / 48000, abs=0.15)
    spectra = [np.abs(np.fft.rfft(one, 1 << 19)) for one in (spoken, audio.mono)]  # codecs delay, the spectrum stays
    assert np.corrcoef(spectra[0][:50000], spectra[1][:50000])[0, 1] > 0.9


@pytest.mark.skipif(which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_a_broken_or_endless_file_does_not_get_through_ffmpeg(tmp_path, spoken):
    write_audio(tmp_path / "speech.wav", spoken, 48000)
    whole, cut = tmp_path / "whole.m4a", tmp_path / "cut.m4a"
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(tmp_path / "speech.wav"), str(whole)], check=True)
    cut.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(AudioFileError) as caught:
        read_audio(cut)
    assert caught.value.fault == "corrupt"
    with pytest.raises(AudioFileError) as caught:
        read_audio(whole, AudioLimits(max_duration_s=1.0))
    assert caught.value.fault == "too_long"


def test_without_ffmpeg_a_phone_recording_is_refused_with_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "memo.m4a").write_bytes(b"\x00\x00\x00\x18ftypM4A \x00\x00\x02\x00isomiso2" + bytes(500))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AudioFileError) as caught:
        read_audio(tmp_path / "memo.m4a")
    assert caught.value.fault == "unsupported_format"
    assert caught.value.detail == "M4A audio needs ffmpeg (not installed); convert it to FLAC"


@pytest.mark.parametrize("name", ["hours.flac", "hours.wav", "hours.ogg"])
def test_a_recording_of_hours_is_refused_before_it_is_held_in_memory(tmp_path, spoken, name):
    limits = AudioLimits(max_duration_s=20.0)
    write_audio(tmp_path / name, np.tile(spoken, -(-60 * 48000 // len(spoken))), 48000)
    tracemalloc.start()
    with pytest.raises(AudioFileError) as caught:
        read_audio(tmp_path / name, limits)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.fault == "too_long"
    assert peak_bytes < 4 * 48000 * 45  # what is allowed and a block, not the minute of the file


@pytest.mark.parametrize("rate_hz", [8000, 16000, 20000, 22050, 48000, 96000])
def test_a_sound_to_listen_to_is_a_small_opus_file_of_the_same_length_at_any_rate(rate_hz):
    seconds = np.arange(2 * rate_hz) / rate_hz
    tone = (0.3 * np.sin(2 * np.pi * 440 * seconds)).astype(np.float32)
    data = encode_for_listening(tone, rate_hz)
    info = soundfile.info(io.BytesIO(data))
    assert (info.format, info.subtype, info.channels) == ("OGG", "OPUS", 1)
    assert info.duration == pytest.approx(2.0, abs=0.15)
    heard, heard_hz = decode_listened(data)
    assert len(heard) / heard_hz == pytest.approx(2.0, abs=0.15)
    assert len(data) < 0.15 * len(encode_audio(tone, rate_hz, "WAV"))


def test_what_was_not_made_for_listening_is_not_decoded_as_such():
    tone = np.zeros(16000, np.float32)
    for data in (b"", b"no sound", encode_audio(tone, 16000, "WAV"), encode_audio(tone, 16000, "OGG", "VORBIS")):
        assert decode_listened(data) is None
