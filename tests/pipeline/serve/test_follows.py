"""A server follows its registry without a restart, and goes on without it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from serve_running import MOVER, prepared_root, wait_for
from served_voices import publish_voice

from pipeline.errors import TransientError
from pipeline.io.registry.registry import Registry, open_registry
from pipeline.records.serving import WorkerSettings
from pipeline.records.settings import ServeSettings
from pipeline.records.voice import Consent
from pipeline.serve.answers import Refused
from pipeline.serve.app import Server, build_app
from pipeline.serve.catalog import Catalog
from pipeline.serve.doors import Doors
from pipeline.serve.workers import Worker

pytestmark = pytest.mark.slow


def version_of(server, voice: str) -> str | None:
    answer = server.say(voice)
    return answer.headers.get("x-voxline-version")


def test_publishing_rolling_back_and_retiring_count_without_a_restart(server):
    first = server.publish("cleo", 10)
    wait_for(lambda: version_of(server, "cleo") == first.version)
    before = server.say("cleo").content
    second = server.publish("cleo", 11)
    wait_for(lambda: version_of(server, "cleo") == second.version)
    assert server.say("cleo").content != before
    assert version_of(server, f"cleo@{first.version}") == first.version
    server.registry.rollback("cleo", None, MOVER)
    wait_for(lambda: version_of(server, "cleo") == first.version)
    assert server.say("cleo").content == before
    server.registry.retire("cleo", MOVER)
    answer = wait_for(lambda: (found := server.say("cleo")).status_code == 410 and found)
    assert answer.json()["error"]["code"] == "voice_retired"
    assert server.say(f"cleo@{first.version}").status_code == 410
    assert server.get("/v1/voices/cleo").status_code == 410
    assert "cleo" not in [voice["id"] for voice in server.get("/v1/audio/voices").json()["data"]]


def test_a_candidate_answers_by_its_channel_alone(server):
    candidate = server.publish("dora", 12, channel="candidate")
    wait_for(lambda: version_of(server, "dora@candidate") == candidate.version)
    assert server.say("dora").status_code == 404
    assert server.say("dora", model="candidate").headers["x-voxline-version"] == candidate.version


def test_a_request_under_way_ends_with_the_version_it_began_with(server):
    first = server.publish("emil", 13)
    wait_for(lambda: version_of(server, "emil") == first.version)
    text = " ".join(f"This is sentence number {number}." for number in range(8))
    whole = server.say("emil", text).content
    body = {"voice": "emil", "input": text, "response_format": "wav"}
    with httpx.stream("POST", f"{server.url}/v1/audio/speech", json=body, timeout=60) as answer:
        pieces = answer.iter_raw()
        begun = next(pieces)
        second = server.publish("emil", 14)
        wait_for(lambda: version_of(server, "emil") == second.version)
        assert begun + b"".join(pieces) == whole


def test_what_is_not_what_was_published_is_not_used(server):
    first = server.publish("fritz", 15)
    wait_for(lambda: version_of(server, "fritz") == first.version)
    release = server.publish("fritz", 16, channel="candidate")
    weights = next((server.root / "registry/fritz/releases" / release.version).rglob("adapter_model.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(bytes(content))
    answer = server.say(f"fritz@{release.version}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "voice_not_trusted")
    assert version_of(server, "fritz") == first.version
    assert "fritz" in server.get("/readyz").json()["refused"]


def test_without_its_registry_a_server_goes_on_and_says_so(server):
    expected = server.say("ana").content
    here, there = server.root / "registry", server.root / "registry-away"
    here.rename(there)
    try:
        ready = wait_for(lambda: (found := server.get("/readyz").json())["registry"] == "unreachable" and found)
        assert ready["ready"] is True
        assert "voxline_registry_reachable 0.0" in server.get("/metrics").text
        assert server.say("ana").content == expected
        assert server.say("ben").status_code == 200
    finally:
        there.rename(here)
    wait_for(lambda: server.get("/readyz").json()["registry"] == "ok")


# -- the catalog by itself, where a test needs another clock or a slow registry ------------------------------------------


@pytest.fixture(scope="module")
def registry(
    tmp_path_factory: pytest.TempPathFactory, write_tiny_base: Callable[[Path], Path], repository: Path
) -> Registry:
    root = prepared_root(tmp_path_factory.mktemp("catalog"), write_tiny_base)
    made = open_registry("file:registry", root=root)
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    consent = Consent(speaker="synthetic", granted_on="2026-01-09", expires_on=tomorrow)
    publish_voice(made, root, repository, "ana", 1, consent=consent)
    return made


def asked(catalog: Catalog, voice: str, times: int = 1) -> Any:
    """What a catalog answers, on an event loop of its own; the error's code where it refuses."""

    async def ask() -> Any:
        try:
            found = [await catalog.find(voice) for _ in range(times)]
            return found[-1][0].version
        except Refused as refused:
            return refused.code
        finally:
            await catalog.stop()

    return asyncio.run(ask())


def test_consent_ends_at_its_very_second(registry, tmp_path):
    release = registry.resolve("ana")
    end = datetime.combine(release.consent.expires_on, datetime.min.time(), UTC)
    before, after = (lambda: end - timedelta(seconds=1)), (lambda: end)
    assert asked(Catalog(registry, tmp_path, clock=before), "ana") == release.version
    assert asked(Catalog(registry, tmp_path, clock=after), "ana") == "consent_expired"
    assert asked(Catalog(registry, tmp_path, clock=after), f"ana@{release.version}") == "consent_expired"


