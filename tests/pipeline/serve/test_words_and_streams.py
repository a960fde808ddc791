"""Words with their times, and texts that come in pieces."""

from __future__ import annotations

import base64
import io
import json
import time

import httpx
import pytest
import soundfile
from serve_running import wait_for
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from pipeline.serve.spoken_stream import Phrases

pytestmark = pytest.mark.slow
FIRST, SECOND = "Good morning to everyone over there.", "This is the second sentence of it all."
TEXT = f"{FIRST} {SECOND}"


def test_words_come_with_their_times(server):
    body = {"voice": "ana", "input": TEXT, "response_format": "wav"}
    answer = httpx.post(f"{server.url}/v1/audio/speech/timestamps", json=body, timeout=60)
    told = answer.json()
    assert answer.status_code == 200, told
    assert base64.b64decode(told["audio"]) == server.say(text=TEXT).content
    words = told["words"]
    assert [one["word"] for one in words] == TEXT.split()
    edges = [edge for one in words for edge in (one["start"], one["end"])]
    assert edges == sorted(edges)
    assert edges[0] >= 0
    assert edges[-1] <= told["duration"] + 0.001
    assert edges[-1] > 0.5 * told["duration"]
    assert [one["text"] for one in told["segments"]] == [FIRST, SECOND]


def opened(server, **start):
    socket = connect(server.url.replace("http", "ws") + "/v1/audio/stream", open_timeout=60, close_timeout=60)
    socket.send(json.dumps({"type": "start", "voice": "ana", "response_format": "wav", **start}))
    return socket


def received(socket) -> tuple[bytes, list[dict]]:
    """The file and what was told beside it, to the end."""
    audio, told = b"", []
    try:
        while True:
            message = socket.recv(timeout=60)
            if isinstance(message, bytes):
                audio += message
            else:
                told.append(json.loads(message))
    except ConnectionClosed:
        return audio, told


def test_a_text_in_pieces_is_spoken_as_it_comes(server):
    socket = opened(server)
    for letter in f"{FIRST} This is":
        socket.send(json.dumps({"type": "text", "text": letter}))
    first = socket.recv(timeout=60)  # before the text has ended
    assert isinstance(first, bytes)
    socket.send(json.dumps({"type": "text", "text": " the second sentence of it all."}))
    socket.send(json.dumps({"type": "end"}))
    audio, told = received(socket)
    assert [one["type"] for one in told] == ["sentence", "sentence", "done"]
    assert [one["text"] for one in told[:2]] == [FIRST, SECOND]
    assert [word["word"] for one in told[:2] for word in one["words"]] == TEXT.split()
    samples, rate_hz = soundfile.read(io.BytesIO(first + audio))
    assert len(samples) / rate_hz == pytest.approx(told[-1]["duration_s"], abs=0.01)
    assert told[1]["start"] > told[0]["start"] + told[0]["duration"]


def test_what_has_no_end_is_spoken_when_it_is_flushed(server):
    socket = opened(server)
    socket.send(json.dumps({"type": "text", "text": "No mark here"}))
    socket.send(json.dumps({"type": "flush"}))
    assert isinstance(socket.recv(timeout=60), bytes)
    socket.send(json.dumps({"type": "end"}))
    assert received(socket)[1][-1]["type"] == "done"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "invalid_value"),
        (json.dumps({"type": "start", "voice": "nobody"}), "voice_not_found"),
        (json.dumps({"type": "start", "voice": "ana", "file": "/etc/passwd"}), "unknown_parameter"),
        (json.dumps({"type": "text", "text": "Hello."}), "invalid_value"),
    ],
)
def test_a_wrong_beginning_is_told_and_ends_it(server, message, code):
    socket = connect(server.url.replace("http", "ws") + "/v1/audio/stream", open_timeout=60)
    socket.send(message)
    told = json.loads(socket.recv(timeout=60))
    assert (told["type"], told["error"]["code"]) == ("error", code)
    with pytest.raises(ConnectionClosed):
        socket.recv(timeout=60)


def test_a_stream_that_is_left_gives_back_its_place(server):
    for _ in range(8):  # more than the queue holds
        socket = opened(server)
        socket.send(json.dumps({"type": "text", "text": "A sentence that nobody will hear to its end. And more. "}))
        socket.close()
    wait_for(lambda: server.say().status_code == 200)
    time.sleep(0.1)
    assert wait_for(lambda: "voxline_under_way 0.0" in server.get("/metrics").text)


def test_phrases_end_where_a_reader_ends_them():
    phrases = Phrases()
    assert phrases.add("It costs 3.") == []
    assert phrases.add("14 euros") == []
    assert phrases.add('. "Really?" she') == ["It costs 3.14 euros. ", '"Really?" ']
    assert phrases.add(" asked\n今天好。明天") == ["she asked\n", "今天好。"]
    assert phrases.rest() == ["明天"]
    assert phrases.rest() == []
