"""The file of API keys: made, listed and removed by `voxline serve keys`, read by the server."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from pipeline.config import describe
from pipeline.errors import SettingsError, UsageError
from pipeline.io.files import read_regular, write_atomically
from pipeline.records.api_key import ApiKey, ApiKeys

FILE = "serve-keys.json"
MAX_BYTES = 4 * 2**20


def keys_path(setting: str, environment: Mapping[str, str]) -> Path:
    """Where the keys lie: what `serve.keys` says, else in the user's own configuration."""
    if setting:
        return Path(setting).expanduser()
    return Path(environment.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "voxline" / FILE


def read_keys(path: Path) -> ApiKeys:
    """The keys; none where there is no file. Raises SettingsError."""
    try:
        return ApiKeys.model_validate_json(read_regular(path, MAX_BYTES))
    except FileNotFoundError:
        return ApiKeys()
    except ValidationError as error:
        raise SettingsError(describe(error, str(path)), hint="voxline serve keys list") from None


def token_digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def add_key(path: Path, described: Callable[[str, str, datetime], ApiKey]) -> tuple[ApiKey, str]:
    """A new key and its token, which is told once and kept nowhere.

    Args:
        described: id, digest and time to the key.
    """
    identity = secrets.token_hex(4)
    token = f"vx-{identity}-{secrets.token_urlsafe(32)}"
    key = described(identity, token_digest(token), datetime.now(UTC).replace(microsecond=0))
    _write(path, ApiKeys(keys=(*read_keys(path).keys, key)))
    return key, token


def remove_key(path: Path, identity: str) -> None:
    """Raises UsageError where there is none of this id."""
    present = read_keys(path).keys
    kept = tuple(key for key in present if key.id != identity)
    if len(kept) == len(present):
        raise UsageError(f"{path}: no key {identity!r}", hint="voxline serve keys list")
    _write(path, ApiKeys(keys=kept))


def _write(path: Path, keys: ApiKeys) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, keys.model_dump_json(indent=1).encode() + b"\n", mode=0o600)
