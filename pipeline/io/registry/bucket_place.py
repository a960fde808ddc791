"""``s3:``: a registry in a bucket of any object store that speaks S3 and writes conditionally.

```
heads/<voice>.json                                 If-None-Match and If-Match make it one compare-and-swap
releases/<voice>/<version>/<upload>/<file>         never written twice: each upload has a name of its own
```
Keys come from the environment, or from the role of the machine (EC2, ECS, EKS); obstore reads both.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.errors import MissingExtraError, NoAccessError, SettingsError, TransientError
from pipeline.io.registry.backend import Staged
from pipeline.io.registry.place_names import is_loopback, is_root, outer_name, root_of
from pipeline.io.registry.remote import MAX_HEAD_BYTES, Busy, patiently
from pipeline.io.registry.trust import NotTrusted

if TYPE_CHECKING:
    from obstore.store import S3Store

AT_ONCE = 4
LISTED_AT_ONCE = 1000
CHUNK_BYTES = 1 << 16  # what came before a connection breaks is kept by the chunk
IN_PARTS_BYTES = 128 * 2**20  # larger files go in parts, several requests each
ABANDONED = timedelta(days=7)  # an upload that no head names; clocks may be a day apart
PROBED_FOR_S = 30 * 24 * 3600.0
PROBE, PROBED, NO_TAG = "probe", b"voxline\n", f'"{"0" * 32}"'
MAY_PASS = re.compile(
    r"\b(5\d\d|429|408)\b|error sending request|timed? ?out|connection|broken pipe|incomplete|end of file|decoding|slow"
    r"|reset|closed|too many|body",
    re.IGNORECASE,
)
NO_BUCKET = re.compile(r"NoSuchBucket", re.IGNORECASE)


class BucketPlace:
    """A bucket, or a folder in one."""

    def __init__(self, store: S3Store, url: str, endpoint: str, cache: Path) -> None:
        self._store = store
        self.url = url
        self.identity = f"{url} at {endpoint}" if endpoint else url
        self._probed = cache / f"{hashlib.sha256(self.identity.encode()).hexdigest()[:16]}.probed"

    def load(self, root: str) -> tuple[bytes, str] | None:
        import obstore

        with self._told():
            try:
                found = obstore.get(self._store, _head(root))
            except FileNotFoundError as error:
                self._check_bucket(error)
                return None
            if found.meta["size"] > MAX_HEAD_BYTES:
                raise SettingsError(f"{self.url}/{_head(root)}: {found.meta['size']} bytes, this is not a head of ours")
            return bytes(found.bytes()), str(found.meta["e_tag"])

    def save(self, root: str, head: bytes, tag: str | None, staged: Staged | None, removed: str | None) -> str | None:
        if not self._is_probed():
            self._check_conditional_writes()
        with self._told():
            return self._put_if(_head(root), head, tag)

    def _put_if(self, key: str, data: bytes, tag: str | None) -> str | None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            done = obstore.put(self._store, key, data, mode="create" if tag is None else {"e_tag": tag}, use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            return None
        except FileNotFoundError as error:  # If-Match of what somebody removed
            self._check_bucket(error)
            return None
        return str(done["e_tag"])

    def check(self) -> None:
        self._check_conditional_writes()

    def _check_conditional_writes(self) -> None:
        """Raises SettingsError where the store writes although a condition does not hold: it would lose voices."""
        with self._told():
            is_kept = any(self._put_if(PROBE, PROBED, None) is None for _ in range(2))  # the first may make it
            holds = is_kept and self._put_if(PROBE, PROBED, NO_TAG) is None
        if not holds:
            raise SettingsError(
                f"{self.url}: this store does not write conditionally (If-None-Match, If-Match), so two publishers"
                " would overwrite each other",
                hint="use a store that does (AWS, MinIO, Ceph, R2), or git:; nothing was published",
            )
        self._probed.parent.mkdir(parents=True, exist_ok=True)
        self._probed.touch()

    def _is_probed(self) -> bool:
        try:
            return time.time() - self._probed.stat().st_mtime < PROBED_FOR_S
        except OSError:
            return False

    def tags(self) -> dict[str, str]:
        import obstore

        found = {}
        with self._told():
            for listed in obstore.list(self._store, "heads", chunk_size=LISTED_AT_ONCE):
                for one in listed:
                    name = str(one["path"]).rpartition("/")[2]
                    root = root_of(name.removesuffix(".json"))
                    if name.endswith(".json") and is_root(root):
                        found[root] = str(one["e_tag"])
        return found

    def prepare(self, roots: list[str]) -> None:
        """Nothing: each is one request."""

    def upload(self, root: str, version: str, files: Mapping[str, tuple[Path, str]]) -> str:
        upload = secrets.token_hex(8)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            started = [
                pool.submit(patiently, partial(self._put_file, f"{_folder(root, version, upload)}/{name}", *source))
                for name, source in sorted(files.items())
            ]
            for one in started:
                one.result()
        return upload

    def _put_file(self, key: str, path: Path, digest: str) -> None:
        import obstore

        is_large = path.stat().st_size > IN_PARTS_BYTES
        data = b"" if is_large else path.read_bytes()
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256") if is_large else hashlib.sha256(data)
        if found.hexdigest() != digest:
            raise TransientError(f"{path}: changed while it was published", hint="run publish again")
        with self._told():
            obstore.put(self._store, key, path if is_large else data, use_multipart=is_large)

    def prepare_download(self, root: str, version: str, place: str) -> None:
        """Nothing: each file is one request."""

    def download(self, root: str, version: str, place: str, name: str, offset: int) -> Iterator[bytes]:
        import obstore

        with self._told():
            key = f"{_folder(root, version, place)}/{name}"
            try:
                found = obstore.get(self._store, key, options={"range": {"offset": offset}} if offset else None)
            except FileNotFoundError as error:
                self._check_bucket(error)
                hint = f"voxline registry verify {root}; roll back to a sound version, or publish it again"
                raise NotTrusted(f"{self.url}/{key}: is missing", hint=hint) from None
            for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    def remove(self, root: str, version: str, place: str) -> None:
        self._remove([key for key, _ in self._listed(f"{_folder(root, version, place)}/")])

    def sweep(self, root: str, known: set[str]) -> None:
        """Remove what publishers brought here long ago and never named. ``known``: the places that the head names."""
        since, inside = datetime.now(UTC) - ABANDONED, f"releases/{root}/"
        left = []
        for key, modified in self._listed(inside):
            upload = key.removeprefix(inside).split("/")[1:2]
            if modified < since and upload and upload[0] not in known:
                left.append(key)
        self._remove(left)

    def _listed(self, prefix: str) -> list[tuple[str, datetime]]:
        import obstore

        with self._told():
            chunks = obstore.list(self._store, prefix, chunk_size=LISTED_AT_ONCE)
            return [(str(one["path"]), one["last_modified"]) for listed in chunks for one in listed]

    def _remove(self, keys: list[str]) -> None:
        import obstore

        with self._told():
            if keys:
                obstore.delete(self._store, keys)

    def _check_bucket(self, error: Exception) -> None:
        if NO_BUCKET.search(str(error)):
            raise SettingsError(f"{self.url}: there is no such bucket", hint="create it, or check registry and region")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What obstore raises, as what a person can do about it."""
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError) as error:
            hint = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, or the machine's role: docs/registry.md, s3:"
            raise NoAccessError(f"{self.url}: {_reason(error)}", hint=hint) from None
        except BaseError as error:
            if NO_BUCKET.search(str(error)):
                self._check_bucket(error)
            if MAY_PASS.search(str(error)):
                raise Busy(f"{self.url}: {_reason(error)}") from None
            raise SettingsError(f"{self.url}: {_reason(error)}", hint="docs/registry.md, s3:") from None


