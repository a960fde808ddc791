"""Knows the CI engine only to fold its log, to annotate, and to name the run; no decision depends on it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pipeline.io.git import Repository, short_repository_name
from pipeline.plain import one_line, printable

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


@dataclass(frozen=True)
class CiRun:
    """Who started this run and where its log is; empty strings where nobody says.

    Attributes:
        author: who pushed; the person behind the run, not the machine's account.
        pipeline: address of the pipeline.
        repository: ``group/name``.
    """

    author: str
    pipeline: str
    repository: str


def describe_run(environment: Mapping[str, str]) -> CiRun:
    """What the engine's variables tell."""
    told = {
        "gitlab": ("GITLAB_USER_LOGIN", "CI_PIPELINE_URL", "CI_PROJECT_PATH"),
        "github": ("GITHUB_ACTOR", "", "GITHUB_REPOSITORY"),
        "jenkins": ("CHANGE_AUTHOR", "BUILD_URL", ""),
        "none": ("", "", ""),
    }[detect_engine(environment)]
    author, pipeline, repository = (environment.get(variable, "") for variable in told)
    if environment.get("GITHUB_RUN_ID") and not pipeline:
        pipeline = (
            f"{environment.get('GITHUB_SERVER_URL', '')}/{repository}/actions/runs/{environment['GITHUB_RUN_ID']}"
        )
    return CiRun(author, pipeline, repository)


def repository_name(environment: Mapping[str, str], repository: Repository | None) -> str:
    """``group/name``, as the engine or the remote ``origin`` says; empty when neither does."""
    told = describe_run(environment).repository
    origin = repository.config("remote.origin.url") if repository else ""
    return short_repository_name(told or origin)


def actor(environment: Mapping[str, str], repository: Repository | None) -> str:
    """Who moves a channel: the engine's user, else Git's ``user.name``, else the account."""
    told = describe_run(environment).author
    return told or (repository.config("user.name") if repository else "") or environment.get("USER", "") or "unknown"


def annotation(title: str, message: str, environment: Mapping[str, str]) -> str:
    """The line that makes the engine show an error beside the change; empty where it has none."""
    if detect_engine(environment) != "github":
        return ""
    escaped = printable(message).replace("%", "%25").replace("\n", "%0A")
    return f"::error title=voxline {title}::{escaped}\n"


# Engine -> the folder that its jobs run in, and the address below which it shows what they keep.
_KEPT_AT = {
    "gitlab": ("CI_PROJECT_DIR", "CI_JOB_URL", "/artifacts/file/"),
    "jenkins": ("WORKSPACE", "BUILD_URL", "/artifact/"),
}


def address_of(page: Path | str, environment: Mapping[str, str]) -> str:
    """Where a person opens a page that this job keeps: at the engine's address, or its path where no engine has one.

    GitHub packs what a job keeps, so there it is the run's list of packages.
    """
    engine = detect_engine(environment)
    if engine == "github" and describe_run(environment).pipeline:
        return f"{describe_run(environment).pipeline}#artifacts"
    if engine not in _KEPT_AT:
        return str(page)
    folder_variable, job_variable, below = _KEPT_AT[engine]
    top, job = Path(environment.get(folder_variable, "/nowhere")), environment.get(job_variable, "")
    path = Path(page).absolute()
    return (
        job.rstrip("/") + below + quote(path.relative_to(top).as_posix())
        if job and path.is_relative_to(top)
        else str(page)
    )


def summarise(markdown: str, environment: Mapping[str, str]) -> None:
    """Show a report on the page of the run, where the engine has a place for it."""
    target = environment.get("GITHUB_STEP_SUMMARY")
    if detect_engine(environment) == "github" and target:
        with Path(target).open("a", encoding="utf-8") as stream:
            stream.write(f"{markdown}\n")


@contextmanager
def fold(title: str) -> Iterator[None]:
    """A section of the log that the engine's web page can fold; nothing in a terminal."""
    engine, title = detect_engine(os.environ), one_line(title)
    section = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in title)
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
