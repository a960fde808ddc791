"""``hf:``: a registry on the Hugging Face Hub, one model repository for each voice.

```
head.json                        swapped by commits that name their parent, which the Hub refuses when it is not the last
README.md                        the model card of the release that was published last
releases/<version>/<file>        adapter/<network>/ is what peft loads, with subfolder=
```
For people there is a tag for each version and a branch for each channel; readers of ours ask the head.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import yaml
from pydantic import ValidationError

from pipeline.errors import MissingExtraError, NoAccessError, PipelineError, SettingsError, TransientError
from pipeline.io.registry.backend import Staged
from pipeline.io.registry.place_names import is_loopback, is_root, outer_name, root_of
from pipeline.io.registry.remote import MAX_HEAD_BYTES, Busy, patiently
from pipeline.io.registry.trust import NotTrusted
from pipeline.records.release import CHANNELS, ChannelPointer, Release

if TYPE_CHECKING:
    from huggingface_hub import HfApi

HEAD_FILE = "head.json"
OURS = "voxline"  # the tag of the card by which the Hub lists our repositories
TOO_LATE = 412
PASSING = frozenset({408, 429})
SOUNDS = (".flac", ".wav", ".ogg", ".mp3")
WRITE_HINT = "hf auth login, or HF_TOKEN, with a token that may write to the organisation: docs/registry.md, hf:"


class HubPlace:
    """An organisation, or a user."""

    def __init__(self, api: HfApi, owner: str, *, is_public: bool) -> None:
        self._api = api
        self._owner = owner
        self._is_public = is_public
        self.url = f"hf://{owner}"
        self.identity = f"{self.url} at {api.endpoint}"

    def load(self, root: str) -> tuple[bytes, str] | None:
        with self._told(root):
            answer = self._get(root, HEAD_FILE)
            first = answer.history[0] if answer.history else answer
            commit = first.headers.get("X-Repo-Commit")
            if answer.status_code == 404 or (answer.status_code == 401 and self._is_no_repository(answer)):
                return None
            self._check(answer)
            if len(answer.content) > MAX_HEAD_BYTES or not commit:
                raise SettingsError(f"{self.url}/{outer_name(root)}: {HEAD_FILE} is not a head of ours")
            return answer.content, commit

    def save(self, root: str, head: bytes, tag: str | None, staged: Staged | None, removed: str | None) -> str | None:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete
        from huggingface_hub.errors import HfHubHTTPError

        operations: list[Any] = [CommitOperationAdd(HEAD_FILE, head)]
        if staged is not None:
            version = staged.prefix.rpartition("/")[2]
            for name, (path, _) in sorted(staged.files.items()):
                operations.append(CommitOperationAdd(f"releases/{version}/{name}", path))
            operations.append(CommitOperationAdd("README.md", self._card(root, version, head, staged)))
        if removed is not None:
            operations.append(CommitOperationDelete(f"releases/{removed}/", is_folder=True))
        with self._told(root):
            parent = tag or self._first_parent(root)
            if parent is None:
                return None
            try:
                with _no_bars():
                    done = self._api.create_commit(
                        self._repository(root), operations, commit_message=f"voxline: {root}", parent_commit=parent
                    )
            except HfHubHTTPError as error:
                if error.response is not None and error.response.status_code == TOO_LATE:
                    return None
                raise
        self._show(root, head, staged, removed, done.oid)
        return str(done.oid)

    def _first_parent(self, root: str) -> str | None:
        """The commit to begin on in a repository without a head; None where it has one by now."""
        info = self._info(root) or self._created(root)
        return None if any(file.rfilename == HEAD_FILE for file in info.siblings or []) else str(info.sha)

    def _created(self, root: str) -> Any:
        self._api.create_repo(self._repository(root), private=not self._is_public, exist_ok=True)
        return self._api.model_info(self._repository(root))

    def _info(self, root: str) -> Any:
        """What the Hub tells of a voice's repository; None where there is none."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            return self._api.model_info(self._repository(root))
        except RepositoryNotFoundError:
            return None

    def check(self) -> None:
        self.tags()

    def tags(self) -> dict[str, str]:
        found = {}
        with self._told(""):
            for model in self._api.list_models(author=self._owner, filter=OURS, expand=["sha"]):
                root = root_of(model.id.rpartition("/")[2])
                if is_root(root) and model.sha:
                    found[root] = str(model.sha)
        return found

    def prepare(self, roots: list[str]) -> None:
        """Nothing: each is one request."""

    def upload(self, root: str, version: str, files: Mapping[str, tuple[Path, str]]) -> str:
        """The files go with the commit; what stands in its way is found out before."""
        for path, digest in files.values():
            with path.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                    raise TransientError(f"{path}: changed while it was published", hint="run publish again")
        with self._told(root):
            info = patiently(lambda: self._asked(root))
            if info is not None and not info.private and not self._is_public:
                raise SettingsError(
                    f"{self.url}/{root}: everybody can see this repository; nothing was published",
                    hint=f"make it private, or say that voices are for everybody: {self.url}?public=yes",
                )
        return "main"

    def _asked(self, root: str) -> Any:
        with self._told(root):
            return self._info(root)

    def prepare_download(self, root: str, version: str, place: str) -> None:
        """Nothing: each file is one request."""

    def download(self, root: str, version: str, place: str, name: str, offset: int) -> Iterator[bytes]:
        from huggingface_hub import get_session

        url, headers = self._address(root, f"releases/{version}/{name}")
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with self._told(root), get_session().stream("GET", url, headers=headers) as answer:
            if answer.status_code == 404:
                hint = f"voxline registry verify {root}; roll back to a sound version, or publish it again"
                raise NotTrusted(f"{self.url}/{root}: releases/{version}/{name} is missing", hint=hint)
            if answer.status_code >= 400:
                answer.read()
            self._check(answer)
            passed = offset if answer.status_code == 200 else 0  # a server that knows no ranges
            for chunk in answer.iter_bytes(1 << 20):
                if len(chunk) > passed:
                    yield chunk[passed:]
                passed = max(0, passed - len(chunk))

    def remove(self, root: str, version: str, place: str) -> None:
        """Nothing is left: the commit removed the files."""

    def sweep(self, root: str, known: set[str]) -> None:
        """Nothing is left: files become part of a repository with the commit that names them."""

    # For people

    def _card(self, root: str, version: str, head: bytes, staged: Staged) -> bytes:
        records = json.loads(head)["records"]
        try:
            release = Release.model_validate_json(records[f"releases/{version}/release.json"])
        except (KeyError, ValidationError):
            raise SettingsError(f"{self.url}/{root}: no manifest of {version} to make a card of") from None
        own = staged.files.get("card.md")
        return model_card(release, own[0].read_text(encoding="utf-8") if own else "").encode()

    def _show(self, root: str, head: bytes, staged: Staged | None, removed: str | None, commit: str) -> None:
        """Tags and branches. What cannot be set now says nothing wrong: the head counts, and the next move sets it."""
        repository = self._repository(root)
        try:
            with self._told(root):
                if staged is not None:
                    self._api.create_tag(repository, tag=staged.prefix.rpartition("/")[2], revision=commit, exist_ok=True)
                if removed is not None:
                    self._api.delete_tag(repository, tag=removed)
                if moved := _moved_last(head):
                    self._point(repository, *moved)
        except PipelineError:
            return

    def _point(self, repository: str, channel: str, version: str | None) -> None:
        from huggingface_hub.errors import HfHubHTTPError

        try:
            self._api.delete_branch(repository, branch=channel)
        except HfHubHTTPError as error:
            if error.response is None or error.response.status_code != 404:
                raise
        if version is not None:
            self._api.create_branch(repository, branch=channel, revision=version, exist_ok=True)

    # Requests

    def _repository(self, root: str) -> str:
        return f"{self._owner}/{outer_name(root)}"

    def _address(self, root: str, name: str) -> tuple[str, dict[str, str]]:
        from huggingface_hub.utils._headers import build_hf_headers

        url = f"{self._api.endpoint}/{self._repository(root)}/resolve/main/{quote(name)}"
        return url, build_hf_headers(token=self._api.token, user_agent="voxline")

    def _get(self, root: str, name: str) -> Any:
        from huggingface_hub import get_session

        url, headers = self._address(root, name)
        return get_session().get(url, headers=headers)

    def _check(self, answer: Any) -> None:
        from huggingface_hub.utils._http import hf_raise_for_status

        hf_raise_for_status(answer)

    def _is_no_repository(self, answer: Any) -> bool:
        """The Hub answers 401 for what one who is not logged in may not know of."""
        return answer.headers.get("X-Error-Code") == "RepoNotFound" and self._api.token is not None

    @contextmanager
    def _told(self, root: str) -> Iterator[None]:
        """What the client raises, as what a person can do about it."""
        from httpx2 import HTTPError
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

        where = f"{self.url}/{outer_name(root)}" if root else self.url
        try:
            yield
        except OfflineModeIsEnabled:
            raise SettingsError(f"{where}: HF_HUB_OFFLINE is set", hint="unset it to use this registry") from None
        except (RepositoryNotFoundError, GatedRepoError) as error:
            raise NoAccessError(f"{where}: {_reason(error)}", hint=WRITE_HINT) from None
        except HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if status >= 500 or status in PASSING:
                raise Busy(f"{where}: HTTP {status}: {_reason(error)}", pause_s=_asked_pause(error)) from None
            if status in (401, 403):
                raise NoAccessError(f"{where}: HTTP {status}: {_reason(error)}", hint=WRITE_HINT) from None
            raise SettingsError(f"{where}: HTTP {status}: {_reason(error)}", hint="docs/registry.md, hf:") from None
        except HTTPError as error:
            raise Busy(f"{where}: {_reason(error)}") from None
        except RuntimeError as error:  # how the client wraps a broken upload
            raise Busy(f"{where}: {_reason(error)}") from None


