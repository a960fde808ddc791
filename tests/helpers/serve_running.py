"""`voxline serve` as a process of its own, over a registry that a test publishes into and moves."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
from served_voices import publish_voice

from pipeline.io.registry.events import Mover
from pipeline.io.registry.registry import Registry, open_registry
from pipeline.records.release import Release

READY_S, SOON_S = 120.0, 60.0  # generous: machines that run tests are busy
SERVE = """
[serve]
port = 0
poll_s = 0.1
rows = 8
queue = 6
cache_mb = 8
characters = 2000
"""
MOVER = Mover("Ana Perez", "", "", "")


def wait_for(found: Callable[[], Any], *, within_s: float = SOON_S) -> Any:
    """The first answer that is not false."""
    until = time.monotonic() + within_s
    while not (answer := found()):
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.05)
    return answer


@dataclass
class Running:
    """A server as a process of its own."""

    root: Path
    repository: Path
    process: subprocess.Popen[bytes]
    url: str

    @property
    def registry(self) -> Registry:
        return open_registry("file:registry", root=self.root)

    @property
    def log(self) -> str:
        return (self.root / "server.log").read_text()

    def publish(self, voice: str, seed: int, **options: Any) -> Release:
        return publish_voice(self.registry, self.root, self.repository, voice, seed, **options)

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=SOON_S)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=SOON_S)

    def say(self, voice: str = "ana", text: str = "Hello.", **more: Any) -> httpx.Response:
        body = {"voice": voice, "input": text, "response_format": "wav", **more}
        return httpx.post(f"{self.url}/v1/audio/speech", json=body, timeout=SOON_S)


def prepared_root(root: Path, write_tiny_base: Callable[[Path], Path]) -> Path:
    """A repository with base `tiny` and settings for a server."""
    write_tiny_base(root)
    with (root / "pipeline.toml").open("a") as settings:
        settings.write(SERVE)
    return root


@contextlib.contextmanager
def running(root: Path, repository: Path, *options: str) -> Iterator[Running]:
    """`voxline serve` in a repository, until the block ends."""
    environment = {**os.environ, "VOXLINE_CACHE": str(root / "cache")}
    with (root / "server.log").open("wb") as log:
        command = [sys.executable, "-m", "pipeline.cli.main", "serve", *options]
        process = subprocess.Popen(command, cwd=root, env=environment, stderr=log, stdout=log)
    try:
        log_file = root / "server.log"
        told = wait_for(lambda: re.search(r"https?://\S+", log_file.read_text()) or process.poll(), within_s=READY_S)
        assert not isinstance(told, int), log_file.read_text()
        yield Running(root, repository, process, told[0])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(READY_S)
