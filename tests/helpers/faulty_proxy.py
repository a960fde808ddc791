"""An HTTP proxy in front of a server of the tests, which misbehaves as it is told: it cuts, refuses, lies, and waits."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "proxy-connection"}


@dataclass
class Request:
    """One request as it passed. ``number`` counts from 1 since ``Faults.begin``."""

    number: int
    method: str
    path: str
    body: bytes
    headers: dict[str, str]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


# What happens to a request: None lets it pass, "cut before" and "cut after" close the connection before or after the
# server has done it, "cut inside" sends half of the body; an Answer is given instead of the server's.
Fault = Callable[[Request], "str | Answer | None"]


@dataclass
class Faults:
    """How to misbehave, and what was asked. ``changes`` may alter an answer."""

    fault: Fault = lambda request: None
    changes: Callable[[Request, Answer], Answer] = lambda request, answer: answer
    latency_s: float = 0.0
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, fault: Fault = lambda request: None) -> None:
        """Count from 1 again, and misbehave like this."""
        with self._lock:
            self.requests, self.fault = [], fault
            self.changes = lambda request, answer: answer

    def note(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Request:
        with self._lock:
            self.requests.append(Request(len(self.requests) + 1, method, path, body, headers))
            return self.requests[-1]


def busy(status: int, *, until: int, **headers: str) -> Fault:
    """The first requests are answered with a status."""
    told = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return lambda request: Answer(status, told, b"busy") if request.number <= until else None


def at(number: int, what: str) -> Fault:
    """A fault at one request, counted from 1."""
    return lambda request: what if request.number == number else None


def read_body(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("Expect", "").lower() == "100-continue":
        handler.send_response_only(100)
        handler.end_headers()
    if "chunked" in handler.headers.get("Transfer-Encoding", ""):
        parts = []
        while size := int(handler.rfile.readline().split(b";")[0], 16):
            parts.append(handler.rfile.read(size))
            handler.rfile.readline()
        handler.rfile.readline()
        return b"".join(parts)
    return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))


@contextmanager
def faulty_proxy(host: str, port: int) -> Iterator[Faults]:
    """A proxy before a server on this machine."""
    faults = Faults()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def handle_expect_100(self) -> bool:
            return True  # answered where the body is read

        def pass_on(self) -> None:
            request = faults.note(self.command, self.path, read_body(self), dict(self.headers))
            time.sleep(faults.latency_s)
            what = faults.fault(request)
            if what == "cut before":
                self.close_connection = True
                return
            answer = what if isinstance(what, Answer) else ask(request)
            if what == "cut after":
                self.close_connection = True
                return
            answer = faults.changes(request, answer)
            self.send_response(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            told = next((value for name, value in answer.headers if name.lower() == "x-length"), None)
            self.send_header("Content-Length", told or str(len(answer.body)))
            self.end_headers()
            if request.method == "HEAD":
                return
            if what == "cut inside":
                self.wfile.write(answer.body[: len(answer.body) // 2])
                self.close_connection = True
            elif what == "slow":
                for start in range(0, len(answer.body), max(1, len(answer.body) // 4)):
                    self.wfile.write(answer.body[start : start + max(1, len(answer.body) // 4)])
                    self.wfile.flush()
                    time.sleep(0.02)
            else:
                self.wfile.write(answer.body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = pass_on

    def ask(request: Request) -> Answer:
        connection = http.client.HTTPConnection(host, port, timeout=60)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in (*HOP, "expect")}
        connection.request(request.method, request.path, request.body or None, headers)
        told = connection.getresponse()
        body = told.read()
        kept = [(name, value) for name, value in told.getheaders() if name.lower() not in HOP]
        if request.method == "HEAD":
            kept.append(("X-Length", told.getheader("Content-Length") or "0"))
        connection.close()
        return Answer(told.status, kept, body)

    with served(Handler) as (faults.url, _):
        yield faults


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[tuple[str, int]]:
    """A server on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
