"""One server for the whole session, over a registry of small voices that tests publish into and move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serve_running import READY_S, Running, prepared_root, running, wait_for
from served_voices import publish_voice

from pipeline.io.registry.registry import open_registry


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, write_tiny_base: Callable[[Path], Path], repository: Path
) -> Iterator[Running]:
    """Voices ana and ben, ready to speak."""
    root = prepared_root(tmp_path_factory.mktemp("serve"), write_tiny_base)
    registry = open_registry("file:registry", root=root)
    publish_voice(registry, root, repository, "ana", 1)
    publish_voice(registry, root, repository, "ben", 2)
    with running(root, repository) as found:
        wait_for(lambda: found.get("/readyz").status_code == 200, within_s=READY_S)
        yield found
    assert "Traceback" not in found.log
