"""Speed of the full-size networks on this machine, beside upstream's figures and the floors of its class.

    python benchmarks/models.py [synthesizer] [gpt] [--threads 2] [--repeats 5]

Upstream's figures were taken on two idle cores of an AMD EPYC (Zen 4); compare only runs on an idle machine.
Every section is a module beside this one with `measure(repeats) -> list[Measurement]`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECTIONS = {path.stem.removeprefix("models_"): path.stem for path in sorted(HERE.glob("models_*.py"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="default: all")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    sys.path[0] = str(HERE.parent)  # this file's name would hide the package `models`
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the voxline command sets it

    import torch

    from benchmarks.report import show, write

    torch.set_num_threads(options.threads)
    load = os.getloadavg()[0]
    warning = f"load was {load:.1f} at the start: not an idle machine" if load > 0.5 else ""
    print(f"{options.threads} threads, median of {options.repeats}. {warning}")
    for section in options.sections or SECTIONS:
        measurements = importlib.import_module(f"benchmarks.{SECTIONS[section]}").measure(options.repeats)
        path = write("models", {section: measurements}, warning)
        print(show(f"\n{section}", measurements))
    print(f"\nwritten to {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
