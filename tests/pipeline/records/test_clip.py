"""A clip is called as its owner called it, wherever it is told of."""

from __future__ import annotations

from pipeline.records.clip import PreparedClip
from pipeline.records.feature import ClipFeatures, FeatureRecord


def prepared(file: str, start_s: float = 0.0, end_s: float = 4.0) -> PreparedClip:
    return PreparedClip(
        file=file,
        source="wavs/My talk-2.wav",
        start_s=start_s,
        end_s=end_s,
        text="Hello.",
        language="en",
        sample_rate_hz=16_000,
        duration_s=end_s - start_s,
        speech_s=end_s - start_s,
        gain_db=0.0,
        sha256="0" * 64,
    )


def test_a_recording_keeps_its_name_and_a_slice_says_where_it_lies() -> None:
    assert prepared("clips/00003.flac").name == "wavs/My talk-2.wav"
    slices = [prepared("clips/00003-000.flac", 0.35, 6.0), prepared("clips/00003-001.flac", 6.0, 11.25)]
    assert [one.name for one in slices] == ["wavs/My talk-2.wav [0.3-6.0 s]", "wavs/My talk-2.wav [6.0-11.2 s]"]


def test_features_of_an_earlier_version_are_found_by_the_only_name_they_had() -> None:
    old = {"text": "Hello.", "language": "en", "duration_s": 4.0, "frames": 200, "tokens": 100, "symbols": ["HH"]}
    clips = [{"clip": f"clips/0000{index}.flac", "content_sha256": f"{index}" * 64, **old} for index in (0, 1)]
    told = {"base": "nano", "base_digest": "0" * 64, "sample_rate_hz": 16_000, "hop_samples": 320, "duration_s": 8.0}
    record = FeatureRecord.model_validate({**told, "clips": clips})
    assert [one.file for one in record.clips] == ["clips/00000.flac", "clips/00001.flac"]
    assert record.index_of("clips/00001.flac") == 1


def test_an_adapter_of_an_earlier_version_finds_its_clips_among_features_made_again() -> None:
    clip = ClipFeatures(
        clip="wavs/a.wav",
        file="clips/00000.flac",
        text="Hello.",
        language="en",
        duration_s=4.0,
        frames=200,
        tokens=100,
        symbols=("HH",),
        content_sha256="0" * 64,
    )
    record = FeatureRecord(
        base="nano", base_digest="0" * 64, sample_rate_hz=16_000, hop_samples=320, clips=(clip,), duration_s=4.0
    )
    assert record.index_of("clips/00000.flac") == record.index_of("wavs/a.wav") == 0
