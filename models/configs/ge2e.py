"""Where the weights of the GE2E speaker encoder lie; torch-free, so that their digest can be taken without it."""

from pathlib import Path

WEIGHTS = Path(__file__).resolve().parents[1] / "ge2e" / "ge2e.safetensors"
