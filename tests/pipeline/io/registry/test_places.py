"""Registries on other machines: nothing is lost and nothing torn, whatever the way there does."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import ExitStack
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from faulty_proxy import at, busy
from places import FAULTY, PLACES
from releases import OURS, THEIRS, trusting, version_of

from pipeline.errors import SettingsError, TransientError, UsageError
from pipeline.io.registry import downloads, remote
from pipeline.io.registry.backend import Change
from pipeline.io.registry.events import Mover
from pipeline.io.registry.trust import NotTrusted
from pipeline.records.release import Refusal

pytestmark = pytest.mark.slow

WEIGHTS = "adapter/synthesizer/adapter_model.safetensors"
SOMEBODY = Mover("Bén 张伟", git_revision="f" * 40, reason="klingt müde 疲れた")
FIRST, SECOND, THIRD = (version_of(take) for take in (1, 2, 3))


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """One server of each kind for all tests."""
    with ExitStack() as servers:
        found = {}

        def start(place):
            if place not in found:
                found[place] = servers.enter_context(place(tmp_path_factory.mktemp("place")))
            found[place].faults.begin()
            return found[place]

        yield start


def fixture_of(places):
    @pytest.fixture(params=list(places.values()), ids=list(places))
    def place(request, started):
        yield started(request.param)
        started(request.param)

    return place


anywhere = fixture_of(PLACES)
not_here = fixture_of({kind: place for kind, place in PLACES.items() if kind != "file"})
elsewhere = fixture_of(FAULTY)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Pauses that a test need not wait for."""
    monkeypatch.setattr(remote, "PAUSES_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(downloads, "PAUSE_S", 0.0)


@pytest.fixture
def files(tmp_path, make_weights):
    (tmp_path / "card.md").write_text("# ana\n")
    (tmp_path / "sound.ogg").write_bytes(bytes(range(256)) * 40)
    return {
        WEIGHTS: make_weights(tmp_path / "w.safetensors", b"\0" * 3000),
        "card.md": tmp_path / "card.md",
        "report/Grüße 你好.ogg": tmp_path / "sound.ogg",
    }


@pytest.fixture
def publish(files, make_release):
    def published(registry, voice, version, **told):
        return registry.publish(voice, make_release(voice, version), files, actor="Ana Pérez", **told)

    return published


def versions_of(registry, voice):
    return [event.version for event in registry.history(voice)]


def test_a_voice_lives_the_same_everywhere(anywhere, publish, files):
    trust = trusting(OURS, signer=OURS)
    registry = anywhere.open(trust=trust)
    assert registry.states() == {} or "life" not in registry.states()
    assert registry.pointer("life", "production") is None
    first = publish(registry, "life", FIRST)
    publish(registry, "life", SECOND, channel="candidate")
    registry.promote("life", None, SOMEBODY)
    other = anywhere.open(trust=trust)
    assert other.resolve("life").version == SECOND
    assert other.release("life", FIRST) == first
    release, folder = other.verified("life")
    assert release.files.keys() == files.keys()
    for name, path in files.items():
        assert (folder / name).read_bytes() == path.read_bytes()
    assert registry.rollback("life", None, SOMEBODY).version == FIRST
    assert other.resolve("life").version == FIRST
    assert other.rollback("life", None, SOMEBODY) is None
    assert [event.action for event in other.history("life")] == ["publish", "publish", "promote", "rollback"]
    assert other.history("life")[-1].reason == SOMEBODY.reason
    assert other.states()["life"].versions == {FIRST, SECOND}
    assert other.states()["life"].rolled_back == {SECOND}
    assert other.republish("life-2", FIRST, channel="production", mover=SOMEBODY).copied_from == "life"
    assert other.verify("life") == other.verify("life-2") == []
    registry.retire("life", SOMEBODY)
    with pytest.raises(UsageError, match="retired"):
        other.resolve("life")
    with pytest.raises(UsageError, match="no version ffffffffffff"):
        other.rollback("life", "ffffffffffff", SOMEBODY)
    with pytest.raises(NotTrusted, match="does not name"):
        anywhere.open(trust=trusting(THEIRS)).verified("life", FIRST)


def test_a_refusal_is_noted_there(anywhere):
    told = {"judges": "5" * 64, "exit_code": 10, "reason": "zu kurz", "at": "2026-01-10T00:00:00Z", "actor": "CI"}
    registry = anywhere.open()
    for voice, take in (("ana", 1), ("ben", 1), ("ana", 2)):
        registry.refuse(Refusal.model_validate({"voice": voice, "version": version_of(take), **told}))
    assert {voice: refusal.version for voice, refusal in anywhere.open().refusals().items()} == {
        "ana": SECOND,
        "ben": FIRST,
    }
    assert "ana" not in registry.voices()


def test_publishing_twice_brings_no_file_there_again(elsewhere, publish):
    registry = elsewhere.open()
    first = publish(registry, "twice", FIRST)
    elsewhere.faults.begin()
    assert publish(registry, "twice", FIRST) == first
    assert len(registry.history("twice")) == 1
    assert not any(request.method in ("PUT", "POST") and elsewhere.is_write(request) for request in elsewhere.faults.requests)


@pytest.mark.parametrize("turn", [0, 1])
def test_a_cut_at_each_request_in_turn_loses_nothing(elsewhere, publish, turn):
    if turn and elsewhere.kind == "git":
        pytest.skip("each request of git's is half a second of the processor; the other places take both turns")
    kinds = (("cut after", "cut before"), ("cut inside", "cut after"))[turn]
    registry = elsewhere.open(cache="cuts")
    for number in range(1, 40):
        voice = f"cut-{turn}-{number}"
        elsewhere.faults.begin(at(number, kinds[number % 2]))
        try:
            publish(registry, voice, FIRST)
        except TransientError:
            pass
        asked = len(elsewhere.faults.requests)
        elsewhere.faults.begin()
        seen = elsewhere.open(cache="cuts")
        assert versions_of(seen, voice) in ([], [FIRST])
        publish(seen, voice, FIRST)
        assert versions_of(seen, voice) == [FIRST], f"cut at {number}"
        if asked < number:
            break
    else:
        pytest.fail("publishing never came to its end")
    assert number > 3
    assert seen.verify(voice) == []


def test_a_rollback_whose_answer_is_lost_is_done_once(elsewhere, publish):
    registry = elsewhere.open()
    for further in (1, 2):
        voice = f"lost-{further}"
        publish(registry, voice, FIRST)
        publish(registry, voice, SECOND)
        elsewhere.faults.begin()
        registry.pointer(voice, "production")
        elsewhere.faults.begin(at(len(elsewhere.faults.requests) + further, "cut after"))
        event = registry.rollback(voice, None, SOMEBODY)
        assert event is not None and event.version == FIRST
        elsewhere.faults.begin()
        assert versions_of(registry, voice) == [FIRST, SECOND, FIRST]


def test_a_server_that_is_busy_for_a_while_is_asked_again(elsewhere, publish):
    registry = elsewhere.open()
    elsewhere.faults.begin(busy(503, until=2))
    publish(registry, "busy", FIRST)
    elsewhere.faults.begin(busy(429, until=2, retry_after="0"))
    assert registry.resolve("busy").version == FIRST
    elsewhere.faults.begin(lambda request: "slow")
    assert elsewhere.open().verified("busy")[0].version == FIRST


@pytest.mark.parametrize("status", [500, 429])
def test_a_server_that_stays_busy_is_a_temporary_failure(elsewhere, publish, status):
    registry = elsewhere.open()
    elsewhere.faults.begin(busy(status, until=10**6))
    with pytest.raises(TransientError) as failure:
        publish(registry, "down", FIRST)
    assert failure.value.exit_code == 75
    elsewhere.faults.begin()
    assert registry.history("down") == []
    assert "down" not in registry.voices()


def test_eight_publishers_of_one_voice_leave_one_history(anywhere, publish):
    def one(take: int) -> None:
        publish(anywhere.open(cache="many"), "many", version_of(take))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(1, 9)))
    registry = anywhere.open()
    events = registry.history("many")
    assert sorted(event.version for event in events) == sorted(version_of(take) for take in range(1, 9))
    assert all(later.previous == earlier.version for earlier, later in pairwise(events))
    assert [event.sequence for event in events] == list(range(1, 9))
    assert registry.verify("many") == []


