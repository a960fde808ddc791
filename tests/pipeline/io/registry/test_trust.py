"""Whoever uses a release is told when it is not what was published, and who stands for it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from releases import OURS, THEIRS, rewrite, trusting, version_of

from pipeline.errors import SettingsError, UsageError
from pipeline.io.memory import Memory
from pipeline.io.registry import rollbacks
from pipeline.io.registry.channels import MovedMeanwhile
from pipeline.io.registry.events import Mover
from pipeline.io.registry.registry import open_registry
from pipeline.io.registry.trust import Digester, NotTrusted
from pipeline.records.release import Event, Release, event_digest, manifest_digest

WEIGHTS = "adapter/synthesizer/adapter_model.safetensors"
SOMEBODY = Mover("Ben", reason="sounds better")
FIRST, SECOND, THIRD = (version_of(take) for take in (1, 2, 3))


@pytest.fixture
def files(tmp_path, make_weights):
    (tmp_path / "card.md").write_text("# ana\n")
    return {WEIGHTS: make_weights(tmp_path / "w.safetensors"), "card.md": tmp_path / "card.md"}


@pytest.fixture
def open_as(tmp_path):
    """The registry as somebody sees it who trusts these keys."""

    def opened(*keys, signer=None, home=None):
        return open_registry("file:registry", root=tmp_path, trust=trusting(*keys, signer=signer, home=home))

    return opened


@pytest.fixture
def place(tmp_path):
    return tmp_path / "registry" / "ana"


@pytest.fixture(params=["unsigned", "signed"])
def registry(request, open_as, files, make_release):
    """Three versions on production, the last of them served; signed and believed, or neither."""
    keys = (OURS,) if request.param == "signed" else ()
    opened = open_as(*keys, signer=OURS if keys else None)
    for version in (FIRST, SECOND, THIRD):
        opened.publish("ana", make_release(version=version), files, actor="Ana Perez")
    assert opened.verify("ana") == []
    return opened


def events_of(place: Path) -> list[Path]:
    return sorted((place / "events").iterdir())


def edit_release(change):
    return lambda place: rewrite(place / "releases" / THIRD / "release.json", change)


def replace_adapter(place: Path) -> None:
    """Another adapter, and the manifest's digest of it: the folder agrees with itself."""
    weights = place / "releases" / THIRD / WEIGHTS
    weights.write_bytes(weights.read_bytes().replace(b"\0" * 8, b"\1" * 8))
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    edit_release(lambda told: told["files"][WEIGHTS].update(sha256=digest))(place)


def flip_byte(place: Path) -> None:
    weights = place / "releases" / THIRD / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")


def replay(place: Path) -> None:
    """The channel's file as it was before the last move."""
    event = json.loads(events_of(place)[1].read_text())
    (place / "channels" / "production.json").write_text(json.dumps({"version": SECOND, "event": event}))


def rename_release(place: Path) -> None:
    shutil.rmtree(place / "releases" / THIRD)
    shutil.copytree(place / "releases" / FIRST, place / "releases" / THIRD)


def link_to_equal_content(place: Path) -> None:
    weights = place / "releases" / THIRD / WEIGHTS
    shutil.copyfile(weights, place.parent.parent / "outside")
    weights.unlink()
    weights.symlink_to(place.parent.parent / "outside")


def link_folder(place: Path) -> None:
    folder = place / "releases" / THIRD / "adapter"
    shutil.move(folder, place.parent.parent / "outside")
    folder.symlink_to(place.parent.parent / "outside")


def link_release(place: Path) -> None:
    folder = place / "releases" / THIRD
    shutil.move(folder, place.parent.parent / "outside")
    folder.symlink_to(place.parent.parent / "outside")


def pipe(name: str):
    def put(place: Path) -> None:
        (place / name).unlink()
        os.mkfifo(place / name)

    return put


