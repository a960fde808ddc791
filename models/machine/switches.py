"""What of this processor is not to be used. Standard library only; to be called before torch is first imported."""

import platform
from collections.abc import Iterable, MutableMapping

from models.errors import ConfigError

# avx512: instructions of x86-64. bf16, int8: number types. onednn: the library that multiplies most matrices.
SWITCHES = ("avx512", "bf16", "int8", "onednn")
# torch and oneDNN ask the processor and these variables, once.
WITHOUT_AVX512 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}

_off: frozenset[str] = frozenset()


def switch_off(names: Iterable[str], environment: MutableMapping[str, str]) -> None:
    """Do without `names` of SWITCHES from now on, and with all others; once, at the start of a process.

    Without AVX-512 the `environment` tells torch as well, as long as it is not imported; what the user set stays.
    """
    global _off
    wanted = frozenset(names)
    if wanted - set(SWITCHES):
        raise ConfigError(f"a processor has no {', '.join(sorted(wanted - set(SWITCHES)))} to switch off: {SWITCHES}")
    _off = wanted
    if "avx512" in wanted and platform.machine().lower() in ("x86_64", "amd64"):
        for variable, value in WITHOUT_AVX512.items():
            environment.setdefault(variable, value)


def is_off(name: str) -> bool:
    """Whether a name of SWITCHES was switched off."""
    return name in _off
