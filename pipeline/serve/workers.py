"""The server's side of its worker: started, asked, started again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from pipeline.io.processes import child_environment
from pipeline.records.serving import Asked, Failure, SaidSentence, ServedVoice, WorkerSettings, WorkerState
from pipeline.serve.wire import SIZES_BYTES, check_sizes, pack

RESTART_S = (0.0, 0.5, 1.0, 2.0, 5.0)  # before another start, after so many that did not get ready
STOP_S = 5.0
COMPUTING = (
    "OMP_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "CUDA_",
    "NVIDIA_",
    "PYTHON",
    "TORCH",
    "ATEN_",
    "ONEDNN_",
    "DNNL_",
    "XDG_",
)


class SayingFailed(Exception):
    """A request that the worker could not answer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True)
class Sound:
    """A piece of speech: 16-bit samples, mono, little-endian."""

    samples: bytes
    rate_hz: int


Said = Sound | SaidSentence


@dataclass(eq=False)
class Saying:
    """One request on its way: what comes is read with ``async for``; ``cancel`` when nobody reads on."""

    worker: Worker
    id: int
    events: asyncio.Queue[Said | Failure | None] = field(default_factory=asyncio.Queue)
    is_over: bool = False
    _sentences: int = 0

    async def __aiter__(self) -> AsyncIterator[Said]:
        while (event := await self.events.get()) is not None:
            if isinstance(event, Failure):
                self.is_over = True
                raise SayingFailed(event)
            yield event
            if isinstance(event, SaidSentence):
                self._sentences = event.index + 1
                self.worker.tell({"kind": "heard", "id": self.id, "sentences": self._sentences})
        self.is_over = True

    def cancel(self) -> None:
        """Its rows leave at the next token; nothing where it has ended."""
        if not self.is_over:
            self.is_over = True
            self.worker.forget(self.id)


class Worker:
    """One worker process after another."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.state = WorkerState()
        self.starts = 0
        self.is_ready = asyncio.Event()
        self._numbers = count(1)
        self._sayings: dict[int, Saying] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def under_way(self) -> int:
        return len(self._sayings)

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_alive(), name="worker")

    async def stop(self) -> None:
        """Hang up; the process ends by itself."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def warm(self, voices: tuple[ServedVoice, ...]) -> None:
        """Which voices the next process loads before it is ready."""
        self.settings = self.settings.model_copy(update={"warm": voices})

    def say(self, asked: dict[str, Any]) -> Saying:
        """Ask the present process. ``is_ready`` has to be set."""
        saying = Saying(self, next(self._numbers))
        self._sayings[saying.id] = saying
        self.tell({"kind": "ask", "asked": Asked(id=saying.id, **asked).model_dump(mode="json")})
        return saying

    def tell(self, header: dict[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(pack(header))

    def forget(self, saying: int) -> None:
        if self._sayings.pop(saying, None) is not None:
            self.tell({"kind": "cancel", "id": saying})

    async def _keep_alive(self) -> None:
        failed = 0
        while True:
            await asyncio.sleep(RESTART_S[min(failed, len(RESTART_S) - 1)])
            try:
                await self._run_one()
            finally:
                failed = 0 if self.is_ready.is_set() else failed + 1
                self._lost()

    async def _run_one(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "pipeline.serve.worker", str(theirs.fileno())]
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *command, pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL, env=_environment()
            )
        self.starts += 1
        reader, self._writer = await asyncio.open_connection(sock=ours)
        try:
            self.tell({"kind": "begin", "settings": self.settings.model_dump(mode="json")})
            while True:
                sizes = check_sizes(await reader.readexactly(SIZES_BYTES))
                header = json.loads(await reader.readexactly(sizes[0]))
                self._heard(header, await reader.readexactly(sizes[1]))
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            return
        finally:
            self._writer.close()
            await self._ended(self._process)

    async def _ended(self, process: asyncio.subprocess.Process) -> None:
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except (TimeoutError, asyncio.CancelledError):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _heard(self, header: dict[str, Any], payload: bytes) -> None:
        kind = header["kind"]
        if kind in ("ready", "state"):
            self.state = WorkerState.model_validate(header["state"])
            self.is_ready.set()
            return
        saying = self._sayings.get(header["id"])
        if saying is None:  # cancelled meanwhile
            return
        if kind == "sound":
            saying.events.put_nowait(Sound(payload, header["rate_hz"]))
        elif kind == "sentence":
            told = {key: value for key, value in header.items() if key not in ("kind", "id")}
            saying.events.put_nowait(SaidSentence.model_validate(told))
        else:
            del self._sayings[saying.id]
            failed = Failure(code=header["code"], message=header["message"]) if kind == "failed" else None
            saying.events.put_nowait(failed)

    def _lost(self) -> None:
        """The process has gone, and with it what it was asked."""
        self.is_ready.clear()
        self.state, sayings = WorkerState(), list(self._sayings.values())
        self._sayings.clear()
        for saying in sayings:
            saying.events.put_nowait(Failure(code="worker_failed", message="the worker ended; ask again"))


def _environment() -> dict[str, str]:
    """What libraries that compute are told by; no secret."""
    computing = tuple(name for name in os.environ if name.startswith(COMPUTING))
    return child_environment(os.environ, also=computing)