USED = [
    (edit_release(lambda told: told["consent"].update(speaker="Somebody else")), "release.json"),
    (edit_release(lambda told: told["provenance"].update(author="Eve")), "release.json"),
    (edit_release(lambda told: told["metrics"].update({"copy_synthesis.pesq_wb": 4.6})), "release.json"),
    (edit_release(lambda told: told["files"].pop("card.md")), "release.json"),
    (edit_release(lambda told: told.update(content_digest="0" * 64)), "do not give this version"),
    (replace_adapter, "release.json"),
    (flip_byte, f"{WEIGHTS} is not what was published"),
    (replay, "is an old one that was put back: it ends with event 2"),
    (rename_release, f"release.json is of version {FIRST}: the folder was renamed"),
    (link_to_equal_content, "symbolic link"),
    (link_folder, "symbolic link"),
    (link_release, "symbolic link"),
    (lambda place: (place / "releases" / THIRD / "etc").symlink_to("/etc"), "etc was added"),
    (lambda place: (place / "releases" / THIRD / "adapter" / "x.json").write_text("{}"), "adapter/x.json was added"),
    (pipe(f"releases/{THIRD}/release.json"), "named pipe"),
    (pipe(f"releases/{THIRD}/{WEIGHTS}"), "named pipe"),
    (pipe("channels/production.json"), "named pipe"),
    (lambda place: (place / "channels" / "production.json").write_text("[" * 100_000), "production.json"),
    (lambda place: (place / "channels" / "production.json").write_text('{"version": 1e999}'), "production.json"),
]


@pytest.mark.parametrize(("damage", "words"), USED)
def test_damage_to_what_is_served_is_named_and_not_used(registry, place, damage, words):
    damage(place)
    assert any(words in line for line in registry.verify("ana")), registry.verify("ana")
    with pytest.raises(SettingsError, match=re.escape(words)) as caught:
        registry.verified("ana")
    assert caught.value.exit_code == 3


def drop_last_link(place: Path) -> None:
    rewrite(events_of(place)[2], lambda told: told.update(event_before=None))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda place: rewrite(events_of(place)[0], lambda told: told.update(actor="Eve")), "event 1"),
        (lambda place: rewrite(events_of(place)[2], lambda told: told.update(reason="none")), "event 3"),
        (lambda place: rewrite(events_of(place)[1], lambda told: told.update(sequence=7)), "event 7"),
        (drop_last_link, "event 3"),
        (lambda place: events_of(place)[1].unlink(), "one event was between event 1"),
        (lambda place: events_of(place)[0].unlink(), "one event was before event 2"),
        (lambda place: (place / "channels" / "production.json").unlink(), "channels/production.json is missing"),
        (lambda place: events_of(place)[1].rename(place / "events" / "x.json"), "events/x.json holds event"),
        (lambda place: pipe(f"events/{events_of(place)[0].name}")(place), "named pipe"),
        (lambda place: shutil.copy(events_of(place)[0], place / "events" / "copy.json"), "events/copy.json"),
    ],
)
def test_damage_to_the_history_is_named(registry, place, damage, words):
    damage(place)
    assert any(words in line for line in registry.verify("ana")), registry.verify("ana")


def test_the_last_event_without_a_file_of_its_own_is_what_a_killed_publisher_leaves(registry, place):
    last = events_of(place)[2]
    assert not [finding for finding in registry.examine("ana") if last.stem in finding.message]
    last.unlink()
    (told,) = [finding for finding in registry.examine("ana") if last.stem in finding.message]
    assert not told.is_damage
    assert f"event 3 ({last.stem}) has no file of its own" in told.message
    assert "the next move of production completes it" in told.message
    assert registry.verified("ana")[0].version == THIRD
    registry.rollback("ana", None, SOMEBODY)
    assert [event.sequence for event in registry.history("ana")] == [1, 2, 3, 4]
    assert last.is_file()
    assert not [finding for finding in registry.examine("ana") if last.stem in finding.message]


