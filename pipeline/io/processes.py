"""What another program sees of our environment: what it needs to run, and no secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_NEEDED = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TMP", "TEMP", "LD_LIBRARY_PATH"}
    | {"SYSTEMROOT", "COMSPEC", "PATHEXT", "USERPROFILE"}  # without these nothing starts on Windows
)


def child_environment(environment: Mapping[str, str], *, also: Iterable[str] = ()) -> dict[str, str]:
    """The variables a program is started with. A list of what passes, because nobody can list what is secret.

    Args:
        also: further variables this one program is meant to have.
    """
    passed = _NEEDED.union(also)
    return {name: value for name, value in environment.items() if name in passed or name.startswith("LC_")}
