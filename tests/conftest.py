"""Shared fixtures: real speech, where it is; no network; no home folder."""

from __future__ import annotations

import ctypes
import gc
import os
import pwd
import shutil
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from warm_python import WarmPython

from models.compat import prepare_torchaudio
from models.machine.switches import switch_off
from pipeline.io.artifacts.cache import artifact_folder, artifact_table, is_pulled
from pipeline.records.settings import switched_off

prepare_torchaudio()

# What a user, a shell or a CI engine has set for the line (in a merge request's pipeline every command would take the
# tree for a stranger's); tests set what they need. Forgotten before the first fixture of a session, which would write
# into the configured registry, and before libraries look for a cache folder as they are imported.
CONFIGURED = ("VOXLINE_", "CI", "GITLAB_", "GITHUB_", "JENKINS_", "BUILD_", "CHANGE_", "GIT_", "AWS_", "HF_", "XDG_")
KEPT = ("VOXLINE_SHARED", "VOXLINE_PROCESSOR", "VOXLINE_CACHE")  # what the machine is, not what the line does


def leave_users_environment() -> str:
    """Forget what is configured here, and move to an empty home folder, which the workers of one run share."""
    for variable in [name for name in os.environ if name.startswith(CONFIGURED) and name not in KEPT]:
        del os.environ[variable]
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ["HOME"] = tempfile.mkdtemp(prefix="voxline-tests-home-")
    return os.environ["HOME"]


HOME = leave_users_environment()

# Read when torch is first imported: several test processes share the cores, and waiting threads must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A job in the background of a shell ignores Ctrl-C, and its children with it; the tests send it to theirs.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# `make test` runs some tests twice: as the processor is, and without some of it. Before torch is first imported.
WITHOUT = switched_off(os.environ.get("VOXLINE_PROCESSOR", "auto"))
switch_off(WITHOUT, os.environ)

REPOSITORY = Path(__file__).resolve().parent.parent


def shared_folder() -> Path | None:
    """Where the real speech and the reference tensors are, or None."""
    folder = Path(os.environ.get("VOXLINE_SHARED", REPOSITORY.parent / "shared"))
    return folder if (folder / "data").is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder that VOXLINE_SHARED names; the test is skipped where it is absent."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("real speech is not here: set VOXLINE_SHARED to the shared folder")
    return folder


@pytest.fixture(scope="session")
def artifacts() -> Callable[[str], Path]:
    """`artifacts("whisper-base")`: its folder among what `voxline artifacts pull` fetched; skips where it is absent.

    The user's own cache, read only; VOXLINE_CACHE names another.
    """
    home_cache = Path(pwd.getpwuid(os.getuid()).pw_dir) / ".cache" / "voxline"
    cache = Path(os.environ.get("VOXLINE_CACHE", home_cache))

    def folder(name: str) -> Path:
        if not is_pulled(artifact_table()[name], cache):
            pytest.skip(f"{name} is not here: voxline artifacts pull {name}")
        return artifact_folder(cache, name)

    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython]:
    """Runs code in a new process that need not start Python and import the command line first."""
    python = WarmPython()
    yield python
    python.close()


@pytest.fixture(autouse=True)
def own_processor() -> None:
    """What another test switched off of the processor is on again."""
    switch_off(WITHOUT, {})


RESIDENT = Path("/proc/self/statm")
MUCH = 50_000  # pages: 200 MB


@pytest.fixture(scope="module", autouse=True)
def memory_given_back() -> Iterator[None]:
    """What a module's networks took goes back to the system: a child that is forked pays for every page of its parent.

    The C library keeps gigabytes otherwise; elsewhere than on Linux nothing is asked.
    """
    before = resident_pages()
    yield
    if resident_pages() - before > MUCH:
        gc.collect()
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)


def resident_pages() -> int:
    return int(RESIDENT.read_text().split()[1]) if RESIDENT.exists() else 0


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this machine may be reached: doubles listen on the loopback address."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family != socket.AF_UNIX and host not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"a test tried to reach {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: several processes then end together, with the small ones.

    What needs the voice that walked the line is slow, whoever comes first to walk it.
    """
    longer = set((REPOSITORY / "tests/longer.txt").read_text(encoding="utf-8").split("\n"))
    for item in items:
        if "walked_once" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
        if item.nodeid.partition("[")[0] in longer:
            item.add_marker(pytest.mark.longer)
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("parity")}
    items.sort(key=lambda item: item.path not in slow)


CPU, DEAREST = "CPU seconds", 40
BEGAN_CPU_S = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu", action="store_true", help="tell the CPU seconds of files and tests, with their processes")


def cpu_s() -> float:
    """Of this process and of those that it has waited for: other people's load on the cores does not change it."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    item.stash[BEGAN_CPU_S] = cpu_s()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "teardown":
        report.user_properties.append((CPU, cpu_s() - item.stash[BEGAN_CPU_S]))
    return report


def pytest_unconfigure() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(HOME, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    show_tables(terminalreporter)
    if config.getoption("--cpu"):
        show_cpu(terminalreporter)


def show_cpu(terminalreporter: pytest.TerminalReporter) -> None:
    taken: Counter[str] = Counter()
    dearest: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, seconds in getattr(report, "user_properties", ()):
                if name == CPU:
                    taken[report.nodeid.partition("::")[0]] += seconds
                    dearest[report.nodeid] += seconds
    terminalreporter.section("CPU seconds")
    for name, seconds in (*taken.most_common(), *dearest.most_common(DEAREST)):
        terminalreporter.line(f"{seconds:7.1f}  {name}")
    terminalreporter.line(f"{taken.total():7.1f}  in all")


def show_tables(terminalreporter: pytest.TerminalReporter) -> None:
    """Rows that tests recorded with `record_property("table: NAME", row)`: also where processes share the tests."""
    tables: dict[str, list[str]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, row in getattr(report, "user_properties", ()):
                if name.startswith("table: ") and report.when == "call":
                    tables.setdefault(name.removeprefix("table: "), []).append(row)
    for name, rows in tables.items():
        terminalreporter.section(name)
        for row in sorted(rows):
            terminalreporter.line(row)


@pytest.fixture(autouse=True)
def torchs_threads() -> Iterator[None]:
    """A stage sets the threads of its process, and training on one and on two ends in other numbers."""
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else 0
    yield
    if torch and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
