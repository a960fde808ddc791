"""API keys: who may speak with which voice, for what, and how often."""

from __future__ import annotations

import asyncio
import json
from datetime import date, datetime

import httpx
import pytest

from pipeline.io.api_keys import add_key, read_keys, remove_key
from pipeline.io.registry.registry import open_registry
from pipeline.records.api_key import ApiKey
from pipeline.records.serving import WorkerSettings
from pipeline.records.settings import ServeSettings
from pipeline.records.voice import Consent
from pipeline.serve.answers import Refused
from pipeline.serve.app import Server, build_app
from pipeline.serve.catalog import Catalog
from pipeline.serve.doors import Doors, audit_line
from pipeline.serve.workers import Worker


def made(path, **told) -> tuple[ApiKey, str]:
    return add_key(path, lambda identity, digest, now: ApiKey(id=identity, sha256=digest, created_at=now, **told))


def bearing(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def refusal(action, *arguments) -> Refused:
    with pytest.raises(Refused) as caught:
        action(*arguments)
    return caught.value


@pytest.fixture
def path(tmp_path):
    return tmp_path / "config" / "keys.json"


def test_the_file_holds_no_token_and_is_its_owners_alone(path):
    _, token = made(path)
    assert token not in path.read_text()
    assert token.rsplit("-", 1)[-1] not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


def test_a_key_lets_in_and_another_does_not(path):
    key, token = made(path)
    doors = Doors(path, may_be_open=True)
    assert doors.enter(bearing(token)) == key
    for headers in ({}, bearing(token[:-1]), bearing(""), {"authorization": token}, bearing("ü\udcff")):
        assert refusal(doors.enter, headers).code == "invalid_api_key"


def test_without_keys_only_a_server_of_this_machine_is_open(path):
    assert Doors(path, may_be_open=True).enter({}) is None
    assert refusal(Doors(path, may_be_open=False).enter, {}).status == 401


def test_keys_that_come_and_go_count_while_the_server_runs(path):
    now = [0.0]
    doors = Doors(path, may_be_open=True, clock=lambda: now[0])
    assert doors.enter({}) is None
    key, token = made(path)
    now[0] += 1
    assert doors.enter(bearing(token)) == key
    assert refusal(doors.enter, {}).status == 401
    remove_key(path, key.id)
    now[0] += 1
    assert refusal(doors.enter, bearing(token)).status == 401
    path.unlink()
    now[0] += 1
    assert refusal(doors.enter, {}).status == 401  # a file that vanished opens nothing


def test_a_damaged_file_lets_nobody_in(path):
    _, token = made(path)
    path.write_text("{")
    assert refusal(Doors(path, may_be_open=True).enter, bearing(token)).status == 401


def test_a_key_for_one_voice_speaks_with_no_other(path, make_release):
    key, _ = made(path, voices=("ben",))
    doors = Doors(path, may_be_open=True)
    doors.check(key, make_release("ben"))
    assert refusal(doors.check, key, make_release("ana")).code == "voice_not_allowed"


def test_a_consent_for_something_needs_a_key_for_it(path, make_release):
    consent = Consent(speaker="Somebody", granted_on=date(2026, 1, 9), scope=("announcements", "tests"))
    doors, release = Doors(path, may_be_open=True), make_release(consent=consent)
    assert refusal(doors.check, made(path)[0], release).code == "scope_not_allowed"
    assert refusal(doors.check, made(path, uses=("adverts",))[0], release).code == "scope_not_allowed"
    doors.check(made(path, uses=("tests",))[0], release)
    doors.check(made(path, uses=("any",))[0], release)


def test_more_than_so_many_requests_a_minute_wait(path):
    key, now = made(path, per_minute=2)[0], [100.0]
    doors = Doors(path, may_be_open=True, clock=lambda: now[0])
    doors.spend(key, 1)
    now[0] = 130.0
    doors.spend(key, 1)
    refused = refusal(doors.spend, key, 1)
    assert (refused.status, refused.code, refused.retry_after_s) == (429, "rate_limit_exceeded", 30.0)
    now[0] = 160.0
    doors.spend(key, 1)


def test_characters_of_a_day_are_counted_until_midnight(path):
    key, day = made(path, characters_per_day=10)[0], [date(2026, 3, 1)]
    doors = Doors(path, may_be_open=True, today=lambda: day[0])
    doors.spend(key, 8)
    assert refusal(doors.spend, key, 3).code == "insufficient_quota"
    doors.spend(key, 2)
    day[0] = date(2026, 3, 2)
    doors.spend(key, 10)


def test_an_audit_line_says_who_and_how_much_and_not_what(path):
    key, _ = made(path)
    line = audit_line(key, "ana", "0123456789ab", "A secret.", 1.25, "ok")
    told = json.loads(line)
    assert "secret" not in line
    assert (told["key"], told["voice"], told["characters"], told["seconds"]) == (key.id, "ana", 9, 1.25)
    assert len(told["text_sha256"]) == 64
    assert datetime.fromisoformat(told["time"]).tzinfo is not None


def test_every_route_with_a_voice_asks_for_a_key(path, tmp_path):
    """Against the whole application; the worker is not needed for a refusal."""
    made(path)
    registry = open_registry("file:registry", root=tmp_path)
    numbers = {"device": "cpu", "threads": 1, "renderers": 1, "rows": 2, "adapter_bytes": 1}
    worker = Worker(WorkerSettings(cache="", bases="", replaced_bases=(), **numbers))
    server = Server(Catalog(registry, tmp_path), worker, ServeSettings(), Doors(path, may_be_open=True), version="1")

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(build_app(server))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            body = {"voice": "ana", "input": "Hello."}
            posts = [await client.post(f"/v1/audio/speech{path}", json=body) for path in ("", "/timestamps")]
            gets = [await client.get(f"/v1/{path}") for path in ("models", "models/x", "audio/voices", "voices/ana")]
            health = [await client.get("/healthz")]
        await server.catalog.stop()
        return [answer.status_code for answer in (*posts, *gets, *health)]

    assert asyncio.run(ask()) == [401] * 6 + [200]


def test_commands_make_list_and_remove_keys(voxline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOXLINE_SERVE_KEYS", str(tmp_path / "keys.json"))
    told = voxline("serve", "keys", "add", "--voices", "ana,ben", "--per-minute", "60", "--for", "tests")
    assert told.code == 0
    token = told.out.strip()
    (key,) = read_keys(tmp_path / "keys.json").keys
    assert (key.voices, key.per_minute, key.uses) == (("ana", "ben"), 60, ("tests",))
    listed = voxline("serve", "keys", "list")
    assert key.id in listed.out
    assert "60 a minute" in listed.out
    assert token not in listed.out
    assert voxline("serve", "keys", "remove", key.id).code == 0
    assert voxline("serve", "keys", "remove", key.id).code == 2
    assert voxline("serve", "keys", "add", "--voices", "../x").code == 2


def test_a_server_that_others_reach_needs_a_key(voxline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOXLINE_SERVE_KEYS", str(tmp_path / "keys.json"))
    told = voxline("serve", "--host", "0.0.0.0", "--port", "0")
    assert told.code == 2
    assert "voxline serve keys add" in told.err


@pytest.mark.parametrize(
    ("certificate", "key", "code"), [("c.pem", None, 2), ("c.pem", "none.pem", 2), ("c.pem", "c.pem", 3)]
)
def test_a_certificate_that_cannot_be_used_is_told(voxline, tmp_path, monkeypatch, certificate, key, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.pem").write_text("no certificate")
    options = ["--certificate", certificate, *(["--certificate-key", key] if key else [])]
    told = voxline("serve", "--port", "0", *options)
    assert told.code == code, told.err
