"""The whole line once, on the sample voice: what `make demo` runs. Run again, it finds nothing to do.

Exit 0 when voxline behaved as it should: a voice was published and has spoken, or the gate blocked it or asked for a
person's ears and said why. Its
free speech on the small base `nano` is close to the gate's limits, so both can happen. Anything else is an error.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
VOICE = "sample"
SENTENCE = "Hello, I am the sample voice. A minute of speech was enough to make me."
SPOKEN = REPOSITORY / "work" / "demo" / "hello.wav"
GATE_BLOCKED = 11
REVIEW_PENDING = 12
SMALLEST_SOUND_BYTES = 1000  # a FLAC file without a single sample is smaller


def voxline(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line exactly as a user does, whatever registry the environment names."""
    command = [sys.executable, "-m", "pipeline.cli.main", *arguments, "--registry", "file:registry"]
    sys.stdout.flush()
    return subprocess.run(command, cwd=REPOSITORY, check=False, text=True)


def main() -> int:
    clock = time.monotonic()
    fetch_ears()
    print(f"voxline demo: voices/{VOICE} -> validate -> extract -> finetune -> evaluate -> publish (file:registry)\n")
    walked = voxline("run", VOICE)
    report = find_report()
    print(f"\nquality report: {report or 'none was written'}")
    if walked.returncode == 0:
        code = speak()
    elif walked.returncode == GATE_BLOCKED:
        code = speak_blocked(report)
    elif walked.returncode == REVIEW_PENDING:
        print("\nThe gate asks a person to listen before the voice is used: the line above says how to promote it.")
        code = hear_attempt(report)
    else:
        print(f"\nthe line ended with exit code {walked.returncode}, which is not what the demo expects")
        code = walked.returncode
    print(f"\n{time.monotonic() - clock:.0f} s in all; run it again: what is done costs nothing")
    return code


def fetch_ears() -> None:
    """What the gate listens with, once and outside the tree; without it, the report says what nobody heard."""
    command = [sys.executable, "-m", "pipeline.cli.main", "artifacts", "pull", "gate"]
    sys.stdout.flush()
    if subprocess.run(command, cwd=REPOSITORY, check=False).returncode:
        print('\ngoing on without: what these would have measured is "not measured" in the report\n')


def find_report() -> Path | None:
    """The newest report of the sample voice."""
    found = sorted((REPOSITORY / "work" / VOICE / "evaluate").glob("*/report/index.html"), key=os.path.getmtime)
    return found[-1] if found else None


def speak() -> int:
    """Say a sentence with the published voice."""
    SPOKEN.parent.mkdir(parents=True, exist_ok=True)
    code = voxline("say", VOICE, SENTENCE, "-o", str(SPOKEN)).returncode
    if code == 0:
        print(f'\nlisten: {SPOKEN}\nsay more: .venv/bin/voxline say {VOICE} "Your own words." -o words.wav')
    return code


def speak_blocked(report: Path | None) -> int:
    """What there is to hear when nothing may be published: the attempt that the gate heard, too."""
    print(
        "\nThe gate blocked the voice, for the reasons above, and nothing was published (exit code 11 of voxline run)."
        "\nThe line works; this voice on the small base `nano` is not proven. See models/bases/nano/README.md."
    )
    return hear_attempt(report)


def hear_attempt(report: Path | None) -> int:
    """Put a sentence that the gate heard where the demo's sound lies."""
    from pipeline.io.audio import read_audio, write_audio

    tried = sorted(report.parent.parent.glob("sounds/free-*.flac")) if report else []
    sounds = [read_audio(path) for path in tried if path.stat().st_size > SMALLEST_SOUND_BYTES]
    if not sounds:
        print("but the report has no sound of it")
        return 1
    SPOKEN.parent.mkdir(parents=True, exist_ok=True)
    write_audio(SPOKEN, sounds[0].mono, sounds[0].sample_rate_hz)
    print(f"\nlisten to what the gate heard: {SPOKEN}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
