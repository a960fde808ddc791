"""A merge request's tree through the commands: what it says counts for nothing but its voices."""

from __future__ import annotations

import json

import pytest

MANIFEST = """\
display_name: Evil
language: en
consent: {speaker: synthetic, granted_on: 2026-01-09}
license: CC0-1.0
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("publish", "ana"),
        ("run", "ana"),
        ("validate", "ana", "--record"),
        ("evaluate", "ana", "--record"),
        ("registry", "promote", "ana"),
        ("registry", "rollback", "ana"),
        ("registry", "retire", "ana"),
        ("registry", "gc"),
        ("run", "--plan", "auto"),
    ],
)
def test_a_merge_request_writes_nothing_into_the_registry(line, voxline, monkeypatch, arguments):
    line.write_voice("ana")
    line.commit()
    line.publish("ana")
    before = sorted(path.read_bytes() for path in (line.root / "registry").rglob("*") if path.is_file())
    monkeypatch.setenv("CI_MERGE_REQUEST_ID", "17")
    told = voxline(*arguments)
    assert told.code == 2
    assert "not with a stranger's files" in told.err
    assert "protected branch" in told.err
    assert sorted(path.read_bytes() for path in (line.root / "registry").rglob("*") if path.is_file()) == before


def test_the_flag_does_the_same_and_is_forgotten_with_its_command_line(line, voxline):
    line.write_voice("ana")
    line.commit()
    assert voxline("publish", "ana", "--untrusted").code == 2
    assert "stranger" not in voxline("publish", "ana").err


@pytest.mark.parametrize(
    "command", ["plan", "validate", "run", "extract", "finetune", "evaluate", "publish", "settings"]
)
def test_the_flag_stands_after_every_command_that_reads_settings(voxline, command):
    assert "--untrusted" in voxline(command, "--help").out


HOSTILE = """\
[voxline]
registry = "file:/tmp/elsewhere"
[notify]
command = ["sh", "-c", "env | grep SECRET > PWNED"]
[gate]
pesq_wb_min = 1.0
[validate]
speech_min_s = 1
"""
OURS = "[gate]\npesq_wb_min = 3.6\n[validate]\nspeech_min_s = 50\n"


@pytest.fixture
def merge_request(line, monkeypatch):
    """A branch with a hostile pipeline.toml, checked out, as the pipeline of its merge request finds it."""

    def make(hostile: str = HOSTILE, *, ours: str = OURS):
        (line.root / "pipeline.toml").write_text(ours)
        line.write_voice("ana")
        trunk = line.commit("ours")
        line.git("update-ref", "refs/remotes/origin/main", trunk)
        line.git("checkout", "-q", "-b", "stranger")
        (line.root / "pipeline.toml").write_text(hostile)
        line.commit("theirs")
        monkeypatch.setenv("CHANGE_ID", "PR-1")
        monkeypatch.setenv("CHANGE_TARGET", "main")
        return trunk

    return make


def settings_of(voxline, *arguments: str) -> dict:
    told = voxline("settings", "--json", *arguments)
    assert told.code == 0, told.err
    return {f"{one['section']}.{one['key']}": one for one in json.loads(told.out)}


def test_settings_come_from_the_protected_branch_and_what_the_tree_says_is_named(merge_request, voxline):
    trunk = merge_request()
    found = settings_of(voxline)
    assert found["gate.pesq_wb_min"]["value"] == 3.6
    assert found["gate.pesq_wb_min"]["source"] == f"pipeline.toml of origin/main ({trunk[:8]})"
    assert found["gate.pesq_wb_min"]["refused"] == 1.0
    assert found["validate.speech_min_s"]["value"] == 50
    assert found["notify.command"]["value"] == []
    assert found["voxline.registry"]["value"] == "file:registry"
    told = voxline("plan", "--all")
    assert told.code == 0
    changes = "voxline.registry, validate.speech_min_s, notify.command, gate.pesq_wb_min"
    assert f"pipeline.toml of this merge request changes {changes}: ignored here; it counts once merged" in told.err
    assert told.err.count("ignored here") == 1
    shown = voxline("settings", "--explain").out
    assert "refused" in shown and "PWNED" in shown


def test_variables_of_the_runner_still_win(merge_request, voxline, monkeypatch):
    merge_request()
    monkeypatch.setenv("VOXLINE_REGISTRY", "file:/srv/voices")
    assert settings_of(voxline)["voxline.registry"]["value"] == "file:/srv/voices"


def test_a_refused_voice_of_a_merge_request_runs_no_command_and_meets_our_limits(
    merge_request, line, voxline, monkeypatch, write_tiny_voice
):
    merge_request()
    write_tiny_voice(line.root, "evil", clips=2, manifest=MANIFEST)
    line.commit()
    monkeypatch.setenv("VOXLINE_NOTIFY_SECRET", "s3cret")
    told = voxline("validate", "evil")
    assert told.code == 10
    assert "s of good speech, 50 s needed" in told.err
    assert not list(line.root.rglob("PWNED"))


def test_our_own_command_is_not_run_with_a_strangers_files(merge_request, line, voxline, monkeypatch, write_tiny_voice):
    """`python tools/tell.py` of the protected branch starts the merge request's tools/tell.py."""
    merge_request(ours=OURS + '[notify]\ncommand = ["sh", "tools/tell.sh"]\n')
    (line.root / "tools").mkdir()
    (line.root / "tools" / "tell.sh").write_text("touch PWNED\n")
    write_tiny_voice(line.root, "evil", clips=2, manifest=MANIFEST)
    line.commit()
    told = voxline("validate", "evil")
    assert told.code == 10
    assert "notify.command is not run with a stranger's files" in told.err
    assert not list(line.root.rglob("PWNED"))
    monkeypatch.delenv("CHANGE_ID")
    (line.root / "pipeline.toml").write_text(OURS + '[notify]\ncommand = ["sh", "tools/tell.sh"]\n')
    assert voxline("validate", "evil").code == 10
    assert (line.root / "PWNED").exists()


