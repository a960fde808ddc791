"""A headless Chromium, driven through its own protocol: no driver to install, no browser to download."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

PATIENCE_S = 60.0


class Page:
    """One tab."""

    def __init__(self, socket: Any) -> None:
        self.socket, self.number = socket, 0
        self.problems: list[str] = []  # what the page complained of, and what it was refused
        self.asked: list[str] = []  # every address it asked for
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self.socket.recv(timeout=PATIENCE_S))
            if told.get("id") == self.number:
                assert "error" not in told, told
                return told["result"]
            self._note(told)

    def _note(self, told: dict[str, Any]) -> None:
        parameters = told.get("params", {})
        if told.get("method") == "Network.requestWillBeSent":
            self.asked.append(parameters["request"]["url"])
        elif told.get("method") == "Network.webSocketCreated":
            self.asked.append(parameters["url"])
        elif told.get("method") == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(parameters["exceptionDetails"])[:500])
        elif told.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.problems.append(parameters["entry"]["text"])

    def run(self, script: str) -> Any:
        """The value of an expression; of a promise, what becomes of it."""
        told = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def wait(self, script: str) -> Any:
        until = time.monotonic() + PATIENCE_S
        while not (found := self.run(script)):
            assert time.monotonic() < until, f"{script} did not come true; {self.problems}"
            time.sleep(0.1)
        return found

    def open(self, url: str, *, width: int = 1000, dark: bool = False) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def press(self, key: str) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            code = {"Tab": 9, "Enter": 13}[key]
            text = {"text": "\r"} if (key, kind) == ("Enter", "rawKeyDown") else {}
            self.call(
                "Input.dispatchKeyEvent", type="keyDown" if text else kind, key=key, windowsVirtualKeyCode=code, **text
            )

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """Debian's Chromium; the test is skipped where it is not installed."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--mute-audio", "--no-first-run"]
    options += ["--autoplay-policy=no-user-gesture-required", "--disable-background-networking", "--disable-sync"]
    options += [f"--user-data-dir={folder}", "--remote-debugging-port=0", "--disable-dev-shm-usage", "about:blank"]
    process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port_file, until = folder / "DevToolsActivePort", time.monotonic() + PATIENCE_S
        while not port_file.exists() or "\n" not in port_file.read_text():
            assert time.monotonic() < until and process.poll() is None, "Chromium does not start"
            time.sleep(0.1)
        port, path = port_file.read_text().split("\n")[:2]
        with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, open_timeout=PATIENCE_S) as control:
            control.send(json.dumps({"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}}))
            target = json.loads(control.recv(timeout=PATIENCE_S))["result"]["targetId"]
            place = f"ws://127.0.0.1:{port}/devtools/page/{target}"
            with connect(place, max_size=None, open_timeout=PATIENCE_S) as socket:
                yield Page(socket)
    finally:
        process.kill()
        process.wait()
