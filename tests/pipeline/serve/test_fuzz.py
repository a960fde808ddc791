"""Whatever is sent, the answer is speech or an error in OpenAI's shape, never a fault of the server."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serve_running import wait_for

pytestmark = pytest.mark.slow
FIELDS = ("voice", "input", "model", "response_format", "speed", "seed", "language", "stream_format", "instructions")
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=40),
    st.lists(st.text(max_size=3), max_size=3),
    st.dictionaries(st.sampled_from(("id", "x")), st.text(max_size=8), max_size=2),
    st.sampled_from(("ana", "ana@production", "ana@" + "0" * 12, "mp3", "sse", "en", "tts-1", "../x", "\x00", "ﷺ")),
)
BODIES = st.dictionaries(st.one_of(st.sampled_from(FIELDS), st.text(max_size=5)), VALUES, max_size=6)
PATHS = ("/v1/audio/speech", "/v1/audio/speech/timestamps")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES, path=st.sampled_from(PATHS), told=st.booleans())
def test_no_body_makes_the_server_fail(server, body, path, told):
    content = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if told else {}
    answer = httpx.post(f"{server.url}{path}", content=content, headers=headers, timeout=60)
    assert answer.status_code == 200 or 400 <= answer.status_code < 500, (body, answer.text)
    if answer.status_code != 200:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=30), route=st.sampled_from(("voices", "models")))
def test_no_name_in_a_path_makes_the_server_fail(server, name, route):
    url = httpx.URL(server.url).copy_with(raw_path=f"/v1/{route}/".encode() + _quoted(name))
    answer = httpx.get(url, timeout=60)
    assert 200 <= answer.status_code < 500, (name, answer.text)


def _quoted(name: str) -> bytes:
    return "".join(f"%{byte:02X}" for byte in name.encode("utf-8", "surrogatepass")).encode()


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n{",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 100_000,
    ],
    ids=["half a body", "half a chunk", "TLS to a plain port", "endless headers"],
)
def test_connections_that_are_left_half_way_cost_nothing(server, sent):
    place = urlsplit(server.url)
    held = []
    for _ in range(50):
        connection = socket.create_connection((place.hostname, place.port), timeout=60)
        held.append(connection)
        try:
            connection.sendall(sent)
        except OSError:
            continue
    assert server.say().status_code == 200
    for connection in held:
        connection.close()
    wait_for(lambda: server.say("ben").status_code == 200)


def test_a_body_that_never_ends_is_cut_off(server):
    def endless():
        for _ in range(1000):
            yield b" " * 65536

    try:
        answer = httpx.post(f"{server.url}/v1/audio/speech", content=endless(), timeout=60)
        assert answer.status_code in (400, 413)
    except httpx.TransportError:
        pass  # the server closed the connection, which is an answer, too
    assert server.get("/healthz").status_code == 200