def test_a_folder_of_another_voice_is_named_and_does_not_speak(registry, place):
    shutil.copytree(place, place.parent / "ben")
    told = registry.verify("ben")
    assert any("release.json is of the voice ana" in line for line in told)
    assert any("channels/production.json is of ana" in line for line in told)
    for asked in ("production", THIRD):
        with pytest.raises(NotTrusted, match=r"of ana|of the voice ana"):
            registry.verified("ben", asked)


def test_a_candidate_s_pointer_is_no_production_s(registry, place, files, make_release):
    registry.publish("ana", make_release(version=version_of(4)), files, channel="candidate", actor="x")
    shutil.copy(place / "channels" / "candidate.json", place / "channels" / "production.json")
    with pytest.raises(NotTrusted, match="is of ana, channel candidate: it was copied here"):
        registry.verified("ana")


def test_nothing_is_built_on_a_channel_that_was_put_back(registry, place, files, make_release):
    replay(place)
    before = sorted(place.rglob("*"))
    with pytest.raises(NotTrusted, match="put back"):
        registry.move("ana", "production", FIRST, action="promote", mover=SOMEBODY)
    with pytest.raises(NotTrusted, match="put back"):
        registry.rollback("ana", None, SOMEBODY)
    assert sorted(place.rglob("*")) == before
    registry.rollback("ana", FIRST, SOMEBODY)  # to a version that somebody named: the way out
    assert registry.verified("ana")[0].version == FIRST
    assert registry.history("ana")[-1].sequence == 4
    assert registry.verify("ana") == []


def test_a_release_that_is_not_what_was_published_is_put_on_no_channel(registry, place):
    shutil.rmtree(place / "releases" / FIRST)
    shutil.copytree(place / "releases" / SECOND, place / "releases" / FIRST)
    for action in ("promote", "republish", "rollback"):
        with pytest.raises(NotTrusted, match="was renamed"):
            registry.move("ana", "production", FIRST, action=action, mover=SOMEBODY)
    with pytest.raises(NotTrusted, match="was renamed"):
        registry.republish("ben", FIRST, channel="production", mover=SOMEBODY)
    assert "ben" not in registry.voices()


def forge(place: Path) -> None:
    """Somebody who may write everything: another consent, and every digest that leads to it."""
    record, pointer = place / "releases" / THIRD / "release.json", place / "channels" / "production.json"
    rewrite(record, lambda told: told["consent"].update(speaker="Somebody else"))
    digest = manifest_digest(Release.model_validate_json(record.read_bytes()))
    rewrite(events_of(place)[2], lambda told: told.update(release_digest=digest))
    rewrite(pointer, lambda told: told["event"].update(release_digest=digest))


def test_only_a_signature_tells_a_forgery_by_one_who_may_write_everything(open_as, files, make_release, place):
    for name, keys in (("unsigned", ()), ("signed", (OURS,))):
        registry = open_as(*keys, signer=OURS if keys else None)
        for version in (FIRST, SECOND, THIRD):
            registry.publish("ana", make_release(version=version), files, actor="Ana Perez")
        forge(place)
        damages = registry.verify("ana")
        assert bool(damages) is (name == "signed")
        if damages:
            assert any("release.json is not what was signed" in line for line in damages)
            assert any("event 3" in line and "is not what was signed" in line for line in damages)
        shutil.rmtree(place)


def test_signatures_that_fit_are_asked_of_what_is_signed_even_where_nobody_is_trusted(
    open_as, files, make_release, place
):
    open_as(signer=OURS).publish("ana", make_release(version=FIRST), files, actor="x")
    stranger = open_as()
    assert stranger.verified("ana")[0].signature is not None
    rewrite(place / "releases" / FIRST / "release.json", lambda told: told.update(license="MIT"))
    assert any("is not what was signed" in line for line in stranger.verify("ana"))