@pytest.mark.parametrize("branch", [None, "gone"])
def test_without_the_protected_branch_defaults_count_and_never_the_trees_file(
    merge_request, voxline, monkeypatch, branch
):
    merge_request()
    monkeypatch.setenv("VOXLINE_PROTECTED_BRANCH", branch or "no such~1")
    found = settings_of(voxline)
    assert found["validate.speech_min_s"]["value"] == 60
    assert found["notify.command"]["value"] == []
    assert "the protected branch is not in this clone" in voxline("plan").err


def test_a_branch_of_the_strangers_own_does_not_speak_for_the_protected_one(merge_request, line, voxline):
    """`main` of this clone may be anybody's; only what was fetched from the remote counts."""
    trunk = merge_request()
    line.git("branch", "-f", "main", "HEAD")
    assert trunk[:8] in settings_of(voxline)["gate.pesq_wb_min"]["source"]


def test_a_pipeline_toml_nobody_can_read_is_ignored_in_one_line(merge_request, voxline):
    merge_request("[notify\n\x1b[2J")
    assert settings_of(voxline)["gate.pesq_wb_min"]["value"] == 3.6
    assert "pipeline.toml of this merge request cannot be read: ignored here" in voxline("plan").err


def test_the_plan_of_a_merge_request_judges_by_the_protected_branch(merge_request, line, voxline):
    """Versions follow the recipe in force: a stranger's own would make every voice look changed."""
    merge_request(OURS + "[finetune]\nrank = 200\n")
    told = json.loads(voxline("plan", "--json", "--all").out)
    (entry,) = [entry for entry in told["entries"] if entry["voice"] == "ana"]
    (line.root / "pipeline.toml").write_text(OURS)
    assert entry["version"] == line.version("ana")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("lowered", "bases/tiny/base.yaml differs"),
        ("added file", "bases/tiny/extra.bin differs"),
        ("linked", "bases/tiny/extra.bin differs"),
        ("new base", "the protected branch has no such folder"),
    ],
)
def test_a_base_of_the_merge_requests_own_does_not_judge(merge_request, line, voxline, write_tiny_base, change, told):
    write_tiny_base(line.root)
    merge_request(ours=OURS)
    folder = line.root / "bases" / "tiny"
    line.write_voice("ana", manifest=MANIFEST + "base: tiny\n")
    if change == "lowered":
        (folder / "base.yaml").write_text((folder / "base.yaml").read_text().replace("stoi: 0.2", "stoi: 0.0"))
    elif change == "added file":
        (folder / "extra.bin").write_bytes(b"x")
    elif change == "linked":
        (folder / "extra.bin").symlink_to("/etc/hostname")
    else:
        folder.rename(folder.with_name("mine"))
        card = folder.with_name("mine") / "base.yaml"
        card.write_text(card.read_text().replace("name: tiny", "name: mine"))
        line.write_voice("ana", manifest=MANIFEST + "base: mine\n")
    line.commit()
    refused = voxline("validate", "ana")
    assert refused.code == 3
    assert "a base of this merge request, not of the protected branch" in refused.err
    assert told in refused.err
    (entry,) = json.loads(voxline("plan", "--json", "--all").out)["entries"]
    assert "not of the protected branch" in entry["reason"]


def test_a_base_that_the_protected_branch_has_is_used(merge_request, line, voxline, write_tiny_base):
    write_tiny_base(line.root)
    merge_request(ours=OURS)
    line.write_voice("ana", manifest=MANIFEST + "base: tiny\n")
    line.commit()
    (entry,) = json.loads(voxline("plan", "--json", "--all").out)["entries"]
    assert entry["version"]
    assert "protected branch" not in entry["reason"]


def test_a_merge_request_cannot_name_the_bases_it_replaces(merge_request, line, voxline):
    merge_request('[voxline]\nreplaced_bases = ["nano"]\n')
    assert settings_of(voxline)["voxline.replaced_bases"]["value"] == []
    assert voxline("bases", "pull", "gpt-sovits-v2").code == 2
