"""Real speakers through the line: imported, trained on a tiny base and judged; or refused with the seconds found."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

IMPORT = ("--license", "CC0-1.0", "--consent-speaker", "Somebody", "--consent-date", "2026-01-09", "--base", "tiny")


@pytest.fixture
def repository_of(shared, tmp_path: Path, monkeypatch, voxline, write_tiny_base):
    """A repository with one imported voice of the shared recordings, trained for one short epoch."""

    def make(folder: str, name: str, language: str) -> Path:
        write_tiny_base(tmp_path)
        settings = tmp_path / "pipeline.toml"
        written = settings.read_text().replace("speech_min_s = 10", "speech_min_s = 60")
        settings.write_text(written.replace("[finetune]\n", "[finetune]\nepochs = 1\nrank = 2\n"))
        monkeypatch.chdir(tmp_path)
        source = str(shared / "data" / "voices" / folder)
        answer = voxline("import", source, "--name", name, "--language", language, *IMPORT)
        assert answer.code == 0, answer.err
        return tmp_path

    return make


def test_linda_johnson_goes_through_to_the_gate(repository_of, voxline) -> None:
    root = repository_of("en_lj", "lj", "en")
    answer = voxline("run", "lj", "--json")
    (run,) = json.loads(answer.out)
    assert answer.code == 11, answer.err
    assert [stage["stage"] for stage in run["stages"]] == ["validate", "extract", "finetune", "evaluate"]
    report = json.loads(next(root.glob("work/lj/evaluate/*/report/report.json")).read_text())
    recorded = {sample["name"] for sample in report["samples"] if sample["evidence"] == "copy_synthesis"}
    assert len(recorded) == 2


def test_a_mandarin_voice_is_read_and_extracted(repository_of, voxline) -> None:
    root = repository_of("zh_aishell_S0150", "li", "zh")
    answer = voxline("run", "li", "--until", "extract", "--json")
    assert answer.code == 0, answer.err
    (result,) = [json.loads(path.read_text()) for path in root.glob("work/li/extract/*/result.json")]
    record = result["output"]
    assert record["left_out"] == []
    assert record["duration_s"] > 60
    assert all(clip["language"] == "zh" and len(clip["symbols"]) > 8 for clip in record["clips"])


def test_twenty_seconds_are_refused_with_what_was_found_and_what_is_needed(repository_of, voxline) -> None:
    repository_of("short_en_libri_1089", "short", "en")
    answer = voxline("run", "short", "--json")
    (run,) = json.loads(answer.out)
    assert (answer.code, run["exit_code"], run["status"]) == (10, 10, "voice refused")
    found = re.search(r"([0-9.]+) s of good speech found, 60 s needed", run["message"])
    assert found and 5 < float(found.group(1)) < 25