@pytest.mark.parametrize(("signer", "words"), [(None, "is not signed"), (THEIRS, "signed by key")])
def test_with_trusted_keys_nothing_else_is_used(open_as, files, make_release, signer, words):
    open_as(signer=signer).publish("ana", make_release(version=FIRST), files, actor="x")
    believing = open_as(OURS, signer=OURS)
    assert any(words in line for line in believing.verify("ana"))
    for asked in ("production", FIRST):
        with pytest.raises(NotTrusted, match=words):
            believing.verified("ana", asked)
    for refused in (
        lambda: believing.republish("ben", FIRST, channel="production", mover=SOMEBODY),
        lambda: believing.publish("ana", make_release(version=FIRST), files, actor="x"),
        lambda: believing.publish("ana", make_release(version=SECOND), files, actor="x"),
        lambda: believing.rollback("ana", FIRST, SOMEBODY),
        lambda: believing.promote("ana", FIRST, SOMEBODY),
    ):
        with pytest.raises(NotTrusted, match=words):
            refused()
    assert believing.versions("ana") == [FIRST], "nothing was stored on the way to a refusal"
    assert believing.not_trusted(believing.states()) == ["ana"]
    assert believing.retire("ana", SOMEBODY), "taking a voice away is always possible"


def test_who_may_not_sign_publishes_nothing(open_as, files, make_release, place):
    for signer, words in ((None, "no key to sign with"), (THEIRS, "does not name key")):
        with pytest.raises(SettingsError, match=words):
            open_as(OURS, signer=signer).publish("ana", make_release(version=FIRST), files, actor="x")
    assert not place.exists()


def test_a_renamed_voice_is_signed_by_who_adopts_it(open_as, files, make_release):
    open_as(OURS, THEIRS, signer=OURS).publish("ana", make_release(version=FIRST), files, actor="x")
    second = open_as(OURS, THEIRS, signer=THEIRS)
    second.republish("anna", FIRST, channel="production", mover=SOMEBODY)
    release = second.verified("anna")[0]
    assert (release.copied_from, release.signature.key) == ("ana", THEIRS.public_key)
    assert second.verify("anna") == []


def test_what_was_there_before_the_first_key_is_signed_once_and_then_believed(registry, open_as, place):
    believing = open_as(THEIRS, signer=THEIRS)
    assert len(believing.verify("ana")) > 0
    assert believing.sign("ana", SOMEBODY) == [*sorted((FIRST, SECOND, THIRD)), "production"]
    assert believing.verify("ana") == []
    assert believing.verified("ana")[0].version == THIRD
    assert believing.sign("ana", SOMEBODY) == [], "twice changes nothing"
    assert believing.rollback("ana", None, SOMEBODY).version == SECOND
    assert believing.verify("ana") == []


def test_damage_that_somebody_has_looked_at_and_signed_is_a_remark(open_as, files, make_release, place):
    registry = open_as(OURS, signer=OURS)
    for version in (FIRST, SECOND, THIRD):
        registry.publish("ana", make_release(version=version), files, actor="x")
    events_of(place)[0].unlink()
    assert len(registry.verify("ana")) == 1
    registry.sign("ana", SOMEBODY)
    assert registry.verify("ana") == []
    remarks = [finding.message for finding in registry.examine("ana")]
    assert any("before event 2" in line and "signed since" in line for line in remarks)


def as_older_voxline(place: Path) -> None:
    """What was written before there was a chain."""
    for path in [*(place / "events").iterdir(), place / "channels" / "production.json"]:

        def strip(told):
            event = told.get("event", told)
            for key in ("sequence", "event_before", "release_digest", "signature"):
                event.pop(key)

        rewrite(path, strip)
    for path in (place / "releases").glob("*/release.json"):
        rewrite(path, lambda told: told.pop("signature"))


