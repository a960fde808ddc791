"""A registry in a bucket: keys, stores that cannot do it, and stores that lie."""

from __future__ import annotations

import pytest
from faulty_proxy import Answer
from places import bucket_place
from releases import version_of

from pipeline.errors import NoAccessError, SettingsError
from pipeline.io.registry import downloads, remote
from pipeline.io.registry.registry import open_registry
from pipeline.io.registry.trust import NotTrusted

WEIGHTS = "adapter/synthesizer/adapter_model.safetensors"
CONDITIONS = ("if-match", "if-none-match")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with bucket_place(tmp_path_factory.mktemp("bucket")) as place:
        yield place


@pytest.fixture(autouse=True)
def impatient(monkeypatch, bucket):
    monkeypatch.setattr(remote, "PAUSES_S", (0.0,))
    monkeypatch.setattr(downloads, "PAUSE_S", 0.0)
    bucket.faults.begin()
    yield
    bucket.faults.begin()


@pytest.fixture
def publish(tmp_path, make_release, make_weights):
    def published(registry, voice="ana", take=1, size=1000):
        weights = make_weights(tmp_path / "w", bytes([take]) * size)
        return registry.publish(voice, make_release(voice, version_of(take)), {WEIGHTS: weights}, actor="x")

    return published


@pytest.mark.parametrize("ignored", [CONDITIONS, ("if-match",), ("if-none-match",)])
def test_a_store_that_writes_whatever_the_condition_is_refused(bucket, publish, ignored):
    """Two publishers would overwrite each other without knowing it."""

    def ignore(request):
        request.headers = {name: value for name, value in request.headers.items() if name.lower() not in ignored}

    bucket.faults.begin(ignore)
    with pytest.raises(SettingsError, match="does not write conditionally") as failure:
        publish(bucket.open(), voice=f"without-{len(ignored)}-{ignored[0]}")
    assert failure.value.exit_code == 3
    bucket.faults.begin()
    assert not any(name.startswith("without") for name in bucket.open().voices())


def test_wrong_keys_and_missing_rights_are_told(bucket, publish):
    denied = Answer(403, [], b"<Error><Code>InvalidAccessKeyId</Code><Message>no such key</Message></Error>")
    bucket.faults.begin(lambda request: denied)
    with pytest.raises(NoAccessError, match="InvalidAccessKeyId: no such key") as failure:
        publish(bucket.open())
    assert "AWS_ACCESS_KEY_ID" in failure.value.hint
    bucket.faults.begin(lambda request: denied if request.method == "PUT" else None)
    with pytest.raises(NoAccessError):
        publish(bucket.open())
    bucket.faults.begin()
    assert "ana" not in bucket.open().voices()


def test_a_bucket_that_is_not_there_is_a_setting(bucket, publish, tmp_path):
    for ask in (publish, lambda registry: registry.voices(), lambda registry: registry.resolve("ana")):
        with pytest.raises(SettingsError, match="no such bucket"):
            ask(open_registry("s3://not-there", cache=tmp_path / "cache"))


def test_a_store_that_gives_other_bytes_is_found_out(bucket, publish):
    publish(bucket.open(), voice="lies")

    def other(request, answer):
        is_file = request.method == "GET" and "/releases/" in request.path
        return Answer(answer.status, answer.headers, b"\1" * len(answer.body)) if is_file else answer

    bucket.faults.changes = other
    registry = bucket.open()
    with pytest.raises(NotTrusted, match="other bytes") as failure:
        registry.verified("lies")
    assert failure.value.exit_code == 3
    assert any("other bytes" in line for line in registry.verify("lies"))
    bucket.faults.begin()
    assert registry.verify("lies") == []


def test_verify_asks_the_store_and_not_what_was_downloaded(bucket, publish):
    registry = bucket.open()
    publish(registry, voice="asked")
    registry.verified("asked")

    def gone(request):
        return Answer(404, [], b"<Error><Code>NoSuchKey</Code></Error>") if "/releases/" in request.path else None

    bucket.faults.begin(gone)
    assert registry.verified("asked")[0].version == version_of(1)
    assert any("is missing" in line for line in registry.verify("asked"))


def test_an_old_state_that_a_cache_on_the_way_gives_loses_nothing(bucket, publish):
    """A stale read: the swap of what was decided on it fails, and it is decided again."""
    registry = bucket.open()
    publish(registry, voice="stale", take=1)
    kept = {}

    def remember(request, answer):
        kept.setdefault(request.path, answer)
        return answer

    bucket.faults.changes = remember
    registry.history("stale")
    publish(bucket.open(), voice="stale", take=2)
    given = []

    def stale(request):
        if request.method == "GET" and request.path in kept and "heads/stale" in request.path and len(given) < 2:
            given.append(request)
            return kept[request.path]
        return None

    bucket.faults.begin(stale)
    publish(bucket.open(), voice="stale", take=3)
    assert len(given) == 2
    bucket.faults.begin()
    assert [event.version for event in registry.history("stale")] == [version_of(take) for take in (1, 2, 3)]
    assert registry.verify("stale") == []


def test_a_download_goes_on_where_it_broke_off(bucket, publish):
    publish(bucket.open(), voice="resumed", size=600_000)
    ranges = []

    def cut_once(request):
        if "/releases/" in request.path and request.method == "GET":
            ranges.append(request.headers.get("range") or request.headers.get("Range"))
            return "cut inside" if len(ranges) == 1 else None
        return None

    bucket.faults.begin(cut_once)
    assert bucket.open().verified("resumed")[0].version == version_of(1)
    assert ranges[0] is None
    assert ranges[1] is not None and ranges[1] != "bytes=0-"


@pytest.mark.parametrize("url", ["s3:voices", "s3://", "s3://UPPER", "s3://voices/../x", "s3://a/b c"])
def test_what_is_no_bucket_is_refused(url, tmp_path):
    with pytest.raises(SettingsError, match="bucket|none of"):
        open_registry(url, cache=tmp_path)


def test_plain_http_is_refused_except_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3.example.org")
    with pytest.raises(SettingsError, match="in the clear"):
        open_registry("s3://voices", cache=tmp_path)


def test_uploads_that_nobody_named_for_a_week_are_removed(bucket, publish, monkeypatch):
    from datetime import timedelta

    from pipeline.io.registry import bucket_place as module

    registry = bucket.open()
    publish(registry, voice="swept")
    registry.backend.stage(f"swept/releases/{version_of(2)}", {})
    place = registry.backend.place
    place._put_if(f"releases/swept/{version_of(2)}/dead/card.md", b"x", None)
    registry.collect(unused_days=90, dry_run=False)
    assert len(place._listed("releases/swept")) == 2
    monkeypatch.setattr(module, "ABANDONED", timedelta(days=-1))
    registry.collect(unused_days=90, dry_run=False)
    assert len(place._listed("releases/swept")) == 1
    assert registry.verify("swept") == []
