"""voxline plan, as a person and as a CI engine call it."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
import yaml

from pipeline.io import git
from pipeline.records.plan import Plan


@pytest.fixture
def three(line):
    """One voice to train, one to republish, one to retire, one that is done."""
    for name in ("back", "done", "gone"):
        line.write_voice(name, sound=name.encode())
    line.commit()
    for name in ("back", "done", "gone"):
        line.publish(name)
    line.write_voice("back", sound=b"take two")
    line.commit()
    line.publish("back")
    line.write_voice("back", sound=b"back")
    line.write_voice("fresh", sound=b"fresh")
    shutil.rmtree(line.root / "voices" / "gone")
    line.commit()
    return line


def test_the_table_shows_what_has_to_be_done_and_counts_the_rest(three, voxline):
    answer = voxline("plan", "--base", "HEAD~1")
    assert answer.code == 0, answer.err
    assert "4 voices: 1 train, 1 republish, 1 retire, 1 skip" in answer.out
    assert "production serves" not in answer.out
    assert "production serves" in " ".join(voxline("plan", "--all").out.split())


def test_json_is_a_plan(three, voxline):
    plan = Plan.model_validate_json(voxline("plan", "--base", "HEAD~1", "--json").out)
    assert {entry.voice: entry.action for entry in plan.entries} == {
        "back": "republish",
        "done": "skip",
        "fresh": "train",
        "gone": "retire",
    }
    assert plan.base == three.git("rev-parse", "HEAD~1")


def test_changed_only_leaves_out_what_others_broke(three, voxline):
    three.write_voice("late", sound=b"late")
    three.commit()
    plan = json.loads(voxline("plan", "--base", "HEAD~1", "--changed-only", "--json").out)
    assert [entry["voice"] for entry in plan["entries"]] == ["late"]


def test_a_merge_request_only_validates(three, voxline):
    child = yaml.safe_load(voxline("plan", "--format", "gitlab", "--through", "validate").out)
    assert [name for name, job in child.items() if "script" in job] == ["validate:fresh"]
    branches = json.loads(voxline("plan", "--format", "jenkins", "--through", "validate").out)["branches"]
    assert [step["command"] for branch in branches for step in branch["steps"]] == [
        "voxline validate fresh --report reports/fresh"
    ]


def test_an_empty_plan_is_still_a_pipeline_with_a_job(line, voxline, tmp_path):
    line.commit()
    assert voxline("plan", "--format", "gitlab", "-o", str(tmp_path / "child.yml")).code == 0
    assert "nothing to do" in yaml.safe_load((tmp_path / "child.yml").read_text())
    assert json.loads(voxline("plan", "--format", "jenkins").out)["branches"] == []
    assert json.loads(voxline("plan", "--format", "github").out) == {"include": []}


@pytest.mark.parametrize("base", ["", "0" * 40, "no-such-branch", "--exec=x"])
def test_whatever_the_engine_says_the_base_was_the_plan_comes(three, voxline, base):
    answer = voxline("plan", f"--base={base}", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["note"]


def test_a_folder_name_that_could_break_a_job_stops_the_plan_with_3(line, voxline):
    line.write_voice("$(touch x)")
    line.commit()
    answer = voxline("plan", "--format", "gitlab")
    assert (answer.code, answer.out) == (3, "")
    assert "rename the folder" in answer.err


def test_reasons_never_reach_a_command_line(line, voxline, manifest_text):
    line.write_voice("ana")
    line.commit()
    line.publish("ana")
    line.write_voice("ana", manifest=manifest_text.replace("license", "  expires_on: 2026-02-01\nlicense") + "")
    line.commit()
    branches = json.loads(voxline("plan", "--format", "jenkins").out)["branches"]
    assert branches[0]["steps"][0]["command"] == "voxline registry retire ana --reason 'consent missing or expired'"


def test_outside_a_repository_the_exit_code_is_2(tmp_path, monkeypatch, voxline):
    monkeypatch.chdir(tmp_path)
    answer = voxline("plan")
    assert (answer.code, "voxline plan --worktree" in answer.err) == (2, True)


def test_an_unknown_head_is_2(line, voxline):
    line.commit()
    answer = voxline("plan", "--head", "nope")
    assert (answer.code, "'nope' is not a commit" in answer.err) == (2, True)


def test_a_foreign_owner_is_explained(line, voxline, monkeypatch):
    line.commit()
    passed = git._environment()  # no variable of ours reaches git but those it needs
    monkeypatch.setattr(git, "_environment", lambda: {**passed, "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"})
    answer = voxline("plan")
    assert (answer.code, "safe.directory" in answer.err) == (2, True)


def test_a_plan_with_a_real_lfs_repository_counts_recordings_not_pointers(line, voxline):
    if shutil.which("git-lfs") is None:
        pytest.skip("git-lfs is not installed")
    line.git("lfs", "install", "--local")
    line.git("lfs", "track", "voices/**/*.wav")
    line.write_voice("ana", sound=b"recording" * 300)
    line.commit()
    pointer = subprocess.check_output(["git", "show", "HEAD:voices/ana/wavs/1.wav"], cwd=line.root)
    assert pointer.startswith(b"version https://git-lfs")
    line.publish("ana")
    shutil.rmtree(line.root / "work", ignore_errors=True)
    assert json.loads(voxline("plan", "--json").out)["entries"][0]["action"] == "skip"
    assert json.loads(voxline("plan", "--worktree", "--json").out)["entries"][0]["action"] == "skip"


def test_a_table_is_not_written_to_a_file(line, voxline):
    answer = voxline("plan", "--worktree", "--output", "plan.txt")
    assert (answer.code, "add --json or --format" in answer.err) == (2, True)
    assert not (line.root / "plan.txt").exists()


def test_the_log_shows_the_table_whatever_the_output_is(three, voxline, tmp_path):
    for form in ("gitlab", "jenkins", "github", "json"):
        answer = voxline("plan", "--base", "HEAD~1", "--format", form, "--output", str(tmp_path / "plan"))
        assert (answer.code, answer.out) == (0, "")
        told = " ".join(answer.err.split())
        for words in ("back republish", "fresh train", "gone retire", "folder deleted", "4 voices: 1 train"):
            assert words in told


def test_a_deletion_that_changes_nothing_does_not_look_done(three, voxline, monkeypatch):
    """The registry's voice came from another repository: its folder goes here, and it is served on."""
    for name, value in {"GITLAB_CI": "true", "CI_PROJECT_PATH": "group/copy"}.items():
        monkeypatch.setenv(name, value)
    release = three.registry.resolve("gone")
    owned = release.model_copy(
        update={"provenance": release.provenance.model_copy(update={"repository": "group/voices"})}
    )
    monkeypatch.setattr(type(three.registry), "release", lambda *_: owned)
    told = " ".join(voxline("plan", "--base", "HEAD~1").out.split())
    assert "gone skip deleted" in told
    assert "served on" in told and "voxline registry retire gone" in told
    assert "1 deleted here but served on" in told
    assert "1 published from other repositories, see --all" in " ".join(voxline("plan").out.split())


def test_what_plan_was_told_is_told_to_the_jobs(three, voxline):
    line = "voxline publish back --registry file:elsewhere"
    assert line not in voxline("plan", "--format", "gitlab").out
    other = voxline("plan", "--format", "github", "--registry", "file:elsewhere", "--base-model", "gpt-sovits-v2").out
    assert "voxline validate fresh --record --registry file:elsewhere" in other
    assert "voxline extract fresh --base gpt-sovits-v2" in other


def test_a_merge_request_s_plan_never_trains_whatever_it_was_asked(three, voxline, monkeypatch):
    monkeypatch.setenv("CI_MERGE_REQUEST_IID", "7")
    three.git("update-ref", "refs/remotes/origin/HEAD", "HEAD")
    found = json.loads(voxline("plan", "--format", "jenkins", "--through", "publish").out)["branches"]
    assert [step["command"] for branch in found for step in branch["steps"]] == [
        "voxline validate fresh --report reports/fresh --untrusted"
    ]
