"""What the jobs of a pipeline keep, in proportion to the recordings: nothing twice, and no page larger than it need be."""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import yaml

from pipeline.cli.main import run_command

pytestmark = pytest.mark.slow

MOST = 1.5  # times the files of the voice, packed as GitLab stores what jobs keep
WITHOUT_EARS = "dnsmos = false\nspeakers = false\nacoustic = false\n"  # what they say is a few numbers
AFTER_EXTRACT = 0.65e6  # bytes: adapters, reference clip and quality report of a nano voice, whatever its recordings


def commit(root: Path) -> None:
    git = ["git", "-C", str(root), "-c", "user.name=Ana Perez", "-c", "user.email=ana@example.org"]
    for words in (["init", "-q"], ["add", "voices", "pipeline.toml"], ["commit", "-q", "-m", "Add a voice"]):
        subprocess.run([*git, *words], check=True, capture_output=True)


def kept(root: Path) -> dict[str, list[Path]]:
    """Stage -> the files that its job keeps, as the generated pipeline lists them."""
    assert run_command(["plan", "--base", "", "--head", "HEAD", "--format", "gitlab", "--output", "voices.yml"]) == 0
    jobs = yaml.safe_load((root / "voices.yml").read_text())
    return {
        name.partition(":")[0]: sorted(
            {path for pattern in job["artifacts"]["paths"] for path in root.glob(pattern) if path.is_file()}
        )
        for name, job in jobs.items()
        if isinstance(job, dict) and "artifacts" in job
    }


def packed_bytes(paths: list[Path]) -> int:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in paths:
            packed.write(path)
    return len(archive.getvalue())


def recordings_bytes(root: Path, voice: str) -> int:
    return sum(path.stat().st_size for path in (root / "voices" / voice / "wavs").iterdir())


@pytest.fixture
def place(tmp_path: Path, repository: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    settings = (repository / "pipeline.toml").read_text()
    settings = settings.replace("[validate]\n", f"[validate]\n{WITHOUT_EARS}")
    Path("pipeline.toml").write_text(settings + "\n[finetune]\nepochs = 1\n")  # adapters are as large as after forty
    return tmp_path


def test_a_flac_voice_keeps_no_more_than_one_and_a_half_times_its_recordings(place: Path, repository: Path) -> None:
    shutil.copytree(repository / "voices" / "sample", place / "voices" / "sample")
    commit(place)
    assert run_command(["run", "sample", "--until", "evaluate"]) in (0, 11)
    found = kept(place)
    sizes = {stage: packed_bytes(paths) for stage, paths in found.items()}
    assert list(sizes) == ["validate", "extract", "finetune", "evaluate"] and all(sizes.values())
    assert sum(sizes.values()) <= MOST * recordings_bytes(place, "sample"), sizes
    assert sizes["finetune"] + sizes["evaluate"] <= AFTER_EXTRACT, sizes
    contents = Counter(path.read_bytes() for paths in found.values() for path in paths)
    assert max(contents.values()) == 1


def test_a_wav_voice_leaves_room_for_its_adapters_and_its_report(place: Path, shared: Path) -> None:
    """Its later stages keep what those of the FLAC voice keep, so they need not run again for it."""
    consent = ["--license", "CC0-1.0", "--consent-speaker", "Somebody", "--consent-date", "2026-01-09"]
    source = str(shared / "data" / "voices" / "en_lj")
    assert run_command(["import", source, "--name", "lj", "--language", "en", "--base", "nano", *consent]) == 0
    commit(place)
    assert run_command(["run", "lj", "--until", "extract"]) == 0
    sizes = {stage: packed_bytes(paths) for stage, paths in kept(place).items()}
    assert sizes["validate"] > 0 and sizes["extract"] > 0
    assert sum(sizes.values()) + AFTER_EXTRACT <= MOST * recordings_bytes(place, "lj"), sizes