def test_a_registry_of_an_older_voxline_is_read_and_remarked_upon(open_as, files, make_release, place):
    registry = open_as()
    for version in (FIRST, SECOND):
        registry.publish("ana", make_release(version=version), files, actor="x")
    as_older_voxline(place)
    assert registry.verify("ana") == []
    assert [finding.message for finding in registry.examine("ana")] == [
        "ana: production: 2 events were written by an older voxline, neither chained nor signed"
    ]
    assert registry.verified("ana")[0].version == SECOND
    registry.publish("ana", make_release(version=THIRD), files, actor="x")
    assert registry.verify("ana") == []
    assert [event.sequence for event in registry.history("ana")] == [None, None, 1]
    rewrite(events_of(place)[1], lambda told: told.update(actor="Eve"))
    assert any("was changed" in line for line in registry.verify("ana")), "the first link holds the last old event"
    assert open_as(OURS, signer=OURS).verify("ana"), "with trusted keys, unsigned is refused"


def test_an_older_state_of_the_whole_registry_is_refused_where_a_later_one_was_seen(
    open_as, files, make_release, place, tmp_path
):
    registry = open_as(OURS, signer=OURS, home=tmp_path / "home")
    for version in (FIRST, SECOND):
        registry.publish("ana", make_release(version=version), files, actor="x")
    shutil.copytree(place, tmp_path / "kept")
    registry.publish("ana", make_release(version=THIRD), files, actor="x")
    assert registry.verified("ana")[0].version == THIRD
    shutil.rmtree(place)
    shutil.copytree(tmp_path / "kept", place)
    with pytest.raises(NotTrusted, match=r"is at event 2 .* seen event 3"):
        registry.verified("ana")
    assert any("seen event 3" in line for line in registry.verify("ana"))
    assert open_as(OURS, signer=OURS, home=tmp_path / "elsewhere").verify("ana") == []


def test_digests_are_remembered_and_forgotten_with_the_file(registry, tmp_path, place):
    weights = place / "releases" / THIRD / WEIGHTS
    memory = Memory(tmp_path / "home" / "digests.json")
    past = time.time() - 60

    def digest_of(path: Path) -> str:
        with Digester(memory) as digester:
            return digester.of(path).sha256

    real = digest_of(weights)
    assert memory.load() == {}, "a file that changed just now may change again within a tick"
    settled = tmp_path / "old"
    shutil.copy(weights, settled)
    os.utime(settled, (past, past))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.io.registry.trust.time.time_ns", lambda: time.monotonic_ns() + 10**19)
        assert digest_of(settled) == real
    assert list(memory.load().values()) == [real]
    assert memory.path.stat().st_mode & 0o777 == 0o600
    settled.write_bytes(b"x" * settled.stat().st_size)
    os.utime(settled, (past, past))
    assert digest_of(settled) != real, "same size, same time of content: the inode's own time has moved"


def test_a_memory_that_others_may_write_is_not_believed(tmp_path):
    memory = Memory(tmp_path / "digests.json")
    memory.save({"place": "digest"})
    assert memory.load() == {"place": "digest"}
    memory.path.chmod(0o666)
    assert memory.load() == {}
    memory.path.chmod(0o600)
    link = Memory(tmp_path / "link.json")
    link.path.symlink_to(memory.path)
    assert link.load() == {}


def test_a_rollback_says_where_it_goes_and_twice_is_once(registry):
    assert registry.rollback("ana", None, SOMEBODY).version == SECOND
    for _ in range(3):
        assert registry.rollback("ana", None, SOMEBODY) is None
    assert registry.resolve("ana").version == SECOND
    assert len(registry.history("ana")) == 4
    assert registry.version_before("ana", SECOND) == FIRST
    assert registry.rollback("ana", FIRST, SOMEBODY).version == FIRST
    assert registry.rollback("ana", FIRST, SOMEBODY) is None
    assert registry.states()["ana"].rolled_back == {SECOND, THIRD}


def test_a_rollback_passes_over_what_was_rolled_back_before(registry, files, make_release):
    registry.rollback("ana", None, SOMEBODY)
    registry.publish("ana", make_release(version=version_of(4)), files, actor="x")
    assert registry.rollback("ana", None, SOMEBODY).version == SECOND, "not to the third, which was left before"
    registry.promote("ana", THIRD, SOMEBODY)
    registry.publish("ana", make_release(version=version_of(5)), files, actor="x")
    assert registry.rollback("ana", None, SOMEBODY).version == THIRD, "somebody has promoted it since"


