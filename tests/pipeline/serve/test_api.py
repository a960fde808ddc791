"""The HTTP API as users meet it: OpenAI's own client, and curl."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import av
import httpx
import numpy as np
import openai
import pytest
import soundfile
from serve_running import wait_for

from pipeline.records.voice import Consent

pytestmark = pytest.mark.slow
TEXT = "One. Two follows one, as always."


def decoded(data: bytes) -> tuple[str, int, float, dict[str, str]]:
    """Codec, rate, seconds and tags of a file."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.audio[0]
        samples = sum(frame.samples for frame in container.decode(stream))
        tags = {**container.metadata, **stream.metadata}
        return stream.codec_context.name, stream.rate, samples / stream.rate, tags


@pytest.mark.parametrize(
    ("name", "codec", "rate_hz"),
    [("mp3", "mp3float", 16000), ("opus", "opus", 48000), ("aac", "aac", 16000), ("flac", "flac", 16000)],
)
def test_openais_client_gets_the_format_it_asks_for(server, name, codec, rate_hz):
    answer = server.client().audio.speech.create(model="tts-1", voice="ana", input=TEXT, response_format=name)
    found, rate, seconds, tags = decoded(answer.content)
    assert (found, rate) == (codec, rate_hz)
    whole = decoded(server.say(text=TEXT).content)[2]
    assert seconds == pytest.approx(whole, abs=0.15)
    if name != "aac":  # which has no place for tags
        assert tags["copyright"] == "Generated speech, ana"
        assert f"ana@{answer.response.headers['x-voxline-version']}" in tags["comment"]


def test_pcm_is_what_openais_clients_take_it_for(server):
    answer = server.client().audio.speech.create(model="tts-1", voice="ana", input=TEXT, response_format="pcm")
    samples, rate_hz = soundfile.read(io.BytesIO(server.say(text=TEXT).content))
    assert len(answer.content) / 2 / 24000 == pytest.approx(len(samples) / rate_hz, abs=0.01)


def test_an_answer_says_where_it_comes_from(server):
    answer, release = server.say(), server.registry.resolve("ana")
    assert answer.headers["x-voxline-voice"] == "ana"
    assert answer.headers["x-voxline-version"] == release.version
    assert answer.headers["x-voxline-synthetic"] == "true"


def test_the_same_request_gives_the_same_bytes_and_another_seed_others(server):
    first = server.say(text=TEXT, seed=3).content
    assert server.say(text=TEXT, seed=3).content == first
    assert server.say(text=TEXT, seed=4).content != first


def test_a_server_speaks_as_voxline_say_does(server, voxline, tmp_path, monkeypatch):
    """There the adapters are merged into weights of their own; here they are plugged into weights that all share."""
    monkeypatch.chdir(server.root)
    for voice in ("ana", "ben"):
        target = tmp_path / f"{voice}.wav"
        assert voxline("say", voice, TEXT, "--seed", "3", "-o", str(target)).code == 0
        merged, rate_hz = soundfile.read(target)
        served, served_rate_hz = soundfile.read(io.BytesIO(server.say(voice, TEXT, seed=3).content))
        assert (rate_hz, merged.shape) == (served_rate_hz, served.shape)
        assert np.abs(served - merged).max() < 1e-3 * np.abs(merged).max()  # -60 dB


