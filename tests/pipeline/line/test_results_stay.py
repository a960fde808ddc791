"""What the line makes of the sample is the same, bit for bit, as before its types were merged.

Sums of floats differ between processors, so digests hold where they were taken. Whoever changes a result on purpose
raises the stage's version and puts the digests that the failure shows into results.json.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from pathlib import Path

import numpy as np
import pytest
import torch

PINNED = Path(__file__).with_name("results.json")
PATTERNS = ("validate/*/clips/*.flac", "extract/*/*.safetensors", "finetune/*/adapter/*/*", "evaluate/*/**/*.flac")


def this_machine() -> dict[str, str]:
    """What the last bits of a sum depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    return {
        "processor": model[1] if model else platform.processor(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "onednn": str(torch.backends.mkldnn.is_available()),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def digests_of(work: Path) -> dict[str, str]:
    """sha256 of what the stages hand on and of what is heard of them, by stage and path."""
    found = sorted(path for pattern in PATTERNS for path in work.glob(pattern) if path.is_file())
    parts = [(path.relative_to(work).parts, path) for path in found]
    return {
        "/".join((stage, *rest)): hashlib.sha256(path.read_bytes()).hexdigest() for (stage, _, *rest), path in parts
    }


def test_every_file_is_what_it_was(repository_with_voice: Path) -> None:
    pinned = json.loads(PINNED.read_text(encoding="utf-8"))
    if pinned["taken_on"] != this_machine():
        pytest.skip(f"taken on {pinned['taken_on']}, this is {this_machine()}")
    found = digests_of(repository_with_voice / "work" / "ana")
    changed = {
        name: found.get(name, "is gone") for name, digest in pinned["files"].items() if found.get(name) != digest
    }
    assert not changed, json.dumps(changed, indent=1)
