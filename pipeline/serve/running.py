"""The server as a process: listens, says where, drains when it is told to end."""

from __future__ import annotations

import ipaddress
import resource
import signal
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from pipeline.errors import NoAccessError, SettingsError, UsageError
from pipeline.io.api_keys import read_keys
from pipeline.io.registry.registry import Registry
from pipeline.records.serving import WorkerSettings
from pipeline.records.settings import ServeSettings
from pipeline.serve.app import Server, build_app
from pipeline.serve.catalog import Catalog
from pipeline.serve.doors import Doors
from pipeline.serve.workers import Worker

IDLE_S = 10  # a connection without a request is closed
MOST_CONNECTIONS = 4000


@dataclass(frozen=True)
class Tls:
    """Files of a certificate and its key."""

    certificate: Path
    key: Path


class _Uvicorn(uvicorn.Server):
    """Tells when it listens, and the handlers when it ends."""

    def __init__(self, config: Any, serving: Server, listening: Callable[[int], None]) -> None:
        super().__init__(config)
        self.serving, self.listening = serving, listening

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets=sockets)
        if self.started and self.servers:
            self.listening(self.servers[0].sockets[0].getsockname()[1])

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.serving.is_draining = True
        super().handle_exit(sig, frame)


@dataclass(frozen=True)
class Serving:
    """What is served, and how.

    Attributes:
        copies: folder for what is read of releases. ``keys``: file of the API keys.
    """

    registry: Registry
    settings: ServeSettings
    worker: WorkerSettings
    copies: Path
    keys: Path
    version: str
    tls: Tls | None = None


def run(serving: Serving, *, listening: Callable[[int], None], audit: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then let requests under way end.

    Args:
        listening: told the port, once. ``audit``: told a line for each speech.

    Raises:
        UsageError: other machines could speak without a key.
        SettingsError: the address cannot be listened on.
        NoAccessError: a file of the certificate cannot be read.
    """
    settings = serving.settings
    doors = Doors(serving.keys, may_be_open=_is_loopback(settings.host))
    if not doors.may_be_open and not read_keys(serving.keys).keys:
        raise UsageError(
            f"{settings.host}: other machines reach it, and there is no API key", hint="voxline serve keys add"
        )
    catalog = Catalog(serving.registry, serving.copies, poll_s=settings.poll_s)
    answering = Server(catalog, Worker(serving.worker), settings, doors, version=serving.version, audit=audit)
    tls = serving.tls
    for path in (tls.certificate, tls.key) if tls else ():
        if not path.is_file():
            raise UsageError(f"{path}: no such file", hint="--certificate and --certificate-key name PEM files")
    certificate = {} if tls is None else {"ssl_certfile": str(tls.certificate), "ssl_keyfile": str(tls.key)}
    config = uvicorn.Config(
        build_app(answering),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
        limit_concurrency=MOST_CONNECTIONS,
        ws_max_size=64 * 1024,
        **certificate,
    )
    _allow_connections()
    server = _Uvicorn(config, answering, listening)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn sends itself again what it has answered
        signal.signal(number, lambda *_: None)
    try:
        server.run()
    except SystemExit:  # uvicorn has logged why
        raise SettingsError(
            f"{settings.host}:{settings.port} cannot be listened on", hint="--port takes another; 0 a free one"
        ) from None
    except OSError as error:
        what = "the certificate or its key cannot be used" if isinstance(error, ssl.SSLError) else "it cannot start"
        raise NoAccessError(f"{what}: {error}", hint="voxline serve --help") from error


def _allow_connections() -> None:
    """Files that may be open: shells begin with 1024, and each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
