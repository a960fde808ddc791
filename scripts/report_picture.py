"""Makes README's picture: docs/report.png, the first screen of a quality report, and docs/report.json with its figures.

    make picture                                                   # runs the line on voices/sample first, some minutes
    .venv/bin/python scripts/report_picture.py work/sample/evaluate/<key>/report/index.html

Needs Chromium (Debian package chromium). A test compares docs/report.json with the base's floors and the gate's checks:
when it fails, the picture shows what is no longer so, and is to be made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipeline.records.quality import QualityReport

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = REPOSITORY / "docs"
VOICE = "sample"
GATE_BLOCKED = 11
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1100, 1000
LIMIT_BYTES = 300_000
LIMIT_S = 120

FLAGS = (
    "--headless",
    "--disable-gpu",
    "--hide-scrollbars",
    f"--window-size={WIDTH},{HEIGHT}",
    "--force-device-scale-factor=1",
    "--blink-settings=preferredColorScheme=1",  # light, whatever the desktop prefers
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # the page holds all that it shows
)


def find_browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        sys.exit(f"none of {', '.join(BROWSERS)} is on PATH: apt-get install chromium")
    return found


def browser_command(browser: str, page: Path, picture: Path, profile: Path, *, is_root: bool) -> list[str]:
    """One screenshot of one page, with a profile of its own. Chromium's sandbox refuses root."""
    sandbox = ["--no-sandbox"] if is_root else []
    own = [f"--user-data-dir={profile}", f"--screenshot={picture}"]
    return [browser, *FLAGS, *sandbox, *own, page.resolve().as_uri()]


def photograph(browser: str, page: Path, folder: Path) -> bytes:
    """The first screen of a page as PNG."""
    picture = folder / "report.png"
    command = browser_command(browser, page, picture, folder / "profile", is_root=os.geteuid() == 0)
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        sys.exit(f"{browser}: no picture of {page} in {LIMIT_S} s")
    if done.returncode != 0 or not picture.is_file():
        sys.exit(f"{browser}: no picture of {page}, exit code {done.returncode}\n{done.stderr[-2000:]}")
    shown = picture.read_bytes()
    if len(shown) > LIMIT_BYTES:
        sys.exit(f"{page}: its picture has {len(shown)} bytes, at most {LIMIT_BYTES} belong into the repository")
    return shown


def figures(page: Path, picture: bytes) -> dict[str, Any]:
    """What the picture says, in numbers, and which picture that is."""
    report = QualityReport.model_validate_json((page.parent / "report.json").read_bytes())
    written_by = re.search(r"<footer>voxline (\S+)", page.read_text(encoding="utf-8"))
    if written_by is None:
        sys.exit(f"{page}: no quality report of voxline")
    return {
        "picture_sha256": hashlib.sha256(picture).hexdigest(),
        "voxline": written_by[1],
        "voice": report.voice,
        "version": report.version,
        "base": report.base,
        "passed": report.passed,
        "floors": report.floors.model_dump(mode="json"),
        "checks": [
            check.model_dump(mode="json", include={"id", "title", "unit", "status", "value", "limit"})
            for check in report.checks
        ],
    }


def make_report(folder: Path) -> Path:
    """Walk the line on the sample voice up to its report, with the repository's own settings."""
    command = [sys.executable, "-m", "pipeline.cli.main", "run", VOICE, "--until", "evaluate"]
    command += ["--work", str(folder / "work"), "--registry", f"file:{folder / 'registry'}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VOXLINE_")}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, check=False)
    pages = list((folder / "work" / VOICE / "evaluate").glob("*/report/index.html"))
    if done.returncode not in (0, GATE_BLOCKED) or len(pages) != 1:
        sys.exit(f"voxline run {VOICE} ended with exit code {done.returncode} and left {len(pages)} reports")
    return pages[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", nargs="?", type=Path, help="index.html of a quality report; without it, one is made")
    page = parser.parse_args().page
    browser = find_browser()  # before the minutes that the run takes
    with tempfile.TemporaryDirectory(prefix="voxline-picture-", ignore_cleanup_errors=True) as made:
        page = page or make_report(Path(made))
        if not page.is_file():
            sys.exit(f"{page} is not there: voxline run {VOICE} writes one, and without an argument this script does")
        picture = photograph(browser, page, Path(made))
        told = json.dumps(figures(page, picture), indent=1, ensure_ascii=False)
    (DOCS / "report.png").write_bytes(picture)
    (DOCS / "report.json").write_text(f"{told}\n", encoding="utf-8")
    print(f"docs/report.png: {len(picture) / 1000:.0f} kB; docs/report.json says what it shows")


if __name__ == "__main__":
    main()
