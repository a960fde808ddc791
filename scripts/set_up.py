"""Makes the virtual environment and installs voxline into it; `make demo` and `make test` begin here.

    python3 scripts/set_up.py .venv '.[all,langs,dev]'

Python 3.11 alone is enough, as on a fresh Debian: where venv comes without pip, pip's wheel is fetched by apt; where
there is no C compiler, the one package that has no wheel (pesq) is built with Zig's, which is a wheel itself, and
Debian's Python.h. Nothing of that needs root, and nothing of it stays.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

COMPILED = "pesq"
ZIG = "ziglang==0.17.0"
CI_DOUBLE = Path(__file__).resolve().parent.parent / "tests" / "ci" / "node"


class SetUpError(Exception):
    """What is missing, and the line to type."""


def main(arguments: list[str]) -> None:
    venv, *requirements = arguments
    if sys.version_info < (3, 11):  # noqa: UP036 (this file also runs under the Python that is too old)
        raise SetUpError(f"Python {platform.python_version()} is too old: make PYTHON=python3.11 demo")
    python = Path(venv) / "bin" / "python"
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        make_venv(Path(venv), python, scratch)
        environment = dict(os.environ)
        if not is_installed(python, COMPILED):
            environment |= build_tools(python, scratch)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*pip, "-e", *requirements], env=environment, check=False).returncode:
            raise SetUpError("pip could not install everything; its own message is above")
    if any("dev" in requirement for requirement in requirements):
        install_ci_double(Path(venv))


def install_ci_double(venv: Path) -> None:
    """What runs GitLab's files in the tests, pinned by its lock file; without npm those tests are skipped."""
    if shutil.which("npm") is None:
        print("no npm here: the tests that run GitLab pipelines are skipped", flush=True)
        return
    folder = venv / "node"
    folder.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(CI_DOUBLE / name, folder / name)
    npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    if subprocess.run(npm, cwd=folder, check=False).returncode:
        shutil.rmtree(folder, ignore_errors=True)
        print("npm could not install it: the tests that run GitLab pipelines are skipped", flush=True)


def make_venv(venv: Path, python: Path, scratch: Path) -> None:
    """An environment with pip, unless there is one; half a one, as a failed attempt leaves it, is made again."""
    if python.exists() and is_installed(python, "pip"):
        return
    has_pip = find_spec("ensurepip") is not None
    kind = [] if has_pip else ["--without-pip"]
    subprocess.run([sys.executable, "-m", "venv", "--clear", *kind, venv], check=True)
    if not has_pip:
        unpacked = fetch_debian("python3-pip-whl", scratch, "apt-get install python3-venv")
        (wheel,) = unpacked.glob("usr/share/python-wheels/pip-*.whl")
        subprocess.run([python, f"{wheel}/pip", "install", "--quiet", "--no-index", wheel], check=True)


def is_installed(python: Path, module: str) -> bool:
    asked = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", asked], check=False).returncode == 0


def build_tools(python: Path, scratch: Path) -> dict[str, str]:
    """Environment variables that let pip compile: a compiler and Python.h, each only where this machine has none."""
    tools: dict[str, str] = {}
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        compiler = zig_compiler(python, scratch)
        # Debian's Python asks the linker for things that Zig's does not know.
        tools |= {"CC": str(compiler), "LDSHARED": f"{compiler} -shared", "CFLAGS": "-O2"}
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        package = f"libpython{version}-dev"
        headers = fetch_debian(package, scratch, f"apt-get install gcc python{version}-dev") / "usr" / "include"
        tools["CFLAGS"] = f"-O2 -I{headers}/python{version} -I{headers}"
    return tools


def zig_compiler(python: Path, scratch: Path) -> Path:
    """A `cc` that calls Zig's. The target is named so that it is a common processor, not only this one."""
    print("no C compiler here: fetching Zig's (100 MB) to build pesq; `apt-get install gcc` is quicker", flush=True)
    folder = scratch / "zig"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", folder, ZIG]
    if subprocess.run(pip, check=False).returncode:
        raise SetUpError("no C compiler, and Zig's could not be fetched: apt-get install gcc python3-dev")
    script = scratch / "cc"
    target = f"{platform.machine()}-linux-gnu"
    script.write_text(
        f"#!/bin/sh\nexport ZIG_GLOBAL_CACHE_DIR={scratch}/cache ZIG_LOCAL_CACHE_DIR={scratch}/cache\n"
        f'exec {folder}/ziglang/zig cc -target {target} -fno-sanitize=undefined "$@"\n'
    )
    script.chmod(0o755)
    return script


def fetch_debian(package: str, scratch: Path, otherwise: str) -> Path:
    """The files of a Debian package, downloaded and checked by apt, unpacked beside, not installed."""
    folder = scratch / package
    folder.mkdir()
    advice = f"{package} is missing and apt cannot fetch it: {otherwise}"
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise SetUpError(advice)
    if subprocess.run(["apt-get", "--quiet=2", "download", package], cwd=folder, check=False).returncode:
        raise SetUpError(advice)
    for archive in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", archive, folder], check=True)
    return folder


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SetUpError as error:
        sys.exit(f"set-up: {error}")
