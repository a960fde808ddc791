"""What the benchmarks share: repeated timing, weights of full-size networks, a table beside upstream's figures."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
WEIGHTS_SEED = 101


@dataclass(frozen=True)
class Measurement:
    """One figure; upstream's and the floor of this class of machine stand beside it where they were measured.

    `better` says which way is good, so that `ratio` is above 1 when ours is better than upstream's.
    """

    name: str
    value: float
    unit: str
    upstream: float | None = None
    floor: float | None = None
    goal: str = ""
    better: str = "lower"
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        if not self.upstream or not self.value:
            return None
        return self.upstream / self.value if self.better == "lower" else self.value / self.upstream


def median_s(work: Callable[[], object], repeats: int) -> tuple[float, dict[str, Any]]:
    """Median wall time of `work` after one warm-up, every time, the median of processor time over all threads, and how
    many cores other programs used meanwhile (where the system tells)."""
    work()
    times, processor, others = [], [], []
    for _ in range(repeats):
        started, used, busy = time.perf_counter(), time.process_time(), _busy_s()
        work()
        times.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
        others.append((_busy_s() - busy - processor[-1]) / times[-1])
    return statistics.median(times), {
        "times_s": [round(seconds, 4) for seconds in times],
        "processor_s": round(statistics.median(processor), 4),
        "others_cores": max(0.0, round(statistics.median(others), 2)),
    }


def _busy_s() -> float:
    """Seconds that the cores of this machine have been busy since it started."""
    lines = _lines("/proc/stat")
    if not lines:
        return 0.0
    user, nice, system, _, _, interrupts, soft = (int(x) for x in lines[0].split()[1:8])
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


def peak_memory_mb() -> int:
    """The most memory that this process has had, in MB of 10^6 bytes."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


def fill(network: Any) -> str:
    """Give a full-size network the weights of the reference's recipe; says which weights it has now.

    Without VOXLINE_SHARED it keeps those of its constructor: times are the same, values are not.
    """
    shared = Path(os.environ.get("VOXLINE_SHARED", REPOSITORY.parent / "shared"))
    path = shared / "reference" / "gpt-sovits" / "parity" / "recipe.py"
    if not path.is_file():
        return "constructor"
    spec = importlib.util.spec_from_file_location("parity_recipe", path)
    assert spec is not None and spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    recipe.fill(network, WEIGHTS_SEED)
    return "recipe"


def machine() -> dict[str, Any]:
    import torch

    model = next((x.split(":")[1].strip() for x in _lines("/proc/cpuinfo") if x.startswith("model name")), "unknown")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def show(title: str, measurements: list[Measurement]) -> str:
    """A table for people."""
    rows = [("what", "ours", "upstream", "better by", "floor", "goal")]
    for m in measurements:
        ratio = "" if m.ratio is None else f"{m.ratio:.2f}x"
        rows.append((m.name, f"{m.value:.4g} {m.unit}", _shown(m.upstream), ratio, _shown(m.floor), m.goal))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([title, *lines])


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def write(name: str, sections: dict[str, list[Measurement]], warning: str) -> Path:
    """`results/<name>.json`; sections that were not run keep their last figures."""
    path = RESULTS / f"{name}.json"
    told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for section, measurements in sections.items():
        figures = [{**asdict(m), "ratio": m.ratio} for m in measurements]
        told[section] = {"machine": machine(), "warning": warning, "figures": figures}
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