def test_who_comes_too_late_with_a_rollback_is_told(anywhere, publish, monkeypatch):
    from pipeline.io.registry import rollbacks

    registry, other = anywhere.open(), anywhere.open()
    publish(registry, "late", FIRST)
    publish(registry, "late", SECOND)
    choose = rollbacks.version_before

    def late(*arguments):
        chosen = choose(*arguments)
        monkeypatch.setattr(rollbacks, "version_before", choose)
        publish(other, "late", THIRD)
        return chosen

    monkeypatch.setattr(rollbacks, "version_before", late)
    with pytest.raises(UsageError, match="moved production"):
        registry.rollback("late", None, SOMEBODY)
    assert registry.resolve("late").version == THIRD


def test_a_clock_that_is_a_day_behind_keeps_the_order(anywhere, publish, monkeypatch):
    from pipeline.io.registry import events as module

    registry = anywhere.open()
    publish(registry, "clock", FIRST)

    class Behind(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) - timedelta(days=1)

    monkeypatch.setattr(module, "datetime", Behind)
    publish(registry, "clock", SECOND)
    assert versions_of(registry, "clock") == [FIRST, SECOND]
    assert registry.verify("clock") == []


def test_what_was_brought_there_and_never_named_is_not_seen(anywhere, publish, files):
    digests = {name: (path, hashlib.sha256(path.read_bytes()).hexdigest()) for name, path in files.items()}
    anywhere.open().backend.stage(f"half/releases/{FIRST}", digests)  # a publisher that dies here
    fresh = anywhere.open()
    assert "half" not in fresh.voices()
    assert fresh.versions("half") == []
    publish(fresh, "half", FIRST)
    assert fresh.verify("half") == []