class SlowRegistry(Registry):
    """The same registry over a line that fails or takes its time."""

    delay_s = 0.0
    fails = False

    def pointer(self, voice: str, channel: Any) -> Any:
        time.sleep(self.delay_s)
        if self.fails:
            raise TransientError("no route to the registry")
        return super().pointer(voice, channel)


def test_a_request_does_not_wait_long_for_a_slow_registry(registry, tmp_path):
    slow = SlowRegistry(registry.backend, registry.url, registry.trust, registry.place)
    catalog = Catalog(slow, tmp_path, poll_s=0.05)

    async def ask() -> tuple[str, float, bool]:
        version = (await catalog.find("ana"))[0].version
        object.__setattr__(slow, "delay_s", 5.0)
        await asyncio.sleep(1.1)  # what is known is old by then
        clock = time.monotonic()
        assert (await catalog.find("ana"))[0].version == version
        waited = time.monotonic() - clock
        return version, waited, catalog.health.is_reachable

    version, waited, is_reachable = asyncio.run(ask())
    assert version == registry.resolve("ana").version
    assert waited < 4.0  # not the registry's five
    assert not is_reachable


def test_a_registry_that_fails_from_the_start_is_told_as_temporary(registry, tmp_path):
    failing = SlowRegistry(registry.backend, registry.url, registry.trust, registry.place)
    object.__setattr__(failing, "fails", True)
    catalog = Catalog(failing, tmp_path)
    assert asked(catalog, "ana") == "registry_unreachable"


def test_a_registry_elsewhere_is_asked_for_what_has_changed_alone(registry, tmp_path, repository):
    """In Git one request tells the state of all voices; a voice is read again when it has another."""
    remote = tmp_path / "registry.git"
    subprocess.run(["git", "init", "-q", "--bare", remote], check=True)
    there = open_registry(f"git:{remote}", root=tmp_path, cache=tmp_path / "cache")
    root = Path(registry.place.removeprefix("file:")).parent
    first = publish_voice(there, root, repository, "ana", 1)
    reading = CountingRegistry(there.backend, there.url, there.trust, there.place)
    catalog = Catalog(reading, tmp_path / "copies", poll_s=0.05)

    async def ask() -> None:
        assert (await catalog.find("ana"))[0].version == first.version
        read = reading.read
        for _ in range(3):
            await asyncio.sleep(1.1)
            assert (await catalog.find("ana"))[0].version == first.version
        assert reading.read == read
        second = await asyncio.to_thread(publish_voice, there, root, repository, "ana", 2)
        await asyncio.sleep(1.1)
        assert (await catalog.find("ana"))[0].version == second.version
        await asyncio.to_thread(there.retire, "ana", MOVER)
        await asyncio.sleep(1.1)
        with pytest.raises(Refused) as refused:
            await catalog.find("ana")
        assert refused.value.code == "voice_retired"
        remote.rename(tmp_path / "away.git")
        await asyncio.sleep(1.1)
        with pytest.raises(Refused) as refused:
            await catalog.find("ana")
        assert refused.value.code == "voice_retired"
        assert not catalog.health.is_reachable
        await catalog.stop()

    asyncio.run(ask())


class CountingRegistry(Registry):
    """The same registry; counts how often a voice is read."""

    read = 0

    def pointer(self, voice: str, channel: Any) -> Any:
        object.__setattr__(self, "read", self.read + 1)
        return super().pointer(voice, channel)


def test_a_copy_that_was_changed_is_made_anew(registry, tmp_path):
    """The copies lie in a cache; before a server uses them again it compares them with the manifest."""
    assert asked(Catalog(registry, tmp_path), "ana") == registry.resolve("ana").version
    (copy,) = tmp_path.iterdir()
    record = copy / "reference" / "reference.json"
    good = record.read_bytes()
    record.write_text(json.dumps({"clip": "somebody else"}))
    assert asked(Catalog(registry, tmp_path), "ana") == registry.resolve("ana").version
    assert record.read_bytes() == good


def test_a_request_that_nobody_answers_ends_at_its_deadline(registry, tmp_path):
    """Here because there is no worker that ever gets ready."""
    numbers = {"device": "cpu", "threads": 1, "renderers": 1, "rows": 2, "adapter_bytes": 1}
    worker = Worker(WorkerSettings(cache="", bases="", replaced_bases=(), **numbers))
    doors = Doors(tmp_path / "keys.json", may_be_open=True)
    server = Server(Catalog(registry, tmp_path), worker, ServeSettings(deadline_s=1), doors, version="1")

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(build_app(server))
        async with httpx.AsyncClient(transport=transport, base_url="http://server", timeout=60) as client:
            answered = await client.post("/v1/audio/speech", json={"voice": "ana", "input": "Hello."})
            server.is_draining = True
            refused = await client.post("/v1/audio/speech", json={"voice": "ana", "input": "Hello."})
            ready = await client.get("/readyz")
        await server.catalog.stop()
        return [answered, refused, ready]

    late, draining, ready = asyncio.run(ask())
    assert (late.status_code, late.json()["error"]["code"]) == (503, "deadline")
    assert int(late.headers["retry-after"]) >= 1
    assert (draining.status_code, draining.json()["error"]["code"]) == (503, "draining")
    assert ready.status_code == 503
    assert server.under_way == 0
