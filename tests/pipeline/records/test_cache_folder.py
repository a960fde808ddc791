"""The folder of pulled bases is the same for whoever asks: `~` is spelled out in one place."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.io.audio import write_audio
from pipeline.records.settings import GeneralSettings
from pipeline.stages.validate import tools


def test_a_tilde_is_the_home_of_whoever_runs_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert GeneralSettings(cache="~/kept").cache_folder == tmp_path / "kept"
    assert GeneralSettings(cache="kept").cache_folder == Path("kept")


def test_a_folder_that_is_no_voice_is_judged_with_what_lies_there(monkeypatch, tmp_path, voxline):
    asked = []

    def load(settings, cache):
        asked.append(cache)
        return tools.Tools()

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VOXLINE_CACHE", "~/kept")
    monkeypatch.setattr(tools, "load_tools", load)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recordings").mkdir()
    write_audio(tmp_path / "recordings" / "1.wav", np.zeros(16_000, np.float32), 16_000)
    assert voxline("validate", "./recordings", "--language", "en").code == 10
    assert asked == [tmp_path / "home" / "kept"]
