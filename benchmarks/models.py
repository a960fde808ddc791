"""Speed and memory of the full-size networks on this machine, beside upstream's figures and the floors of its class.

    python benchmarks/models.py all             every section, each in its own process
    python benchmarks/models.py decoding        one section, in at most three minutes on two cores
    python benchmarks/models.py machine         what this machine is able to, beside the one upstream was measured on

Upstream's figures were taken on two idle cores of an AMD EPYC (Zen 4); compare only runs on an idle machine, and look
at `machine` first. A section is a module beside this one, `models_<section>.py`, with `measure(repeats)`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECTIONS = sorted(path.stem.removeprefix("models_") for path in HERE.glob("models_*.py"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="+", choices=["all", *SECTIONS])
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    sections = SECTIONS if "all" in options.sections else options.sections
    if len(sections) == 1:
        run(sections[0], options.threads, options.repeats)
        return
    rest = ["--threads", str(options.threads), "--repeats", str(options.repeats)]
    for section in sections:  # a process of its own each, so that the peak of its memory is its own
        subprocess.run([sys.executable, __file__, section, *rest], check=True)


def run(section: str, threads: int, repeats: int) -> None:
    sys.path[0] = str(HERE.parent)  # this file's name would hide the package `models`
    from models.machine.threads import choose_waiting

    choose_waiting(os.environ)  # as the voxline command does

    import torch

    from benchmarks.report import Measurement, peak_memory_mb, show, write

    torch.set_num_threads(threads)
    module = importlib.import_module(f"benchmarks.models_{section}")
    measurements = module.measure(repeats)
    upstream_mb = getattr(module, "UPSTREAM_PEAK_MB", None)
    if not measurements:
        return
    measurements.append(Measurement("peak memory of the process", peak_memory_mb(), "MB", upstream_mb))
    busiest = max((m.detail.get("others_cores", 0) for m in measurements), default=0)
    warning = f"other programs used up to {busiest:.2f} cores meanwhile" if busiest > 0.1 else ""
    write("models", {section: measurements}, warning)
    print(show(f"{section}: {threads} threads, medians of {repeats}", measurements))
    print(f"Not comparable: {warning}\n" if warning else "", flush=True)


if __name__ == "__main__":
    main()
