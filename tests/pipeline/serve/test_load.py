"""More than it can do, a worker that dies, and the end."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from serve_running import READY_S, prepared_root, running, wait_for
from served_voices import publish_voice

from pipeline.io.registry.registry import open_registry

pytestmark = pytest.mark.slow
LONG = " ".join(f"This is sentence number {number} of a text that takes its time." for number in range(24))


def worker_of(server) -> int:
    """The process that computes."""
    found = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=False)
    return int(found.stdout.split()[0])


def starts_of(server) -> float:
    """How many workers were started so far."""
    return float(re.search(r"^voxline_worker_starts (\S+)", server.get("/metrics").text, re.M)[1])


def begun(server, **more) -> httpx.Response:
    """A long answer whose first sound is there, not read any further."""
    client = httpx.Client(timeout=60)
    body = {"voice": "ana", "input": LONG, "response_format": "pcm", **more}
    answer = client.send(client.build_request("POST", f"{server.url}/v1/audio/speech", json=body), stream=True)
    assert answer.status_code == 200
    return answer


def test_one_more_than_the_queue_holds_is_asked_to_come_back(server):
    held = [begun(server) for _ in range(6)]
    try:
        answer = server.say()
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) >= 1
    finally:
        for one in held:
            one.close()
    wait_for(lambda: server.say().status_code == 200)


def test_a_reader_that_stops_keeps_nobody_from_speaking(server):
    """What is made ahead of a reader is bounded, and so is what it holds of the batch."""
    held = begun(server)
    try:
        assert all(server.say("ben").status_code == 200 for _ in range(2))
    finally:
        held.close()


def test_a_worker_that_dies_takes_its_own_requests_with_it_and_comes_back(server):
    expected, held = server.say().content, begun(server)
    starts = starts_of(server)
    os.kill(worker_of(server), signal.SIGKILL)
    with pytest.raises(httpx.RemoteProtocolError):
        held.read()
    held.close()
    assert server.get("/healthz").status_code == 200
    wait_for(lambda: server.get("/readyz").status_code == 200, within_s=READY_S)
    assert server.say().content == expected
    assert starts_of(server) == starts + 1


def test_a_server_that_is_told_to_end_lets_requests_under_way_end(write_tiny_base, repository, tmp_path: Path):
    root = prepared_root(tmp_path, write_tiny_base)
    publish_voice(open_registry("file:registry", root=root), root, repository, "ana", 1)
    with running(root, repository) as server:
        wait_for(lambda: server.get("/readyz").status_code == 200, within_s=READY_S)
        whole = server.say(text=LONG, response_format="pcm").content
        held = begun(server)
        rest: list[bytes] = []
        reading = threading.Thread(target=lambda: rest.append(held.read()))
        server.process.send_signal(signal.SIGTERM)
        reading.start()
        wait_for(lambda: not listens(server))
        reading.join(60)
        assert rest == [whole]
        assert server.process.wait(READY_S) == 0
        assert "Traceback" not in server.log


def listens(server) -> bool:
    try:
        return server.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_many_at_once_are_answered_or_asked_to_come_back(server):
    with ThreadPoolExecutor(24) as threads:
        found = list(threads.map(lambda number: server.say(("ana", "ben")[number % 2]), range(24)))
    assert {answer.status_code for answer in found} <= {200, 429}
    assert sum(answer.status_code == 200 for answer in found) >= 6
    answers = {answer.headers["x-voxline-voice"]: answer.content for answer in found if answer.status_code == 200}
    assert all(
        answers[answer.headers["x-voxline-voice"]] == answer.content for answer in found if answer.status_code == 200
    )


def test_two_thousand_idle_connections_keep_nobody_out(server):
    """More than the 1024 files that a shell allows a process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 8000:
        pytest.skip("this machine allows fewer files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (8000, hard))
    place = urlsplit(server.url)
    held = [socket.create_connection((place.hostname, place.port), timeout=60) for _ in range(2000)]
    try:
        assert server.say().status_code == 200
    finally:
        for connection in held:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
