"""Nothing half-published is ever visible, whoever publishes beside us and whatever kills us."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from releases import version_of

from pipeline.errors import SettingsError, TransientError, UsageError
from pipeline.io.registry.backend import Change
from pipeline.io.registry.events import Mover
from pipeline.io.registry.registry import open_registry
from pipeline.records.release import ChannelPointer

WEIGHTS = "adapter/synthesizer/adapter_model.safetensors"
SOMEBODY = Mover("Ben", git_revision="f" * 40, pipeline="https://ci.example.org/7", reason="sounds better")


@pytest.fixture
def registry(tmp_path):
    return open_registry("file:registry", root=tmp_path)


@pytest.fixture
def files(tmp_path, make_weights):
    card = tmp_path / "card.md"
    card.write_text("# ana\n")
    return {WEIGHTS: make_weights(tmp_path / "w.safetensors"), "card.md": card}


def versions(count: int) -> list[str]:
    return [version_of(take) for take in range(1, count + 1)]


def test_a_published_release_is_found_by_channel_and_by_version(registry, files, make_release):
    published = registry.publish("ana", make_release(), files, actor="Ana Perez")
    assert registry.resolve("ana") == registry.resolve("ana", published.version) == published
    assert published.files["card.md"].size_bytes == 6
    assert (registry.verified("ana", published.version)[1] / WEIGHTS).read_bytes() == files[WEIGHTS].read_bytes()
    assert registry.voices() == ["ana"]
    assert registry.has("ana", published.version)
    assert not registry.has("ana", "ffffffffffff")
    assert registry.verify("ana") == []


def test_publishing_twice_changes_nothing(registry, files, make_release):
    first = registry.publish("ana", make_release(), files, actor="Ana Perez")
    files["card.md"].write_text("# another card\n")
    second = registry.publish("ana", make_release(license="MIT"), files, actor="Ben")
    assert second == first
    assert len(registry.history("ana")) == 1


def test_the_history_tells_who_moved_what_from_where(registry, files, make_release):
    old, new = versions(2)
    registry.publish("ana", make_release(version=old), files, actor="Ana Perez")
    registry.publish("ana", make_release(version=new, provenance={"git_revision": "e" * 40}), files, actor="Ana Perez")
    registry.rollback("ana", None, SOMEBODY)
    registry.retire("ana", SOMEBODY)
    told = [
        (event.action, event.previous, event.version, event.actor, event.reason) for event in registry.history("ana")
    ]
    assert told == [
        ("publish", None, old, "Ana Perez", ""),
        ("publish", old, new, "Ana Perez", ""),
        ("rollback", new, old, "Ben", "sounds better"),
        ("retire", old, None, "Ben", "sounds better"),
    ]
    assert registry.history("ana")[1].git_revision == "e" * 40
    assert registry.history("ana")[2].pipeline == "https://ci.example.org/7"
    assert [event.id for event in registry.history("ana")] == sorted(event.id for event in registry.history("ana"))
    with pytest.raises(UsageError, match="retired"):
        registry.resolve("ana")


def test_events_stay_in_order_when_the_clock_goes_back(registry, files, make_release, monkeypatch):
    from pipeline.io.registry import events as module

    class Backwards(datetime):
        calls = 0

        @classmethod
        def now(cls, tz=None):
            cls.calls += 1
            return datetime(2026, 1, 10, tzinfo=UTC) - timedelta(hours=cls.calls)

    monkeypatch.setattr(module, "datetime", Backwards)
    for version in versions(3):
        registry.publish("ana", make_release(version=version), files, actor="x")
    assert [event.version for event in registry.history("ana")] == versions(3)


def test_a_candidate_is_promoted(registry, files, make_release):
    registry.publish("ana", make_release(), files, channel="candidate", actor="x")
    with pytest.raises(UsageError, match="nothing on channel production"):
        registry.resolve("ana")
    registry.promote("ana", None, SOMEBODY)
    assert registry.resolve("ana").version == make_release().version


def test_a_rollback_without_an_earlier_version_is_refused(registry, files, make_release):
    registry.publish("ana", make_release(), files, actor="x")
    with pytest.raises(UsageError, match="never served another version"):
        registry.rollback("ana", None, SOMEBODY)
    with pytest.raises(UsageError, match="no version ffffffffffff"):
        registry.rollback("ana", "ffffffffffff", SOMEBODY)


def test_a_renamed_voice_gets_its_release_without_training(registry, files, make_release):
    original = registry.publish("ana", make_release(), files, actor="x")
    moved = registry.republish("anna", original.version, channel="production", mover=SOMEBODY)
    assert moved is not None
    assert (moved.voice, moved.copied_from, moved.files) == ("anna", "ana", original.files)
    assert registry.verify("anna") == []
    assert registry.republish("anna", "ffffffffffff", channel="production", mover=SOMEBODY) is None


@pytest.mark.parametrize(
    "name", ["adapter/model.pt", "adapter/x/pytorch_model.bin", "adapter/model.pkl", "adapter/notes.txt"]
)
def test_nothing_but_safetensors_and_json_goes_into_an_adapter(registry, make_release, make_weights, tmp_path, name):
    path = make_weights(tmp_path / "weights")
    with pytest.raises(SettingsError, match="safetensors"):
        registry.publish("ana", make_release(), {name: path}, actor="x")
    assert registry.voices() == []


@pytest.mark.parametrize("name", ["../x", "/etc/x", "adapter/../../x.json", "release.json", "a\\b", ""])
def test_a_file_cannot_leave_its_release(registry, make_release, tmp_path, name):
    path = tmp_path / "x"
    path.write_text("x")
    with pytest.raises(SettingsError):
        registry.publish("ana", make_release(), {name: path}, actor="x")
    assert not (tmp_path / "registry").exists()


def test_a_link_is_not_published(registry, make_release, tmp_path):
    (tmp_path / "card.md").symlink_to("/etc/hostname")
    with pytest.raises(SettingsError, match="not a regular file"):
        registry.publish("ana", make_release(), {"card.md": tmp_path / "card.md"}, actor="x")


@pytest.mark.parametrize("name", ["../x", "Ana", "-ana", "a", "ana/../ben", ".locks"])
def test_a_voice_name_cannot_lead_out_of_the_registry(registry, name):
    for ask in (registry.versions, registry.history, registry.resolve):
        with pytest.raises(SettingsError, match="not a voice name"):
            ask(name)


@pytest.mark.parametrize("version", ["../../x", "..", "", "a/b"])
def test_a_version_cannot_lead_out_of_the_registry(registry, version):
    with pytest.raises(UsageError, match="not a version"):
        registry.release("ana", version)


@pytest.mark.parametrize("stray", ["lost+found", "README.md", "x; reboot", "Ana"])
def test_what_else_lies_in_the_registry_s_folder_is_passed_over(registry, files, make_release, tmp_path, stray):
    version = registry.publish("ana", make_release(), files, actor="Ana Perez").version
    (tmp_path / "registry" / stray).mkdir()
    (tmp_path / "registry" / "ana" / "releases" / stray).mkdir()
    assert registry.voices() == ["ana"]
    assert registry.versions("ana") == [version]
    assert registry.states()["ana"].versions == {version}
    assert registry.verify("ana") == []
    assert registry.collect(unused_days=90, dry_run=True) == []


@pytest.mark.parametrize("name", ["../../../../stolen", "/stolen", "report/../../stolen", "a\\b", ""])
def test_a_record_that_names_a_file_outside_its_release_is_damaged(registry, files, make_release, tmp_path, name):
    version = registry.publish("ana", make_release(), files, actor="Ana Perez").version
    record = tmp_path / "registry" / "ana" / "releases" / version / "release.json"
    content = json.loads(record.read_text())
    content["files"][name] = content["files"].pop("card.md")
    record.write_text(json.dumps(content))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SettingsError, match="damaged"):
        registry.republish("ben", version, channel="production", mover=SOMEBODY)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("event_id", ["../../../stolen", "soon", ""])
def test_an_event_that_names_a_file_elsewhere_is_damaged(registry, files, make_release, tmp_path, event_id):
    registry.publish("ana", make_release(), files, actor="Ana Perez")
    pointer = tmp_path / "registry" / "ana" / "channels" / "production.json"
    content = json.loads(pointer.read_text())
    content["event"]["id"] = event_id
    pointer.write_text(json.dumps(content))
    before = sorted(tmp_path.rglob("*.json"))
    with pytest.raises(SettingsError, match="damaged"):
        registry.retire("ana", SOMEBODY)
    assert sorted(tmp_path.rglob("*.json")) == before


def test_verify_names_every_damaged_record_and_goes_on(registry, files, make_release, tmp_path):
    first, second = (
        registry.publish("ana", make_release(version=one), files, actor="x").version for one in versions(2)
    )
    folder = tmp_path / "registry" / "ana"
    (folder / "releases" / first / "release.json").write_text("{}")
    (folder / "releases" / second / "card.md").write_text("other words")
    (folder / "channels" / "production.json").write_text("{")
    damages = registry.verify("ana")
    assert sum(f"{first}/release.json" in line for line in damages) == 1
    assert f"ana/{second}: card.md is not what was published" in damages
    assert "production.json" in damages[2]
    assert len(damages) == 3


def test_a_record_of_endless_length_is_not_read_whole(registry, files, make_release, tmp_path):
    registry.publish("ana", make_release(), files, actor="Ana Perez")
    pointer = tmp_path / "registry" / "ana" / "channels" / "production.json"
    with pointer.open("r+b") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(SettingsError, match=r"production\.json: 1099511627776 bytes or more"):
        registry.resolve("ana")


def test_two_publishers_of_one_version_agree(registry, make_release, make_weights, tmp_path):
    def publish(number: int):
        weights = make_weights(tmp_path / f"{number}.safetensors", bytes([number]) * 64)
        return registry.publish("ana", make_release(), {WEIGHTS: weights}, actor=str(number))

    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(publish, range(8)))
    assert all(one == stored[0] for one in stored)
    assert registry.verify("ana") == []
    assert len(registry.history("ana")) == 1


def test_many_publishers_of_different_versions_leave_one_history(registry, files, make_release):
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda version: registry.publish("ana", make_release(version=version), files, actor="x"), versions(12)
            )
        )
    events = registry.history("ana")
    assert len(events) == 12
    assert all(later.previous == earlier.version for earlier, later in pairwise(events))
    assert registry.resolve("ana").version == events[-1].version
    assert registry.verify("ana") == []


@pytest.mark.slow
def test_a_publisher_killed_at_any_point_leaves_nothing_half(registry, files, make_release, strike, tmp_path):
    old, new = versions(2)
    for at in range(1, 200):
        voice = f"ana-{at}"

        def publish(version: str, voice: str = voice) -> int:
            registry.publish(voice, make_release(voice, version), files, actor="x")
            return 0

        publish(old)
        code, was_struck = strike(lambda: publish(new), signal.SIGKILL, at, tmp_path / "registry")
        assert registry.verify(voice) == [], f"killed at operation {at}"
        seen = registry.resolve(voice).version
        assert seen in (old, new)
        assert registry.history(voice)[-1].version == seen
        publish(new)  # the next publisher completes the work
        assert registry.resolve(voice).version == new
        assert [event.version for event in registry.history(voice)] == [old, new]
        if not was_struck:
            assert code == 0
            break
    else:
        pytest.fail("publishing never came to its end")
    assert at > 10
    publish(version_of(13))
    assert list((tmp_path / "registry" / ".staging").iterdir()) == [], "what dead publishers staged is swept"
    assert not list((tmp_path / "registry" / f"ana-{at}").rglob(".*.tmp"))


def test_a_pointer_whose_event_file_was_never_written_still_tells_its_history(registry, files, make_release, tmp_path):
    registry.publish("ana", make_release(), files, actor="x")
    event_file = next((tmp_path / "registry" / "ana" / "events").iterdir())
    event_file.unlink()
    assert len(registry.history("ana")) == 1
    registry.retire("ana", SOMEBODY)
    assert event_file.exists()
    assert [event.action for event in registry.history("ana")] == ["publish", "retire"]


def test_a_full_disk_is_told_and_leaves_nothing(registry, make_release, make_weights, tmp_path):
    small, large = make_weights(tmp_path / "s.safetensors"), make_weights(tmp_path / "l.safetensors", b"x" * 200_000)
    registry.publish("ana", make_release(), {WEIGHTS: small}, actor="x")
    before = sorted(path for path in (tmp_path / "registry" / "ana").rglob("*"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(TransientError, match=r"too large|no space"):
            registry.publish("ana", make_release(version=version_of(2)), {WEIGHTS: large}, actor="x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path for path in (tmp_path / "registry" / "ana").rglob("*")) == before
    assert list((tmp_path / "registry" / ".staging").iterdir()) == []


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/proc/self/ns/mnt").exists(), reason="mounting a small disk needs root"
)
def test_a_really_full_disk_is_told_and_leaves_nothing(tmp_path, make_weights):
    """A file system of 256 KiB, in a mount namespace of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    make_weights(tmp_path / "l.safetensors", b"x" * 600_000)
    script = tmp_path / "fill.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom datetime import datetime, UTC, date\n"
        "from pipeline.io.registry.registry import open_registry\nfrom pipeline.records.release import Release\n"
        "from pipeline.errors import TransientError\n"
        "digest = 'a' * 64\n"
        "release = Release(voice='ana', version='f' * 12, created_at=datetime.now(UTC), base='b', content_digest=digest,"
        " base_digest=digest, recipe_digest=digest, language='en', license='x', consent={'speaker': 's', 'granted_on': date(2026, 1, 1)})\n"
        "registry = open_registry(f'file:{sys.argv[1]}/registry')\n"
        "try:\n    registry.publish('ana', release, {'adapter/a.safetensors': Path(sys.argv[2])}, actor='x')\n"
        "except TransientError as error:\n    print(error.exit_code, error.message)\n"
        "print(registry.versions('ana'), list((Path(sys.argv[1]) / 'registry' / '.staging').iterdir()))\n"
    )
    command = (
        f"mount -t tmpfs -o size=256k none {disk} && exec {sys.executable} {script} {disk} {tmp_path / 'l.safetensors'}"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[4],
    )
    if "mount" in done.stderr and not done.stdout:
        pytest.skip(f"cannot mount here: {done.stderr.strip()[:100]}")
    assert done.stdout.splitlines()[0].startswith("75 "), done.stdout + done.stderr
    assert "no space left" in done.stdout
    assert done.stdout.splitlines()[1] == "[] []"


