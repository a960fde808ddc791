"""voxline bases, for people and for scripts."""

from __future__ import annotations

import json


def test_a_base_is_shown_on_one_screen_and_whole_on_demand(line, voxline, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    short = voxline("bases", "show", "nano")
    assert short.code == 0 and len(short.out.splitlines()) <= 24, short.out
    assert all(word in short.out for word in ("en zh", "PESQ-WB at least", "embedded", "--full"))
    assert len(voxline("bases", "show", "nano", "--full").out.splitlines()) > 100
    assert json.loads(voxline("bases", "show", "nano", "--json").out)["gate"]["pesq_wb"] > 1


def test_pulling_tells_scripts_what_came(line, voxline):
    assert json.loads(voxline("bases", "pull", "nano", "--json").out) == {"name": "nano", "pulled": []}


def test_the_old_way_to_the_denoiser_warns_and_takes_the_new_one(line, voxline, tmp_path):
    told = voxline("bases", "pull", "deepfilternet", "--from", str(tmp_path))
    assert told.code == 3, "nothing lies in that folder"
    assert "warning: this is called voxline artifacts pull deepfilternet3 now" in told.err
    assert "FOLDER/deepfilternet3/" in told.err
