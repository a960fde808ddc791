"""Knows the CI engine only to fold its log; no decision depends on it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

Engine = Literal["gitlab", "github", "jenkins", "none"]


def detect_engine(environment: Mapping[str, str]) -> Engine:
    """Which engine's log this is."""
    if environment.get("GITLAB_CI"):
        return "gitlab"
    if environment.get("GITHUB_ACTIONS"):
        return "github"
    if environment.get("JENKINS_URL"):
        return "jenkins"
    return "none"


@contextmanager
def fold(title: str) -> Iterator[None]:
    """A section of the log that the engine's web page can fold; nothing in a terminal."""
    engine = detect_engine(os.environ)
    section = "".join(letter if letter.isalnum() else "_" for letter in title)
    if engine == "gitlab":
        sys.stderr.write(f"\x1b[0Ksection_start:{int(time.time())}:{section}\r\x1b[0K{title}\n")
    elif engine == "github":
        sys.stderr.write(f"::group::{title}\n")
    try:
        yield
    finally:
        if engine == "gitlab":
            sys.stderr.write(f"\x1b[0Ksection_end:{int(time.time())}:{section}\r\x1b[0K\n")
        elif engine == "github":
            sys.stderr.write("::endgroup::\n")
        sys.stderr.flush()