def test_damage_is_found_and_named(registry, files, make_release, tmp_path):
    version = registry.publish("ana", make_release(), files, actor="x").version
    folder = tmp_path / "registry" / "ana" / "releases" / version
    (folder / "card.md").write_text("changed")
    (folder / "extra.txt").write_text("added")
    (folder / WEIGHTS).unlink()
    assert registry.verify("ana") == [
        f"ana/{version}: {WEIGHTS} is missing",
        f"ana/{version}: card.md is not what was published",
        f"ana/{version}: extra.txt was added after publishing",
    ]
    (folder / "release.json").write_text("{ damaged")
    with pytest.raises(SettingsError, match=r"release\.json"):
        registry.resolve("ana")


def test_a_pointer_with_unknown_keys_is_refused_by_name(registry, files, make_release, tmp_path):
    registry.publish("ana", make_release(), files, actor="x")
    path = tmp_path / "registry" / "ana" / "channels" / "production.json"
    ChannelPointer.model_validate_json(path.read_bytes())
    path.write_text(path.read_text().replace("{", '{"colour": 1,', 1))
    with pytest.raises(SettingsError, match="unknown key 'colour'"):
        registry.pointer("ana", "production")


def test_unused_releases_are_collected_after_their_time(registry, files, make_release):
    old, middle, new = versions(3)
    for version in (old, middle, new):
        registry.publish("ana", make_release(version=version), files, actor="x")
    later = datetime.now(UTC) + timedelta(days=91)
    would_go = registry.collect(unused_days=90, now=later, dry_run=True)
    assert {one.version for one in would_go} == {old, middle}
    assert registry.collect(unused_days=90, dry_run=False) == []
    registry.collect(unused_days=90, now=later, dry_run=False)
    assert registry.versions("ana") == [new]
    assert registry.verify("ana") == []


