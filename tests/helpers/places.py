"""Registries on another machine: each a server on this one, behind a proxy that misbehaves as a test wants."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request as WebRequest
from urllib.request import urlopen

import pytest
from faulty_proxy import Faults, Request, faulty_proxy
from git_server import git_server
from hub_server import WRITE, hub_server

from pipeline.io.registry.registry import Registry, open_registry
from pipeline.io.registry.trust import Trust


@dataclass
class Elsewhere:
    """One registry.

    Attributes:
        kind: what stands before the colon of its URL.
        is_file: whether a request asks for a release's file. ``is_write``: whether it changes what is there.
        changes: how many requests a publishing, a rollback and a list may take, without files.
    """

    kind: str
    url: str
    faults: Faults
    home: Path
    is_file: Callable[[Request], bool]
    is_write: Callable[[Request], bool]
    most: dict[str, int]
    server: Any = None
    opened: int = field(default=0)

    def open(self, *, trust: Trust | None = None, cache: str = "") -> Registry:
        """As a machine that has nothing yet, or shares the cache of one that was named so."""
        self.opened += 1
        return open_registry(self.url, trust=trust, cache=self.home / (cache or f"cache-{self.opened}"))


@contextmanager
def git_place(folder: Path) -> Iterator[Elsewhere]:
    bare = folder / "served" / "voices.git"
    subprocess.run(["git", "init", "-q", "--bare", bare], check=True)
    with git_server(folder / "served") as (_, port), faulty_proxy("127.0.0.1", port) as faults:
        yield Elsewhere(
            "git",
            f"git:{faults.url}/voices.git",
            faults,
            folder,
            lambda request: b"/releases/" in request.body and b"want-ref" in request.body,
            lambda request: request.path.endswith("git-receive-pack"),
            # Git asks for the refs before it does anything: 3 requests to fetch, 2 to push, 2 to list.
            {"publish": 3 + 2 + 3 + 2, "rollback": 3 + 2, "list": 2 + 3},
        )


@contextmanager
def git_folder_place(folder: Path) -> Iterator[Elsewhere]:
    """Without a server in between, for what needs no faults: each request of a server is half a second of a core."""
    bare = folder / "voices.git"
    subprocess.run(["git", "init", "-q", "--bare", bare], check=True)
    yield Elsewhere("git", f"git:{bare}", Faults(), folder, lambda request: False, lambda request: False, {})


@contextmanager
def bucket_place(folder: Path) -> Iterator[Elsewhere]:
    server = pytest.importorskip("moto.server", reason="needs moto, of the extra dev")
    pytest.importorskip("obstore", reason="needs the extra s3")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    _, port = moto.get_host_and_port()
    told = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_REGION": "us-east-1"}
    with faulty_proxy("127.0.0.1", port) as faults, pytest.MonkeyPatch.context() as patch:
        for name, value in {**told, "AWS_ENDPOINT_URL": faults.url}.items():
            patch.setenv(name, value)
        urlopen(WebRequest(f"{faults.url}/voices", method="PUT")).close()
        yield Elsewhere(
            "s3",
            "s3://voices/of/us",
            faults,
            folder,
            lambda request: request.method == "GET" and "/releases/" in request.path,
            lambda request: request.method in ("PUT", "POST"),
            {"publish": 4, "rollback": 2, "list": 2},
        )
    moto.stop()


class Hasty:
    """The module ``time`` for one that need not wait."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        pass


@contextmanager
def folder_place(folder: Path) -> Iterator[Elsewhere]:
    yield Elsewhere(
        "file", f"file:{folder}/registry", Faults(), folder, lambda request: False, lambda request: False, {}
    )


@contextmanager
def hub_place(folder: Path) -> Iterator[Elsewhere]:
    pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    import huggingface_hub.constants
    import huggingface_hub.utils._http as client

    with (
        hub_server() as (hub, _, port),
        faulty_proxy("127.0.0.1", port) as faults,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("HF_ENDPOINT", faults.url)
        patch.setenv("HF_TOKEN", WRITE)
        patch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(client, "time", Hasty())
        yield Elsewhere(
            "hf",
            "hf://us",
            faults,
            folder,
            lambda request: request.method == "GET" and "/releases/" in request.path,
            lambda request: request.method in ("PUT", "POST"),
            # The client asks how to upload before it commits; each commit of a release has its card checked, a tag,
            # and its channel's branch.
            {"publish": 10 + 3, "rollback": 5, "list": 2},
            hub,
        )


FAULTY = {"git": git_place, "s3": bucket_place, "hf": hub_place}
PLACES = {"file": folder_place, **FAULTY, "git": git_folder_place}
