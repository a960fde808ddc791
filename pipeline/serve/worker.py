"""The process that computes: `python -m pipeline.serve.worker FD`, a socket to the server as its only way out.

It reads no registry, opens no port and believes the folders it is named. It ends with the server: at the end of the
socket, or, when a thread of its own fails, at once, so that the server starts another.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any

from pipeline.records.serving import Asked, WorkerSettings
from pipeline.serve.wire import SIZES_BYTES, Message, pack, unpack

STATE_EVERY_S = 1.0
FAILED = 70


class Line:
    """The socket, whole messages at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb")
        self._lock = threading.Lock()

    def read(self) -> Message | None:
        """The next message; None at the end."""
        sizes = self._stream.read(SIZES_BYTES)
        return unpack(sizes, self._stream.read) if len(sizes) == SIZES_BYTES else None

    def tell(self, header: dict[str, Any], payload: bytes = b"") -> None:
        message = pack(header, payload)
        with self._lock:
            self._connection.sendall(message)


def serve(line: Line) -> None:
    """Answer until the socket ends."""
    begun = line.read()
    if begun is None:
        return
    settings = WorkerSettings.model_validate(begun[0]["settings"])
    from models.machine.switches import switch_off

    switch_off(settings.switched_off, os.environ)
    from pipeline.serve.engine import Engine  # torch, which is told before how to compute

    def emit(request: int, kind: str, details: dict[str, Any], sound: bytes) -> None:
        line.tell({"kind": kind, "id": request, **details}, sound)

    engine = Engine(settings, emit)
    engine.start()
    line.tell({"kind": "ready", "state": engine.state().model_dump(mode="json")})
    threading.Thread(target=_tell_state, args=(engine, line), daemon=True).start()
    while (message := line.read()) is not None:
        told = message[0]
        if told["kind"] == "ask":
            engine.ask(Asked.model_validate(told["asked"]))
        elif told["kind"] == "cancel":
            engine.cancel(told["id"])
        elif told["kind"] == "heard":
            engine.heard(told["id"], told["sentences"])


def _tell_state(engine: Any, line: Line) -> None:
    while True:
        time.sleep(STATE_EVERY_S)
        line.tell({"kind": "state", "state": engine.state().model_dump(mode="json")})


def _end(told: Any) -> None:
    """A thread failed: whatever it held is lost, and the server begins anew."""
    if not issubclass(told.exc_type, OSError):  # not merely a server that has gone
        traceback.print_exception(told.exc_type, told.exc_value, told.exc_traceback)
    sys.stderr.flush()
    os._exit(FAILED)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the server, which drains and then hangs up
        signal.signal(number, signal.SIG_IGN)
    threading.excepthook = _end
    serve(Line(socket.socket(fileno=int(sys.argv[1]))))
    os._exit(0)  # threads of torch and ONNX Runtime need not be waited for


if __name__ == "__main__":
    main()