def test_events_carry_the_same_file(server):
    with server.client().audio.speech.with_streaming_response.create(
        model="tts-1", voice="ana", input=TEXT, response_format="wav", stream_format="sse"
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert [event["type"] for event in events[:-1]] == ["speech.audio.delta"] * (len(events) - 1)
    assert events[-1]["type"] == "speech.audio.done"
    assert events[-1]["usage"]["input_tokens"] == len(TEXT)
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == server.say(text=TEXT).content


def test_the_sound_of_a_long_text_comes_in_pieces(server):
    text = " ".join(f"This is sentence number {number}." for number in ("one", "two", "three", "four"))
    with server.client().audio.speech.with_streaming_response.create(
        model="tts-1", voice="ana", input=text, response_format="pcm"
    ) as answer:
        pieces = list(answer.iter_bytes())
    assert len(pieces) > 2


def test_faster_speech_is_shorter(server):
    slow, fast = (soundfile.info(io.BytesIO(server.say(text=TEXT, speed=speed).content)).duration for speed in (0.5, 2))
    assert slow > 2.5 * fast


def test_curl_needs_nothing_but_the_address(server, tmp_path):
    target = tmp_path / "hello.mp3"
    body = json.dumps({"voice": "ana", "input": "Hello."})
    url = f"{server.url}/v1/audio/speech"
    subprocess.run(["curl", "-sSf", url, "--json", body, "-o", target], check=True)
    assert decoded(target.read_bytes())[0] == "mp3float"


def test_models_and_voices_are_listed(server):
    models = [model.id for model in server.client().models.list()]
    assert models[:2] == ["production", "candidate"]
    assert "tiny" in models
    assert server.client().models.retrieve("tiny").owned_by == "voxline"
    voices = {voice["id"]: voice for voice in server.get("/v1/audio/voices").json()["data"]}
    assert voices["ana"]["version"] == server.registry.resolve("ana").version


def test_a_passport_tells_licence_consent_and_versions_and_no_name_of_a_person(server):
    passport = server.get("/v1/voices/ana").json()
    assert passport["license"] == "CC0-1.0"
    assert passport["consent"] == {"granted_on": "2026-01-09", "expires_on": None, "scope": ["tests"]}
    assert passport["versions"][0] == passport["version"]
    assert "Ana Perez" not in json.dumps(passport)


def test_health_metrics_and_the_description_are_there(server):
    server.say()
    assert server.get("/healthz").text == "ok\n"
    metrics = server.get("/metrics").text
    assert 'voxline_requests_total{route="/v1/audio/speech",status="200"}' in metrics
    assert "voxline_registry_reachable 1.0" in metrics
    assert "/v1/audio/speech" in server.get("/openapi.json").json()["paths"]
    assert server.get("/docs").status_code == 200


def test_every_speech_leaves_a_line_that_does_not_say_what_it_was(server):
    text = "Nobody is to read this canary anywhere."
    digest = hashlib.sha256(text.encode()).hexdigest()
    duration = soundfile.info(io.BytesIO(server.say(text=text).content)).duration
    line = wait_for(lambda: next((one for one in server.log.splitlines() if digest in one), None))
    told = json.loads(line)
    assert (told["voice"], told["characters"], told["status"], told["key"]) == ("ana", len(text), "ok", None)
    assert told["seconds"] == pytest.approx(duration, abs=0.01)
    assert "canary" not in server.log


def test_ten_words_of_two_voices_at_once_are_those_of_each_alone(server):
    """Canaries: rows of both share one batch, and nothing of one is heard in the other."""
    asked = [("ana", "A secret of hers."), ("ben", "Something else of his."), ("ana", "More of hers, and longer.")]
    alone = [server.say(voice, text).content for voice, text in asked]
    assert len(set(alone)) == len(alone)
    with ThreadPoolExecutor(6) as threads:
        together = list(threads.map(lambda one: server.say(*one).content, asked * 2))
    assert together == alone * 2


WRONG = {
    "no body": ({}, 400, "missing_required_parameter"),
    "empty": ({"voice": "ana", "input": ""}, 400, "empty_input"),
    "blank": ({"voice": "ana", "input": " \n\t"}, 400, "empty_input"),
    "emoji alone": ({"voice": "ana", "input": "🎉🎉"}, 400, "text_refused"),
    "another script": ({"voice": "ana", "input": "Привет, как дела?"}, 400, "text_refused"),
    "a language the base does not speak": (
        {"voice": "ana", "input": "Hello.", "language": "ko"},
        400,
        "language_not_spoken",
    ),
    "too long": ({"voice": "ana", "input": "word " * 500}, 400, "string_above_max_length"),
    "unknown field": ({"voice": "ana", "input": "Hi.", "temperature": 1}, 400, "unknown_parameter"),
    "unknown format": ({"voice": "ana", "input": "Hi.", "response_format": "ogg"}, 400, "invalid_value"),
    "too fast": ({"voice": "ana", "input": "Hi.", "speed": 5}, 400, "invalid_value"),
    "instructions": ({"voice": "ana", "input": "Hi.", "instructions": "whisper"}, 400, "invalid_value"),
    "a list of voices": ({"voice": ["ana", "ben"], "input": "Hi."}, 400, "invalid_value"),
    "unknown voice": ({"voice": "anna", "input": "Hi."}, 404, "voice_not_found"),
    "a path for a voice": ({"voice": "../../etc/passwd", "input": "Hi."}, 404, "voice_not_found"),
    "unknown version": ({"voice": "ana@000000000000", "input": "Hi."}, 404, "voice_not_found"),
    "empty channel": ({"voice": "ana@candidate", "input": "Hi."}, 404, "voice_not_found"),
    "unknown model": ({"voice": "ana", "input": "Hi.", "model": "whisper-1"}, 404, "model_not_found"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_said_is_refused_in_openais_shape(server, name):
    body, status, code = WRONG[name]
    answer = httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=60)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]


RAW = {
    "not JSON": b"{",
    "not UTF-8": b'{"voice": "ana", "input": "\xff\xfe"}',
    "NaN": b'{"voice": "ana", "input": "Hi.", "speed": NaN}',
    "half a surrogate": b'{"voice": "ana", "input": "\\ud800"}',
    "deep": b'{"voice": ' * 2000,
    "an array": b"[]",
    "nothing": b"",
}


@pytest.mark.parametrize("name", RAW)
def test_bytes_that_are_no_request_are_refused(server, name):
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{server.url}/v1/audio/speech", content=RAW[name], headers=headers, timeout=60)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["error"]["message"]


def test_a_megabyte_is_refused_before_it_is_read(server):
    body = json.dumps({"voice": "ana", "input": "a" * (1 << 20)}).encode()
    answer = httpx.post(f"{server.url}/v1/audio/speech", content=body, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_a_wrong_name_is_told_with_the_near_ones(server):
    with pytest.raises(openai.NotFoundError, match="did you mean ana"):
        server.client().audio.speech.create(model="tts-1", voice="anna", input="Hi.")


def test_routes_and_methods_that_are_not_there_are_told_in_the_same_shape(server):
    assert server.get("/v1/audio/nothing").json()["error"]["code"] == "not_found"
    answer = server.get("/v1/audio/speech")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")


def test_a_client_that_leaves_frees_its_place(server):
    """The queue holds six: nine that leave early must not fill it."""
    long = " ".join(f"This is sentence number {number} of a long text." for number in range(20))
    for _ in range(9):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/audio/speech", json={"voice": "ana", "input": long}, timeout=0.05)
    assert server.say().status_code == 200


def test_what_was_said_before_is_known_unless_the_consent_has_a_scope(server):
    """ana's consent has one; ivan's has none."""
    release = server.publish("ivan", 30, consent=Consent(speaker="synthetic", granted_on="2026-01-09"))
    wait_for(lambda: server.say("ivan").headers.get("x-voxline-version") == release.version)
    seconds = "voxline_first_sound_seconds_count "

    def made() -> str:
        return server.get("/metrics").text.partition(seconds)[2].split()[0]

    first, counted = server.say("ivan", TEXT), made()
    again = server.say("ivan", TEXT)
    assert again.content == first.content
    assert again.headers["x-voxline-sample-rate"] == first.headers["x-voxline-sample-rate"]
    assert made() == counted
    assert server.say("ivan", TEXT, seed=5).content != first.content
    counted = made()
    server.say("ana", TEXT)
    assert made() != counted