def open_bucket(rest: str, cache: Path, environment: Mapping[str, str]) -> BucketPlace:
    """``//bucket/prefix`` behind ``s3:``.

    Raises:
        SettingsError: no such address, or an endpoint that is reached by plain http.
        MissingExtraError: obstore is not installed.
    """
    found = re.fullmatch(r"//([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9._-]+)*)/?", rest)
    if found is None or "/." in rest:
        raise SettingsError(f"registry 's3:{rest}': not a bucket", hint="s3://BUCKET or s3://BUCKET/FOLDER")
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
    is_here = is_loopback(urlsplit(endpoint).hostname)
    if endpoint and urlsplit(endpoint).scheme != "https" and not is_here:
        raise SettingsError(f"AWS_ENDPOINT_URL {endpoint!r}: http sends voices in the clear", hint="https://...")
    try:
        from obstore.store import S3Store
    except ImportError:
        raise MissingExtraError("registry s3: needs obstore", hint="pip install 'voxline[s3]'") from None
    config: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    store = S3Store(
        found[1],
        prefix=found[2].strip("/") or None,
        config=config,
        client_options={"allow_http": is_here, "connect_timeout": "10s", "timeout": "30m"},
        retry_config={"max_retries": 0},  # ``patiently`` does it, and knows what arrived
    )
    return BucketPlace(store, f"s3:{rest.rstrip('/')}", endpoint, cache)


def _head(root: str) -> str:
    return f"heads/{outer_name(root)}.json"


def _folder(root: str, version: str, upload: str) -> str:
    return f"releases/{root}/{version}/{upload}"


def _reason(error: BaseException) -> str:
    """The store's own words, without the library's around them."""
    text = " ".join(str(error).split())
    code, message = (re.search(rf"<{name}>([^<]*)<", text) for name in ("Code", "Message"))
    told = ": ".join(found[1] for found in (code, message) if found)
    return told or text.split("Debug source")[0].strip()[:300]