def test_a_file_that_changes_under_way_is_not_published(not_here, files):
    with pytest.raises(TransientError, match="changed while"):
        not_here.open().backend.stage(f"half/releases/{FIRST}", {"card.md": (files["card.md"], "0" * 64)})


def test_releases_that_nothing_names_go_and_the_others_stay(anywhere, publish):
    registry = anywhere.open()
    for version in (FIRST, SECOND, THIRD):
        publish(registry, "old", version)
    later = datetime.now().astimezone() + timedelta(days=91)
    going = [one.version for one in registry.collect(unused_days=90, now=later, dry_run=True) if one.voice == "old"]
    assert sorted(going) == sorted((FIRST, SECOND))
    registry.collect(unused_days=90, now=later, dry_run=False)
    assert anywhere.open().versions("old") == [THIRD]
    publish(registry, "old", FIRST)
    assert registry.verify("old") == []
    assert registry.resolve("old").version == FIRST


def test_a_removal_that_was_overtaken_by_a_move_fails(anywhere, publish):
    registry = anywhere.open()
    publish(registry, "race", FIRST)
    publish(registry, "race", SECOND)
    key = "race/channels/production.json"
    tag = registry.backend.get(key).tag
    anywhere.open().move("race", "production", FIRST, action="rollback", mover=SOMEBODY)
    assert not registry.backend.commit("race", Change(expects={key: tag}, removes=f"race/releases/{FIRST}"))
    assert registry.verified("race")[0].version == FIRST


def test_a_registry_of_a_newer_voxline_is_read_no_further(not_here, publish, monkeypatch):
    registry = not_here.open()
    monkeypatch.setattr(remote, "FORMAT", 2)
    monkeypatch.setattr(
        remote, "_after", lambda head, change, made=remote._after: made(head, change).model_copy(update={"format": 2})
    )
    publish(registry, "newer", FIRST)
    monkeypatch.undo()
    with pytest.raises(SettingsError, match="newer voxline"):
        not_here.open().resolve("newer")
    with pytest.raises(SettingsError, match="newer voxline"):
        publish(not_here.open(), "newer", SECOND)
    monkeypatch.setattr(remote, "FORMAT", 2)  # as that newer one, which goes back
    publish(not_here.open(), "newer", SECOND)
    monkeypatch.undo()
    assert not_here.open().resolve("newer").version == SECOND


def test_the_requests_are_as_few_as_the_documentation_says(elsewhere, publish, files):
    registry = elsewhere.open(cache="counted")
    publish(registry, "counted", FIRST)
    told = {}
    for name, act in {
        "publish": lambda: publish(registry, "counted", SECOND),
        "rollback": lambda: registry.rollback("counted", None, SOMEBODY),
        "list": registry.states,
    }.items():
        registry.reindex()
        elsewhere.faults.begin()
        act()
        told[name] = len(elsewhere.faults.requests)
    allowed = {**elsewhere.most, "publish": elsewhere.most["publish"] + len(files)}
    assert all(told[name] <= allowed[name] for name in told), (told, allowed)


def test_a_list_believes_the_releases_and_not_the_index(not_here, publish):
    registry = not_here.open()
    publish(registry, "listed", FIRST)
    assert registry.states()["listed"].production.version == FIRST
    publish(registry, "listed", SECOND)
    registry.rollback("listed", None, SOMEBODY)  # which leaves the index as it is
    assert not_here.open().states()["listed"].production.version == FIRST
    index = registry.backend.get(".index/voices.json")
    registry.backend.commit(
        ".index", Change(expects={".index/voices.json": index.tag}, puts={".index/voices.json": b"{}"})
    )
    assert not_here.open().states()["listed"].production.version == FIRST
    assert registry.reindex() == len(registry.voices())
    assert not_here.open().states()["listed"].production.version == FIRST


def test_files_come_once_for_all_processes_and_are_bounded(elsewhere, publish, tmp_path):
    registry = elsewhere.open(cache="shared")
    publish(registry, "cached", FIRST)
    folder = elsewhere.open(cache="shared").verified("cached")[1]
    elsewhere.faults.begin()
    other = elsewhere.open(cache="shared")
    assert other.verified("cached")[1] == folder
    assert not any(elsewhere.is_file(request) for request in elsewhere.faults.requests)
    kept = other.backend.downloads
    assert kept.collect(0)[0] == 0  # in use
    (folder / "card.md").write_text("somebody edits the copy")
    assert other.verified("cached")[0].version == FIRST  # which is made anew
    shutil.rmtree(folder)
    assert (other.verified("cached")[1] / "card.md").read_text() == "# ana\n"
