"""What can go wrong in `models/`; a stage translates these into its own errors with exit codes."""

from collections.abc import Iterable


class ModelsError(ValueError):
    """Something given to `models/` is not usable; the message names the file, the value and the next step."""


class ConfigError(ModelsError):
    """A base.yaml, or numbers for a network, that do not hold together."""


class SymbolsError(ModelsError):
    """A phone table that does not exist, or a phone that is not in it."""


class WeightsError(ModelsError):
    """Weights that are missing, damaged, foreign to the network, or not safe to read."""

    @classmethod
    def keys_differ(cls, source: str, missing: Iterable[str], unexpected: Iterable[str]) -> "WeightsError":
        """Weights whose names are not those of the network; names the first few of either kind."""
        return cls(
            f"{source}: not weights of this network; {_some('missing', missing)}; {_some('unexpected', unexpected)}"
        )


def shorten(text: object, length: int = 100) -> str:
    """Text out of somebody's file as a message may show it: one line, no control characters, not long."""
    if not isinstance(text, str):
        return f"a {type(text).__name__}"
    shown = text[:length] if text.isprintable() else repr(text[:length])
    return shown + ("..." if len(text) > length else "")


def _some(what: str, names: Iterable[str], shown: int = 5) -> str:
    listed = [shorten(name) for name in sorted(names)]
    if not listed:
        return f"{what}: none"
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return f"{what}: {', '.join(listed[:shown])}{more}"