def open_hub(rest: str, environment: Mapping[str, str]) -> HubPlace:
    """``//OWNER[?public=yes]`` behind ``hf:``.

    Raises:
        SettingsError: no such address, or an endpoint that is reached by plain http.
        MissingExtraError: huggingface_hub is not installed.
    """
    found = re.fullmatch(r"//([A-Za-z0-9][A-Za-z0-9-]{0,95})/?(\?public=yes)?", rest)
    if found is None:
        raise SettingsError(f"registry 'hf:{rest}': not an organisation", hint="hf://ORGANISATION or hf://USER")
    endpoint = (environment.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    if urlsplit(endpoint).scheme != "https" and not is_loopback(urlsplit(endpoint).hostname):
        raise SettingsError(f"HF_ENDPOINT {endpoint!r}: http sends voices in the clear", hint="https://...")
    try:
        from huggingface_hub import HfApi, get_token
    except ImportError:
        raise MissingExtraError("registry hf: needs huggingface_hub", hint="pip install 'voxline[hub]'") from None
    token = environment.get("HF_TOKEN") or get_token()
    api = HfApi(endpoint=endpoint, token=token, library_name="voxline")
    return HubPlace(api, found[1], is_public=bool(found[2]))


def model_card(release: Release, own: str) -> str:
    """A release's card with what the Hub reads in its header: base, licence, language, and the gate's numbers.

    Args:
        own: the release's ``card.md``.
    """
    from huggingface_hub import EvalResult, ModelCardData

    header, body = _parted(own)
    results = [
        EvalResult(
            task_type="text-to-speech",
            dataset_type="voxline-gate",
            dataset_name="held-out recordings and gate sentences of this voice",
            metric_type=name.partition(".")[2] or name,
            metric_name=name,
            metric_value=round(value, 6),
        )
        for name, value in release.metrics.items()
        if value is not None
    ]
    known = {key: header[key] for key in ("license",) if isinstance(header.get(key), str)}
    data = ModelCardData(
        language=release.language,
        base_model=release.base,
        library_name="peft",
        pipeline_tag="text-to-speech",
        tags=["text-to-speech", OURS],
        model_name=f"{release.voice} {release.version}",
        eval_results=results,
        consent_scope=list(release.consent.scope),
        version=release.version,
        **{"license": release.license.lower(), **known},
    )
    sounds = sorted(name for name in release.files if name.startswith("reference/") and name.endswith(SOUNDS))
    listen = [f"## Listen\n\n[{quote(name)}](releases/{release.version}/{quote(name)})\n" for name in sounds[:1]]
    use = (
        "## Use\n\n```python\n"
        f'PeftModel.from_pretrained(network, REPOSITORY, subfolder="releases/{release.version}/adapter/synthesizer")\n'
        "```\n"
    )
    return f"---\n{data.to_yaml()}\n---\n{body or f'# {release.voice}'}\n\n" + "\n".join([*listen, use])


@contextmanager
def _no_bars() -> Iterator[None]:
    """The client draws a bar for each file, in logs as well."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    were_off = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            enable_progress_bars()


def _parted(text: str) -> tuple[dict[str, Any], str]:
    """The header of a card, and the rest."""
    found = re.match(r"\A---\n(.*?)\n---\n", text, re.DOTALL)
    if not found:
        return {}, text.strip()
    try:
        header = yaml.safe_load(found[1])
    except yaml.YAMLError:
        header = None
    return header if isinstance(header, dict) else {}, text[found.end() :].strip()


def _moved_last(head: bytes) -> tuple[str, str | None] | None:
    """The channel that was moved last, and where to."""
    records = json.loads(head)["records"]
    pointers = [
        (channel, ChannelPointer.model_validate_json(records[key]))
        for channel in CHANNELS
        if (key := f"channels/{channel}.json") in records
    ]
    if not pointers:
        return None
    channel, pointer = max(pointers, key=lambda one: one[1].event.id)
    return channel, pointer.version


def _reason(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    return str(cause).strip().split("\n", 1)[0] or type(cause).__name__


def _asked_pause(error: Any) -> float | None:
    told = error.response.headers.get("Retry-After", "") if error.response is not None else ""
    return float(told) if re.fullmatch(r"\d{1,6}", told) else None