@pytest.mark.parametrize("url", ["ftp://x", "file:", "registry", "", "s3//x"])
def test_a_url_that_nobody_can_open_is_a_setting(url):
    with pytest.raises(SettingsError, match="registry"):
        open_registry(url)


def test_a_registry_that_is_a_file_is_told(tmp_path, files, make_release):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SettingsError, match="not a folder"):
        open_registry("file:file", root=tmp_path)
    with pytest.raises(SettingsError, match="cannot be written"):
        open_registry("file:file/inside", root=tmp_path).publish("ana", make_release(), files, actor="x")


def test_what_a_revert_brings_back_meanwhile_is_not_collected(registry, files, make_release):
    old, new = versions(2)
    for version in (old, new):
        registry.publish("ana", make_release(version=version), files, actor="x")

    class Beside(type(registry.backend)):
        """A publisher moves production back just before the folder would go."""

        def commit(self, voice, change):
            registry.move("ana", "production", old, action="republish", mover=SOMEBODY)
            return super().commit(voice, change)

    later = datetime.now(UTC) + timedelta(days=200)
    cleaner = type(registry)(Beside(registry.backend.root), registry.url)
    assert [one.version for one in registry.collect(unused_days=90, now=later, dry_run=True)] == [old]
    assert old not in [one.version for one in cleaner.collect(unused_days=90, now=later, dry_run=False)]
    assert registry.resolve("ana").version == old
    assert registry.verify("ana") == []


def test_a_channel_is_not_moved_to_what_is_collected_meanwhile(registry, files, make_release):
    old, new = versions(2)
    for version in (old, new):
        registry.publish("ana", make_release(version=version), files, actor="x")

    class Beside(type(registry.backend)):
        """The old release goes between the question whether it is there and the move."""

        def commit(self, voice, change):
            super().commit("ana", Change(removes=f"ana/releases/{old}"))
            return super().commit(voice, change)

    publisher = type(registry)(Beside(registry.backend.root), registry.url)
    with pytest.raises(UsageError, match=f"no version {old}"):
        publisher.move("ana", "production", old, action="republish", mover=SOMEBODY)
    assert registry.resolve("ana").version == new
    assert registry.verify("ana") == []


def test_a_clock_before_1970_makes_events_all_the_same(monkeypatch):
    from pipeline.io.registry import events as module

    first = module.event_id(datetime(1969, 7, 20, tzinfo=UTC), "")
    then = module.event_id(datetime(1969, 7, 20, tzinfo=UTC), first)
    assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]{8}", first)
    assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]{8}", then)
    assert then > first
