"""The plan is right after every kind of push, because it compares folders with the registry."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime

import pytest

from pipeline.config import resolve
from pipeline.errors import SettingsError, UsageError
from pipeline.io.registry.events import Mover
from pipeline.records.release import Refusal, judges_digest

ZEROS = "0" * 40
SOMEBODY = Mover("Ben")


def test_a_first_push_trains_every_voice(line):
    line.write_voice("ana")
    line.write_voice("ben", sound=b"other")
    line.commit()
    plan = line.plan(ZEROS)
    assert "first push" in plan.note
    assert [(entry.voice, entry.action) for entry in plan.entries] == [("ana", "train"), ("ben", "train")]


def test_only_the_changed_voice_is_trained(line):
    for name in ("ana", "ben"):
        line.write_voice(name, sound=name.encode())
    before = line.commit()
    for name in ("ana", "ben"):
        line.publish(name)
    line.write_voice("ana", sound=b"take two")
    line.write_voice("cleo", sound=b"new")
    line.commit()
    entries = line.planned(before)
    assert {name: (entry.action, entry.change) for name, entry in entries.items()} == {
        "ana": ("train", "changed"),
        "ben": ("skip", "unchanged"),
        "cleo": ("train", "added"),
    }


def test_the_version_in_the_plan_is_the_one_of_the_folder_on_disk(line):
    line.write_voice("ana")
    (line.root / "voices" / "ana" / ".DS_Store").write_bytes(b"junk")
    line.commit()
    assert line.planned()["ana"].version == line.version("ana")


def test_what_matters_is_the_registry_not_the_diff(line):
    """The pipeline of an earlier push failed: this push touches nothing of the voice, and it is trained all the same."""
    line.write_voice("ana")
    before = line.commit()
    (line.root / "README.md").write_text("words")
    line.commit()
    entry = line.planned(before)["ana"]
    assert (entry.action, entry.change) == ("train", "unchanged")


def test_a_revert_is_republished_without_training(line):
    line.write_voice("ana")
    line.commit()
    old = line.publish("ana")
    line.write_voice("ana", sound=b"take two")
    before = line.commit()
    new = line.publish("ana")
    line.git("revert", "--no-edit", "HEAD")
    entry = line.planned(before)["ana"]
    assert (entry.action, entry.version, entry.published) == ("republish", old.version, new.version)


def test_a_deleted_voice_is_retired_once(line):
    line.write_voice("ana")
    before = line.commit()
    line.publish("ana")
    shutil.rmtree(line.root / "voices" / "ana")
    line.commit()
    entry = line.planned(before)["ana"]
    assert (entry.action, entry.change) == ("retire", "deleted")
    line.registry.retire("ana", Mover("CI", reason=entry.reason))
    assert line.actions() == {}


def test_a_deletion_that_came_back_is_republished(line):
    line.write_voice("ana")
    line.commit()
    line.publish("ana")
    shutil.rmtree(line.root / "voices" / "ana")
    before = line.commit()
    line.registry.retire("ana", Mover("CI", reason="folder deleted"))
    line.git("revert", "--no-edit", "HEAD")
    assert line.actions(before) == {"ana": "republish"}


def test_a_deleted_voice_that_was_never_published_is_nothing_to_do(line):
    line.write_voice("ana")
    before = line.commit()
    shutil.rmtree(line.root / "voices" / "ana")
    line.commit()
    assert line.actions(before) == {"ana": "skip"}


def test_a_renamed_voice_keeps_its_weights(line):
    line.write_voice("ana")
    before = line.commit()
    published = line.publish("ana")
    line.git("mv", "voices/ana", "voices/anna")
    line.commit()
    entries = line.planned(before)
    assert (entries["ana"].action, entries["ana"].change) == ("retire", "deleted")
    assert (entries["anna"].action, entries["anna"].change) == ("republish", "renamed")
    assert entries["anna"].copied_from == "ana"
    assert entries["anna"].version == published.version


def test_a_merge_plans_what_both_sides_changed(line):
    for name in ("ana", "ben", "cleo"):
        line.write_voice(name, sound=name.encode())
    before = line.commit()
    for name in ("ana", "ben", "cleo"):
        line.publish(name)
    line.git("checkout", "-q", "-b", "side")
    line.write_voice("ana", sound=b"side")
    line.commit()
    line.git("checkout", "-q", "main")
    line.write_voice("ben", sound=b"main")
    line.commit()
    line.git("merge", "-q", "--no-edit", "side")
    assert line.actions(before) == {"ana": "train", "ben": "train", "cleo": "skip"}


def test_a_base_that_a_force_push_removed_is_noted_and_not_needed(line):
    line.write_voice("ana")
    line.commit()
    line.publish("ana")
    plan = line.plan("feedfacefeedfacefeedfacefeedfacefeedface")
    assert "force-pushed" in plan.note
    assert [(entry.action, entry.change) for entry in plan.entries] == [("skip", "unknown")]


def test_a_shallow_clone_plans_the_same(line, tmp_path):
    line.write_voice("ana")
    before = line.commit()
    line.publish("ana")
    line.write_voice("ben", sound=b"other")
    line.commit()
    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "-q", "--depth", "1", line.root.as_uri(), str(shallow)], check=True)
    shutil.copytree(line.root / "registry", shallow / "registry")
    line.root = shallow
    plan = line.plan(before)
    assert "shallow" in plan.note
    assert [(entry.voice, entry.action) for entry in plan.entries] == [("ana", "skip"), ("ben", "train")]


def test_a_revision_with_a_leading_dash_is_no_option_of_git(line):
    line.write_voice("ana")
    line.commit()
    with pytest.raises(UsageError, match="not a commit"):
        line.plan(head="--output=/tmp/x")


def test_the_worktree_plan_sees_what_is_not_committed(line):
    for name in ("ana", "ben", "cleo"):
        line.write_voice(name, sound=name.encode())
    line.commit()
    for name in ("ana", "ben", "cleo"):
        line.publish(name)
    line.write_voice("ana", sound=b"edited")
    shutil.rmtree(line.root / "voices" / "ben")
    line.write_voice("dora", sound=b"untracked")
    assert line.actions(is_worktree=True) == {"ana": "train", "ben": "retire", "cleo": "skip", "dora": "train"}
    assert line.actions() == {"ana": "skip", "ben": "skip", "cleo": "skip"}


def test_the_worktree_plan_needs_no_commit_and_no_repository(line):
    line.write_voice("ana")
    assert line.actions(is_worktree=True) == {"ana": "train"}
    shutil.rmtree(line.root / ".git")
    assert line.actions(is_worktree=True) == {"ana": "train"}
    with pytest.raises(UsageError, match="no Git repository"):
        line.plan()


def test_the_worktree_plan_after_a_staged_change_that_was_undone_on_disk(line):
    line.write_voice("ana")
    line.commit()
    line.publish("ana")
    line.write_voice("ana", sound=b"staged")
    line.git("add", "-A")
    line.write_voice("ana")
    assert line.actions(is_worktree=True) == {"ana": "skip"}


def test_lfs_pointers_count_as_the_recordings_they_stand_for(line):
    import hashlib

    folder = line.write_voice("ana", sound=b"recording" * 200)
    version = line.version("ana")
    digest = hashlib.sha256(b"recording" * 200).hexdigest()
    (folder / "wavs" / "1.wav").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize 1800\n"
    )
    line.commit()
    assert line.planned()["ana"].version == version
    assert line.version("ana") == version


def test_a_rolled_back_version_is_not_put_back(line):
    line.write_voice("ana")
    line.commit()
    old = line.publish("ana")
    line.write_voice("ana", sound=b"take two")
    line.commit()
    line.publish("ana")
    line.registry.rollback("ana", None, SOMEBODY)
    entry = line.planned()["ana"]
    assert (entry.action, entry.published) == ("skip", old.version)
    assert "rolled back by Ben" in entry.reason
    line.write_voice("ana", sound=b"take three")
    line.commit()
    assert line.actions() == {"ana": "train"}


def test_a_voice_that_a_person_retired_stays_retired(line):
    line.write_voice("ana")
    line.commit()
    line.publish("ana")
    line.registry.retire("ana", Mover("Ben", reason="the speaker asked for it"))
    entry = line.planned()["ana"]
    assert entry.action == "skip"
    assert "the speaker asked for it" in entry.reason


def test_a_candidate_under_review_waits(line, manifest_text):
    line.write_voice("ana", manifest=manifest_text + "review: required\n")
    line.commit()
    line.publish("ana", channel="candidate")
    entry = line.planned()["ana"]
    assert entry.action == "skip"
    assert "waits for review" in entry.reason
    line.registry.promote("ana", None, SOMEBODY)
    assert "production serves" in line.planned()["ana"].reason


def test_what_the_gate_wants_a_person_to_hear_waits_and_is_neither_trained_nor_republished(line):
    line.write_voice("ana")
    line.commit()
    line.publish("ana", review="required", reason="DistillMOS: 2.1 is below 3")
    entry = line.planned()["ana"]
    assert (entry.action, "waits for review (DistillMOS: 2.1 is below 3)" in entry.reason) == ("skip", True), entry
    line.registry.promote("ana", None, SOMEBODY)
    assert "production serves" in line.planned()["ana"].reason


def test_an_earlier_candidate_that_waits_holds_nobody_else_back(line):
    line.write_voice("ana")
    line.commit()
    line.publish("ana", review="required")
    line.write_voice("ana", sound=b"take two")
    line.commit()
    assert line.actions() == {"ana": "train"}


def test_an_expired_consent_retires_the_published_voice(line, manifest_text):
    line.write_voice("ana")
    line.commit()
    line.publish("ana")
    line.write_voice("ana", manifest=manifest_text.replace("license", "  expires_on: 2026-02-01\nlicense"))
    line.commit()
    entry = line.planned()["ana"]
    assert entry.action == "retire"
    assert "expired on 2026-02-01" in entry.reason


def test_a_new_voice_without_consent_is_run_so_that_it_is_refused(line):
    line.write_voice("ana", manifest="language: en\nlicense: CC-BY-4.0\n")
    line.commit()
    entry = line.planned()["ana"]
    assert entry.action == "train"
    assert "consent" in entry.reason


def test_one_broken_manifest_does_not_stop_the_other_voices(line, manifest_text):
    line.write_voice("ana", manifest=manifest_text + "colour: red\n")
    line.write_voice("ben", manifest="[" * 50_000)
    line.write_voice("cleo")
    (line.root / "voices" / "cleo" / "voice.yaml").unlink()
    line.write_voice("dora", manifest=manifest_text.replace("gpt-sovits-v2", "no-such-base"))
    line.write_voice("emma")
    line.commit()
    entries = line.planned()
    assert "voices/ana/voice.yaml: unknown key 'colour'" in entries["ana"].reason
    assert "nested" in entries["ben"].reason
    expected = "voices/cleo/voice.yaml is missing, and with it the speaker's consent; the run will refuse it"
    assert entries["cleo"].reason == expected
    assert "no-such-base" in entries["dora"].reason
    assert entries["emma"].reason == "never published"
    assert {entry.action for entry in entries.values()} == {"train"}


def test_a_folder_that_cannot_be_a_voice_name_stops_the_plan(line):
    line.write_voice("Ana Banana; rm -rf")
    line.commit()
    with pytest.raises(SettingsError, match="not a voice name"):
        line.plan()
    with pytest.raises(SettingsError, match="not a voice name"):
        line.plan(is_worktree=True)


def test_a_voice_of_another_repository_is_left_alone(line, make_release, make_weights, tmp_path):
    line.git("remote", "add", "origin", "git@example.org:group/ours.git")
    line.write_voice("ana")
    line.commit()
    weights = {"adapter/a.safetensors": make_weights(tmp_path / "w.safetensors")}
    for name, repository in (("theirs", "group/theirs"), ("ours", "group/ours")):
        line.registry.publish(name, make_release(name, provenance={"repository": repository}), weights, actor="x")
    assert line.actions() == {"ana": "train", "ours": "retire", "theirs": "skip"}


def test_a_change_of_recipe_or_base_makes_a_new_version(line):
    line.write_voice("ana")
    line.commit()
    line.publish("ana")
    (line.root / "pipeline.toml").write_text("[finetune]\nrank = 32\n")
    entry = line.planned()["ana"]
    assert entry.action == "train"
    assert "recipe" in entry.reason
    (line.root / "pipeline.toml").write_text("[finetune]\ncheckpoint_every_s = 5.0\n[validate]\nspeech_min_s = 61.0\n")
    assert line.actions() == {"ana": "skip"}


def test_a_voice_on_a_base_that_became_another_is_trained_at_the_next_push_and_says_who_speaks_the_old_one(
    line, make_release, make_weights, tmp_path
):
    line.write_voice("ana")
    line.commit()
    served = line.publish("ana")
    content, recipe = served.content_digest, served.recipe_digest
    old = make_release("ana", None, content_digest=content, recipe_digest=recipe, voxline_version="0.0.7")
    assert old.base_digest != served.base_digest
    line.registry.publish("ana", old, {"adapter/a.safetensors": make_weights(tmp_path / "w")}, actor="x")
    assert line.actions() == {"ana": "republish"}  # the registry holds one on the base that is here
    shutil.rmtree(line.root / "registry" / "ana" / "releases" / served.version)
    entry = line.planned()["ana"]
    assert (entry.action, entry.published) == ("train", old.version)
    assert f"base {served.base} is another one ({served.base_digest[:12]})" in entry.reason
    assert f"than that of {old.version} ({old.base_digest[:12]}), which voxline 0.0.7 speaks" in entry.reason
    (line.root / "pipeline.toml").write_text("[finetune]\nrank = 32\n")
    assert "which voxline 0.0.7 speaks" in line.planned()["ana"].reason
    line.write_voice("ana", sound=b"take two")
    line.commit("another sound")
    assert "content, base or recipe differ" in line.planned()["ana"].reason


def test_a_damaged_memory_is_only_a_memory(line, monkeypatch):
    line.write_voice("ana")
    line.commit()
    version = line.planned()["ana"].version
    (tree,) = json.loads(line.memory.path.read_bytes())
    line.memory.path.write_text("{ damaged")
    assert line.planned()["ana"].version == version
    line.memory.path.write_text(json.dumps({tree: "no digest"}))
    assert line.planned()["ana"].version == version
    line.memory.path.write_text(json.dumps({tree: "f" * 64}))
    assert line.planned()["ana"].version != version, "it is read at all"


def test_what_lies_in_the_work_folder_says_nothing_about_versions(line, voxline):
    """A tree may bring it, and so may a cache."""
    line.write_voice("ana")
    commit = line.commit()
    version = line.planned()["ana"].version
    forged = line.root / "work" / ".cache" / "trees.json"
    forged.parent.mkdir(parents=True)
    forged.write_text(json.dumps({line.git("rev-parse", f"{commit}:voices/ana"): "f" * 64}))
    (entry,) = json.loads(voxline("plan", "--json").out)["entries"]
    assert entry["version"] == version


def test_what_a_registry_says_of_a_tree_is_not_remembered(line):
    line.write_voice("ana")
    line.commit()
    line.publish("ana")
    assert line.actions() == {"ana": "skip"}
    assert not line.memory.path.exists()


def refuse(line, name: str, *, code: str = "", **changes) -> Refusal:
    """What a run leaves that refused this voice."""
    settings = resolve(root=line.root, environment={}).settings
    told = {
        "voice": name,
        "version": line.version(name),
        "judges": judges_digest(settings, code),
        "exit_code": 10,
        "reason": "20.0 s of good speech found, 60 s needed",
        "at": datetime(2026, 1, 10, tzinfo=UTC),
        "actor": "CI",
    }
    refusal = Refusal.model_validate({**told, **changes})
    line.registry.refuse(refusal)
    return refusal


def test_a_refused_voice_is_not_tried_again_until_it_changes(line):
    line.write_voice("ana")
    before = line.commit()
    refuse(line, "ana")
    entry = line.planned(before)["ana"]
    assert (entry.action, entry.is_refused) == ("skip", True)
    assert entry.reason == "refused on 2026-01-10: 20.0 s of good speech found, 60 s needed"
    line.write_voice("ana", sound=b"take two")
    line.commit()
    assert line.actions(before) == {"ana": "train"}


@pytest.mark.parametrize("changes", [{"judges": "0" * 64}, {"version": "0" * 12}, {"code": "voxline 0.0.9"}])
def test_other_limits_other_code_or_another_version_are_a_reason_to_try_again(line, changes):
    line.write_voice("ana")
    line.commit()
    refuse(line, "ana", **changes)
    assert line.actions() == {"ana": "train"}


def test_looser_limits_are_a_reason_to_try_again(line):
    line.write_voice("ana")
    line.commit()
    refuse(line, "ana")
    (line.root / "pipeline.toml").write_text("[validate]\nspeech_min_s = 15\n")
    line.commit()
    assert line.actions() == {"ana": "train"}


def test_a_person_can_ask_for_another_try(line):
    line.write_voice("ana")
    line.commit()
    refuse(line, "ana")
    assert line.actions() == {"ana": "skip"}
    assert line.actions(retries_refused=True) == {"ana": "train"}


def test_a_revert_of_a_refused_change_republishes_the_version_before(line):
    line.write_voice("ana")
    line.commit()
    old = line.publish("ana")
    line.write_voice("ana", sound=b"take two")
    refused = line.commit()
    refuse(line, "ana")
    assert line.actions() == {"ana": "skip"}
    assert line.planned()["ana"].published == old.version
    line.git("revert", "--no-edit", "HEAD")
    assert line.planned(refused)["ana"].reason == f"production serves {old.version}"
    line.git("revert", "--no-edit", "HEAD")
    assert (line.actions(), line.planned()["ana"].is_refused) == ({"ana": "skip"}, True)


def test_a_refusal_is_no_voice_of_the_registry(line):
    line.write_voice("ana")
    line.commit()
    refuse(line, "ana")
    assert line.registry.voices() == []
    shutil.rmtree(line.root / "voices" / "ana")
    line.commit()
    assert line.actions() == {}


def test_a_manifest_that_was_broken_before_this_push_is_told_and_not_tried_again(line, manifest_text):
    line.write_voice("ana", manifest=manifest_text.replace("consent:", "agreement:"))
    first = line.commit()
    assert line.actions(ZEROS) == {"ana": "train"}
    (line.root / "README.md").write_text("words")
    line.commit()
    entry = line.planned(first)["ana"]
    assert (entry.action, entry.is_refused) == ("skip", True)
    assert "consent" in entry.reason
