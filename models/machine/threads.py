"""How OpenMP's threads wait for each other. Standard library only; to be called before torch is first imported.

A token takes hundreds of short products, and the threads meet after each of them. A thread that sleeps meanwhile takes
longer to wake than a product takes; one that spins keeps the core from other programs, and then all become slow.
"""

import time
from collections.abc import MutableMapping
from pathlib import Path

SPINS = 2_000  # about 20 microseconds: what a busy core loses by them is bounded
LOAD = Path("/proc/loadavg")
LOOKS, LOOK_S = 4, 0.001


def choose_waiting(environment: MutableMapping[str, str], load: Path = LOAD) -> None:
    """Let waiting threads spin shortly on a machine that is otherwise idle now, and sleep at once on a busy one.

    What the user has set stays. Results do not depend on it.
    """
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if is_idle(load):
        environment.setdefault("GOMP_SPINCOUNT", str(SPINS))


def is_idle(load: Path = LOAD) -> bool:
    """Whether no other program wants a core at this moment; false where the system does not tell (not Linux).

    Asked a few times, since something small always runs now and then.
    """
    for _ in range(LOOKS):
        try:
            running = load.read_text(encoding="ascii").split()[3].split("/")[0]
            if int(running) <= 1:  # this program
                return True
        except (OSError, ValueError, IndexError):
            return False
        time.sleep(LOOK_S)
    return False