def test_two_people_who_roll_back_at_once_do_it_once(registry, monkeypatch):
    """The second has chosen where to go when the first moves the channel."""
    other = replace(registry)
    choose = rollbacks.version_before

    def late(channels, voice, present):
        chosen = choose(channels, voice, present)
        monkeypatch.setattr(rollbacks, "version_before", choose)
        assert other.rollback("ana", None, Mover("Cleo")).version == SECOND
        return chosen

    monkeypatch.setattr(rollbacks, "version_before", late)
    assert registry.rollback("ana", None, SOMEBODY) is None
    assert registry.resolve("ana").version == SECOND
    assert [event.actor for event in registry.history("ana")][3:] == ["Cleo"]


def test_a_rollback_does_not_take_away_what_came_meanwhile(registry, monkeypatch, files, make_release):
    choose = rollbacks.version_before

    def late(channels, voice, present):
        chosen = choose(channels, voice, present)
        registry.publish("ana", make_release(version=version_of(4)), files, actor="Ana Perez")
        return chosen

    monkeypatch.setattr(rollbacks, "version_before", late)
    with pytest.raises(MovedMeanwhile, match=f"Ana Perez moved production to {version_of(4)}"):
        registry.rollback("ana", None, SOMEBODY)
    assert registry.resolve("ana").version == version_of(4)


def test_a_retired_voice_comes_back_to_its_last_version_once(registry):
    registry.retire("ana", SOMEBODY)
    assert registry.rollback("ana", None, SOMEBODY).version == THIRD
    assert registry.rollback("ana", None, SOMEBODY) is None
    assert registry.resolve("ana").version == THIRD


def test_what_killed_writers_left_is_swept(registry, place, tmp_path):
    left = [
        place / "channels" / ".production.json.4242.tmp",
        place / "events" / f".{events_of(place)[0].name}.4242.tmp",
    ]
    for path in left:
        path.write_text("{")
    registry.rollback("ana", None, SOMEBODY)
    assert not any(path.exists() for path in left)
    assert registry.verify("ana") == []


def test_a_lock_that_is_a_pipe_does_not_hang(registry, tmp_path):
    lock = tmp_path / "registry" / ".locks" / "ana.lock"
    lock.unlink()
    os.mkfifo(lock)
    with pytest.raises(SettingsError, match="cannot be written"):
        registry.rollback("ana", None, SOMEBODY)


def test_a_record_says_the_same_whatever_a_later_voxline_adds_to_it(registry):
    event = registry.history("ana")[0]
    assert event_digest(Event.model_validate_json(event.model_dump_json())) == event_digest(event)
    assert event_digest(Event.model_validate(event.model_dump(exclude_defaults=True))) == event_digest(event)


def test_who_was_never_published_is_told(registry):
    with pytest.raises(UsageError, match="nothing on channel"):
        registry.verified("ben")


def test_verify_beside_publishers_finds_nothing_wrong(open_as, files, make_release, place, tmp_path):
    registry = open_as(OURS, signer=OURS, home=tmp_path / "home")
    registry.publish("ana", make_release(version=FIRST), files, actor="x")
    registry.publish("ana", make_release(version=SECOND), files, actor="x")
    stop = threading.Event()

    def move():
        for turn in range(1000):
            if stop.is_set():
                return
            registry.move("ana", "production", (FIRST, SECOND)[turn % 2], action="promote", mover=SOMEBODY)

    mover = threading.Thread(target=move)
    mover.start()
    try:
        for _ in range(15):
            assert registry.verify("ana") == []
            assert registry.verified("ana")[0].version in (FIRST, SECOND)
    finally:
        stop.set()
        mover.join()
    assert len(registry.history("ana")) > 3
