"""ed25519 keys and signatures of releases and events; the library is imported only where one is made or checked."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import SettingsError, UsageError
from pipeline.io.files import read_regular
from pipeline.records.release import Event, Refusal, Release, Signature, Signed, statement
from pipeline.trust import SIGNING_KEY_VARIABLE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_FILE = "signing-key"
_PREFIX = "ed25519:"
_KEY_BYTES = 32
_MAX_KEY_FILE_BYTES = 4096


@dataclass(frozen=True)
class Signer:
    """A private key: 32 bytes in base64, a single word that every CI engine can mask.

    Attributes:
        source: where it comes from, for messages: the variable or the file.
        is_exposed: other users can read the file; then nothing is signed with it.
    """

    secret: str = field(repr=False)
    source: str
    is_exposed: bool = False

    @property
    def public_key(self) -> str:
        """``ed25519:`` and 32 bytes in base64. Raises SettingsError when the secret is no key."""
        return _PREFIX + base64.b64encode(self._key().public_key().public_bytes_raw()).decode()

    def sign(self, record: Signed) -> Signed:
        """The record with a signature over everything else in it."""
        value = base64.b64encode(self._key().sign(statement(record))).decode()
        return record.model_copy(update={"signature": Signature(key=self.public_key, value=value)})

    def _key(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if self.is_exposed:
            raise SettingsError(f"{self.source}: other users can read this key", hint=f"chmod 600 {self.source}")
        try:
            content = base64.b64decode(self.secret, validate=True)
        except (binascii.Error, ValueError):
            content = b""
        if len(content) != _KEY_BYTES:
            raise SettingsError(f"{self.source}: no signing key", hint="voxline keys new --print makes one")
        return Ed25519PrivateKey.from_private_bytes(content)


def is_genuine(record: Release | Event | Refusal) -> bool:
    """Whether the record is what its signature was made over, by the key that the signature names."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    assert record.signature is not None
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(record.signature.key.removeprefix(_PREFIX)))
    try:
        key.verify(base64.b64decode(record.signature.value), statement(record))
    except InvalidSignature:
        return False
    return True


def key_id(public_key: str) -> str:
    """Twelve hex digits that people can compare."""
    return hashlib.sha256(public_key.encode()).hexdigest()[:12]


def new_secret() -> str:
    """A fresh private key."""
    return base64.b64encode(os.urandom(_KEY_BYTES)).decode()


def key_path(environment: Mapping[str, str]) -> Path:
    """Where the user's private key lies, if there is one."""
    folder = environment.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(folder).expanduser() / "voxline" / KEY_FILE


def find_signer(variable: str, environment: Mapping[str, str]) -> Signer | None:
    """The key of the variable ``VOXLINE_SIGNING_KEY``, else the user's own, else none."""
    if variable.strip():
        return Signer(variable.strip(), SIGNING_KEY_VARIABLE)
    path = key_path(environment)
    try:
        is_exposed = bool(path.stat().st_mode & 0o077)
        secret = read_regular(path, _MAX_KEY_FILE_BYTES).decode("ascii", "replace").strip()
    except OSError:
        return None
    return Signer(secret, str(path), is_exposed)


def write_key(path: Path, secret: str) -> None:
    """Store a private key for its owner alone. Raises UsageError when there is one already."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise UsageError(f"{path}: a key already exists", hint="voxline keys list shows it") from None
    with os.fdopen(descriptor, "w") as stream:
        stream.write(secret + "\n")
