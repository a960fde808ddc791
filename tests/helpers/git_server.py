"""Git over HTTP on this machine: git's own http-backend behind a small server."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from faulty_proxy import read_body, served


@contextmanager
def git_server(root: Path, *, login: str = "", may_push: bool = True) -> Iterator[tuple[str, int]]:
    """Serves the bare repositories below a folder. ``login``: ``user:token`` that is asked for."""
    wanted = "Basic " + base64.b64encode(login.encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self) -> None:
            body = read_body(self)
            if login and self.headers.get("Authorization") != wanted:
                self.reply(401, [("WWW-Authenticate", 'Basic realm="tests"')], b"who are you?")
                return
            if not may_push and "git-receive-pack" in self.path:
                self.reply(403, [], b"You are not allowed to push")
                return
            path, _, query = self.path.partition("?")
            environment = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "http.receivepack",
                "GIT_CONFIG_VALUE_0": "true",
                "REMOTE_ADDR": "127.0.0.1",
                "REMOTE_USER": "tests",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            }
            done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=True)
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            headers = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n")]
            status = next((int(value.split()[0]) for name, value in headers if name == "Status"), 200)
            self.reply(status, [one for one in headers if one[0] not in ("Status", "Content-Length")], content)

        def reply(self, status: int, headers: list, body: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

    with served(Handler) as address:
        yield address
