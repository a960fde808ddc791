"""The console script. Almost nothing is imported here, so that Ctrl-C is answered from the first moment on."""

from __future__ import annotations

import sys


def main() -> None:
    """Import the commands and run one; interrupted while it imports, it leaves without a traceback (130)."""
    try:
        from pipeline.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
