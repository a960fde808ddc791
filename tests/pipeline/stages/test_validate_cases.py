"""Every shared case and voice gets its outcome for its reason. Reads whatever the folders hold: other sets run unchanged."""

import csv
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from zlib import crc32

import pytest

from pipeline.io.answers import Answers
from pipeline.io.recordings import list_recordings
from pipeline.records.clip_report import ClipReport
from pipeline.records.settings import ValidateSettings
from pipeline.stages.validate.digests import DENOISER, LIKENESS, WORDS
from pipeline.stages.validate.stage import judge_folder
from pipeline.stages.validate.tools import Terms, load_tools

pytestmark = pytest.mark.slow

SETTINGS = ValidateSettings()
DATA = Path(os.environ.get("VOXLINE_SHARED", Path(__file__).resolve().parents[4] / "shared")) / "data"
ANSWERS = Answers()
STRICTNESS = {"pass": 0, "warn": 1, "repair": 2, "reject": 3}
TABLE = f"{'table: case':33} {'expected':8} {'reason':22} {'got':7} {'number':34} limit"


def cases() -> list[dict[str, str]]:
    path = DATA / "negative" / "cases.csv"
    return list(csv.DictReader(path.open(encoding="utf-8"), delimiter="|")) if path.exists() else []


def voices() -> list[Path]:
    return sorted(path.parent for path in (DATA / "voices").glob("*/metadata.csv"))


@cache
def tools():
    return load_tools(SETTINGS, Path("nowhere"), ANSWERS)


@cache
def ears(artifacts_of: Path):
    """Whisper, ECAPA and DeepFilterNet as well; what DNSMOS said of the same sound is not asked again."""
    return load_tools(SETTINGS, artifacts_of, ANSWERS)


def sampled_opinion():
    """DNSMOS for about every fourth recording: it takes half of the time, and it is the same network for all."""
    return lambda samples: tools().opinion(samples) if crc32(samples.tobytes()) % 4 == 0 else None


def judge(folder: Path, *, sampled: bool = False) -> ClipReport:
    """As `voxline validate FOLDER --language en` does; the language counts only for files without a line."""
    listed = list_recordings(folder, "en")
    asked = replace(tools(), opinion=sampled_opinion()) if sampled else tools()
    return judge_folder(listed, Terms(SETTINGS, asked, folder.name))


def row(name: str, expected: str, report: ClipReport, reason: str) -> tuple[str, str]:
    """Case, expected, got, number, limit: for the table at the end of the test output."""
    every = [*report.findings, *(finding for clip in report.clips for finding in clip.findings)]
    found = next((f for f in every if f.code == reason and f.value is not None), None)
    number = "-" if found is None else f"{found.value:.4g} {found.unit}"
    limit = "-" if found is None or found.limit is None else f"{found.limit:.4g}"
    got = ("accept" if report.accepted else "refuse") if expected in ("accept", "refuse") else report.verdict
    return TABLE, f"{name:26} {expected:8} {reason:22} {got:7} {number:34} {limit}"


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["case"])
def test_a_case_gets_its_outcome_for_its_reason(shared, case, record_property):
    report = judge(shared / "data" / "negative" / case["case"])
    record_property(*row(case["case"], case["expected"], report, case["reason"]))
    assert case["reason"] in report.reasons, report.reasons
    # As the case list says, a validator may be stricter (reject instead of repair), never laxer.
    assert STRICTNESS[report.verdict] >= STRICTNESS[case["expected"]], (report.verdict, report.reasons)
    if case["expected"] == "warn":
        assert report.verdict == "warn", report.reasons
    if case["expected"] == "reject" or report.speech_found_s < SETTINGS.speech_min_s:
        assert not report.accepted


# What ears can change: recordings that go on without them, and those whose texts or whose noise they hear. What else is
# refused is refused before an ear is asked, or for what no ear takes back; a long file without texts is not listened to.
LISTENED, UNHEARD = {"text_audio_mismatch", "low_snr", "reverberant"}, {"needs_slicing"}


def listened() -> list[dict[str, str]]:
    kept = [case for case in cases() if case["expected"] != "reject" or case["reason"] in LISTENED]
    return [case for case in kept if case["reason"] not in UNHEARD]


@pytest.mark.parametrize("case", listened(), ids=lambda case: case["case"])
def test_a_case_keeps_its_outcome_where_ears_listen(shared, artifacts, case):
    """Whisper, ECAPA and DeepFilterNet; DNSMOS answers once for both tests. One recording of what goes on."""
    pytest.importorskip("ctranslate2")
    for name in (DENOISER, LIKENESS, WORDS):
        cache = artifacts(name).parent.parent
    listed = list_recordings(shared / "data" / "negative" / case["case"], "en")
    is_refused = case["expected"] == "reject"
    listed = replace(listed, clips=listed.clips[: len(listed.clips) if is_refused else 1])
    report = judge_folder(listed, Terms(SETTINGS, ears(cache), case["case"]))
    refused = {one.code for clip in report.clips for one in clip.findings if one.severity == "reject"}
    if is_refused:
        assert case["reason"] in report.reasons and report.verdict == "reject", report.reasons
    else:
        assert not refused & {*LISTENED, "multiple_speakers", "not_speech"}, report.reasons


@pytest.mark.parametrize("folder", voices(), ids=lambda folder: folder.name)
def test_a_voice_of_a_minute_passes_and_a_short_one_is_refused_with_its_seconds(shared, folder, record_property):
    report = judge(folder, sampled=True)
    expected = "refuse" if folder.name.startswith("short_") else "accept"
    record_property(*row(folder.name, expected, report, "not_enough_speech"))
    if folder.name.startswith("short_"):
        assert not report.accepted
        (finding,) = [finding for finding in report.findings if finding.code == "not_enough_speech"]
        assert (finding.value, finding.limit) == (report.speech_usable_s, 60.0)
        return
    assert report.accepted, (report.reasons, report.speech_usable_s)
    assert report.speech_usable_s >= 0.9 * report.speech_found_s
