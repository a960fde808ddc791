"""What all places on other machines have to say about names and addresses."""

from __future__ import annotations

import ipaddress

from pipeline.records.voice import is_voice_name


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine itself, by its name alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def outer_name(root: str) -> str:
    """What a head is called elsewhere. A name with an underscore belongs to no voice."""
    return f"_{root[1:]}" if root.startswith(".") else root


def root_of(name: str) -> str:
    """Whose head this is."""
    return f".{name[1:]}" if name.startswith("_") else name


def is_root(root: str) -> bool:
    """Whether a head may be called so; what else lies there is not ours."""
    return is_voice_name(root.removeprefix("."))
