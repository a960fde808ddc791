"""Pulling a base: the real hub client against a server on this machine that serves small files in upstream's format."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import torch
import yaml
from safetensors.torch import load_file
from small_networks import SYNTHESIZER, TEXT2SEMANTIC

from models.loading.bases import Base, list_bases, load_base
from models.loading.networks import build_network
from models.synthesizer.vits import Synthesizer
from models.text2semantic.network import Text2Semantic
from pipeline.cli.main import run_command
from pipeline.errors import SettingsError, TransientError
from pipeline.io.hub import From, WantedFile, pull, read_lock
from pipeline.jobs.pull import pull_base

pytest.importorskip("huggingface_hub", reason="needs the extra: pip install 'voxline[hub]'")

REPOSITORY = "someone/small-voices"
COMMIT = "c" * 40
LARGE = 1000  # files above are served as LFS files are: their ETag is a sha256


class Hub:
    """A model repository: what it holds, what was asked, and how it should misbehave."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.commit = COMMIT
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.break_after: int | None = None
        self.status_after_break: int | None = None
        self.status: int | None = None
        self.lie_about: set[str] = set()
        self.url = ""

    def etag(self, path: str) -> str:
        content = b"something else" if path in self.lie_about else self.files[path]
        return (hashlib.sha256 if len(self.files[path]) > LARGE else hashlib.sha1)(content).hexdigest()


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            if hub.status is not None:
                self.reply(hub.status, b"{}", {}, body)
            elif re.fullmatch(rf"/api/models/{REPOSITORY}(/revision/\w+)?", self.path.split("?")[0]):
                told = {
                    "id": REPOSITORY,
                    "modelId": REPOSITORY,
                    "sha": hub.commit,
                    "private": False,
                    "tags": [],
                    "downloads": 0,
                    "likes": 0,
                    "siblings": [],
                }
                self.reply(200, json.dumps(told).encode(), {"Content-Type": "application/json"}, body)
            elif found := re.match(rf"/api/models/{REPOSITORY}/tree/(\w+)/([^?]+)", self.path):
                self.tree(found[2], body)
            elif found := re.match(rf"/{REPOSITORY}/resolve/(\w+)/([^?]+)", self.path):
                self.file(unquote(found[2]), body)
            else:
                self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)

        def tree(self, folder: str, body: bool) -> None:
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in hub.files.items()
                if path.startswith(folder + "/")
            ]
            self.reply(200, json.dumps(entries).encode(), {"Content-Type": "application/json"}, body)

        def file(self, path: str, body: bool) -> None:
            content = hub.files.get(path)
            if content is None:
                self.reply(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
                return
            headers = {"ETag": f'"{hub.etag(path)}"', "X-Repo-Commit": hub.commit}
            start = 0
            if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
                hub.ranges.append(f"{path} {asked[1]}")
                start = int(asked[1])
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.reply(206 if start else 200, content[start:], headers, body)

        def reply(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if not body:
                return
            if hub.break_after is not None and len(content) > hub.break_after:
                self.wfile.write(content[: hub.break_after])
                self.wfile.flush()
                hub.break_after, self.close_connection = None, True  # once, in the middle of the file
                hub.status = hub.status_after_break
                return
            self.wfile.write(content)

    return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running double of the hub, as HF_ENDPOINT names it."""
    import huggingface_hub.utils._http as client

    served = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(served))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setattr(client.time, "sleep", lambda seconds: None)  # the client waits between its attempts
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


BASE: dict[str, Any] = {
    "name": "small",
    "family": "v2",
    "upstream_version": "v2",
    "sample_rate_hz": 32000,
    "hop_samples": 640,
    "synthesizer": SYNTHESIZER,
    "text2semantic": TEXT2SEMANTIC,
    "weights": {
        "synthesizer": {"repository": REPOSITORY, "path": "v2/s2G.pth", "layout": "upstream"},
        "text2semantic": {"repository": REPOSITORY, "path": "s1=v3.ckpt", "layout": "upstream"},
        "content": {"repository": REPOSITORY, "path": "small-hubert", "layout": "folder"},
    },
    "license": {"name": "MIT"},
}


def write_base(root: Path, **changes: Any) -> Base:
    folder = root / "bases" / "small"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.yaml").write_text(yaml.safe_dump({**BASE, **changes}))
    return load_base("small", root / "bases")


def saved(value: Any) -> bytes:
    import io

    made = io.BytesIO()
    torch.save(value, made)
    return made.getvalue()


@pytest.fixture
def base(tmp_path: Path, hub: Hub) -> Base:
    """A small base whose files lie on the hub, in half precision as upstream's do."""
    base = write_base(tmp_path)
    assert base.synthesizer is not None and base.text2semantic is not None
    torch.manual_seed(7)
    synthesizer = {name: value.half() for name, value in Synthesizer(base.synthesizer).state_dict().items()}
    gpt = {f"model.{name}": value.half() for name, value in Text2Semantic(base.text2semantic).state_dict().items()}
    hub.files = {
        "v2/s2G.pth": saved({"weight": synthesizer, "config": {"model": {}}, "info": "pretrained"}),
        "s1=v3.ckpt": saved({"weight": gpt, "config": {}, "info": "pretrained"}),
        "small-hubert/config.json": b'{"hidden_size": 8}',
        "small-hubert/preprocessor_config.json": b"{}",
        "small-hubert/pytorch_model.bin": saved({"w": torch.arange(500.0)}),
        "small-hubert/training_args.bin": b"a pickle nobody asked for",
        "small-hubert/README.md": b"# not needed",
    }
    return base


@pytest.fixture
def places(tmp_path: Path, hub: Hub) -> dict[str, Any]:
    return {"cache": tmp_path / "cache", "lock_path": tmp_path / "bases.lock", "source": From(endpoint=hub.url)}


@pytest.mark.slow
def test_a_pulled_base_is_complete_exact_and_locked(base: Base, hub: Hub, places: dict[str, Any]) -> None:
    lines: list[str] = []
    assert pull_base(base, **places, log=lines.append) == ["content", "synthesizer", "text2semantic"]
    folder = places["cache"] / "bases" / "small"
    assert not base.missing_weights(places["cache"])
    weights = load_file(folder / "synthesizer.safetensors")
    torch.manual_seed(7)
    expected = Synthesizer(base.synthesizer).state_dict()  # type: ignore[arg-type]
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], value.half()) for name, value in expected.items())
    assert "h.layers.0.self_attn.in_proj_weight" in load_file(folder / "text2semantic.safetensors")
    assert {path.name for path in (folder / "content").iterdir()} == {
        "config.json",
        "preprocessor_config.json",
        "model.safetensors",
    }
    assert torch.equal(load_file(folder / "content" / "model.safetensors")["w"], torch.arange(500.0))

    lock = read_lock(places["lock_path"]).repositories[REPOSITORY]
    assert lock.commit == COMMIT
    assert lock.files["v2/s2G.pth"] == hashlib.sha256(hub.files["v2/s2G.pth"]).hexdigest()
    origin = json.loads((folder / "pulled.json").read_text())
    assert origin["text2semantic"][0]["commit"] == COMMIT
    assert not any("training_args" in line or "README" in line for line in hub.requests)
    assert any("synthesizer" in line and REPOSITORY in line for line in lines)
    assert not list(places["cache"].rglob("*.pth")), "the originals are not kept"


def test_pulling_again_asks_the_hub_nothing(base: Base, hub: Hub, places: dict[str, Any]) -> None:
    pull_base(base, **places)
    hub.requests.clear()
    assert pull_base(base, **places) == []
    assert hub.requests == []
    assert pull_base(base, **places, force=True) == ["content", "synthesizer", "text2semantic"]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client writes 10 MB at a time; these files are smaller."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)


def continued(hub: Hub) -> list[int]:
    return [int(entry.split()[1]) for entry in hub.ranges if entry.startswith("v2/s2G.pth ")]


@pytest.mark.usefixtures("small_chunks")
def test_a_broken_connection_is_taken_up_where_it_broke(base: Base, hub: Hub, places: dict[str, Any]) -> None:
    hub.break_after = 50_000
    assert "synthesizer" in pull_base(base, **places)
    assert continued(hub) == [50_000]


@pytest.mark.usefixtures("small_chunks")
def test_a_pull_that_failed_continues_in_the_next_one(base: Base, hub: Hub, places: dict[str, Any]) -> None:
    hub.break_after, hub.status_after_break = 50_000, 503
    with pytest.raises(TransientError, match="HTTP 503"):
        pull_base(base, **places)
    assert "synthesizer" in base.missing_weights(places["cache"])
    hub.status = None
    hub.ranges.clear()
    pull_base(base, **places)
    assert continued(hub) == [50_000]
    assert not base.missing_weights(places["cache"])
    assert not list(places["cache"].rglob("*.part"))


def test_the_locked_commit_is_taken_even_when_the_branch_has_moved(
    base: Base, hub: Hub, places: dict[str, Any]
) -> None:
    pull_base(base, **places)
    hub.requests.clear()
    pull_base(base, **places, force=True)
    assert any(f"/revision/{COMMIT}" in line for line in hub.requests)
    assert not any("/main" in line for line in hub.requests)


def test_bytes_that_differ_from_the_lock_are_refused_and_removed(base: Base, hub: Hub, places: dict[str, Any]) -> None:
    pull_base(base, **places)
    kept = (places["cache"] / "bases" / "small" / "synthesizer.safetensors").read_bytes()
    hub.files["v2/s2G.pth"] = hub.files["v2/s2G.pth"][:-1] + b"!"
    with pytest.raises(SettingsError, match=r"s2G\.pth: sha256 .* but bases\.lock says"):
        pull_base(base, **places, force=True)
    assert (places["cache"] / "bases" / "small" / "synthesizer.safetensors").read_bytes() == kept
    assert not list(places["cache"].rglob("s2G.pth"))


def test_bytes_that_differ_from_what_the_hub_promised_are_refused(base: Base, hub: Hub, places: dict[str, Any]) -> None:
    hub.lie_about = {"v2/s2G.pth"}
    with pytest.raises(SettingsError, match="but the hub says"):
        pull_base(base, **places)
    assert not places["lock_path"].exists()


@pytest.mark.parametrize("key", ["sha256", "md5_first_8192"])
def test_a_file_other_than_the_one_the_base_names_is_refused(
    tmp_path: Path, base: Base, places: dict[str, Any], key: str
) -> None:
    wrong = {**BASE["weights"]["synthesizer"], key: "0" * (64 if key == "sha256" else 32)}
    changed = write_base(tmp_path, weights={**BASE["weights"], "synthesizer": wrong})
    with pytest.raises(SettingsError, match="the base says" if key == "sha256" else "not the file this base"):
        pull_base(changed, **places)


def test_weights_of_another_network_are_refused_with_their_keys(
    tmp_path: Path, base: Base, hub: Hub, places: dict[str, Any]
) -> None:
    hub.files["v2/s2G.pth"] = saved({"weight": {"dec.strange.weight": torch.ones(2)}, "config": {}})
    with pytest.raises(SettingsError, match=r"s2G\.pth.*missing: dec\.cond.*unexpected: dec\.strange\.weight"):
        pull_base(base, **places)
    assert "synthesizer" in base.missing_weights(places["cache"])


def test_a_hostile_file_on_the_hub_is_refused_and_does_nothing(
    tmp_path: Path, base: Base, hub: Hub, places: dict[str, Any]
) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            import os

            return os.system, (f"touch {tmp_path / 'ran'}",)

    hub.files["s1=v3.ckpt"] = saved({"weight": {"model.a": torch.ones(1)}, "config": Hostile()})
    with pytest.raises(SettingsError, match="posix system"):
        pull_base(base, **places)
    assert not (tmp_path / "ran").exists()


def test_offline_says_which_files_to_put_where(base: Base, hub: Hub, places: dict[str, Any]) -> None:
    places["source"] = From(endpoint="http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(TransientError) as raised:
        pull_base(base, **places)
    message = raised.value.message
    for path in ("v2/s2G.pth", "s1=v3.ckpt", "small-hubert"):
        assert f"FOLDER/{path}" in message
        assert re.search(rf"http://127\.0\.0\.1:9/{REPOSITORY}/(resolve|tree)/main/{path}", message)
    assert "voxline bases pull small --from FOLDER" in raised.value.hint


def test_an_overloaded_hub_is_a_transient_error_and_a_missing_file_is_not(
    base: Base, hub: Hub, places: dict[str, Any]
) -> None:
    hub.status = 503
    with pytest.raises(TransientError, match="HTTP 503"):
        pull_base(base, **places)
    hub.status = None
    del hub.files["s1=v3.ckpt"]
    with pytest.raises(SettingsError, match=r"no s1=v3\.ckpt at main"):
        pull_base(base, **places)


@pytest.mark.parametrize("layout", ["as on the hub", "below the repository", "all in one folder"])
def test_a_folder_serves_as_well_as_the_hub(
    tmp_path: Path, base: Base, hub: Hub, places: dict[str, Any], layout: str
) -> None:
    source = tmp_path / "stick"
    for path, content in hub.files.items():
        name = {"as on the hub": path, "below the repository": f"{REPOSITORY}/{path}", "all in one folder": path}[
            layout
        ]
        if layout == "all in one folder" and not path.startswith("small-hubert"):
            name = Path(path).name
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    hub.requests.clear()
    pull_base(base, **(places | {"source": From(source)}))
    assert not base.missing_weights(places["cache"])
    assert hub.requests == []
    assert not places["lock_path"].exists(), "a folder proves no commit"
    assert len([path for path in source.rglob("*") if path.is_file()]) == len(hub.files), "what is yours stays"


def test_a_folder_is_checked_against_the_lock(tmp_path: Path, base: Base, hub: Hub, places: dict[str, Any]) -> None:
    pull_base(base, **places)
    source = tmp_path / "stick"
    for path, content in hub.files.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(content + b" " if path.endswith("config.json") else content)
    with pytest.raises(SettingsError, match=r"config\.json: sha256 .* but bases\.lock says"):
        pull_base(base, **(places | {"source": From(source)}), force=True)


def test_a_folder_without_the_files_says_all_that_are_missing(
    tmp_path: Path, base: Base, places: dict[str, Any]
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError) as raised:
        pull_base(base, **(places | {"source": From(tmp_path / "empty")}))
    assert "3 of 3 files" in raised.value.message
    assert f"{tmp_path}/empty/v2/s2G.pth" in raised.value.message
    assert f"https://huggingface.co/{REPOSITORY}/resolve/main/v2/s2G.pth" in raised.value.message


@pytest.fixture
def pinned(tmp_path: Path, base: Base, hub: Hub) -> Base:
    """The same base with a sha256 for each file of its folder, as the official ones have."""
    names = ("config.json", "pytorch_model.bin")
    files = {name: hashlib.sha256(hub.files[f"small-hubert/{name}"]).hexdigest() for name in names}
    content = {**BASE["weights"]["content"], "files": files}
    return write_base(tmp_path, weights={**BASE["weights"], "content": content})


def test_a_folder_whose_files_are_named_is_exactly_those(pinned: Base, hub: Hub, places: dict[str, Any]) -> None:
    pull_base(pinned, **places)
    folder = pinned.weight_path("content", places["cache"])
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert not any("/tree/" in line for line in hub.requests)


def test_another_file_in_such_a_folder_is_refused(pinned: Base, hub: Hub, places: dict[str, Any]) -> None:
    hub.files["small-hubert/config.json"] = b'{"hidden_size": 9}'
    with pytest.raises(SettingsError, match=r"config\.json: sha256 .* but the base says"):
        pull_base(pinned, **places)


def test_what_is_missing_in_such_a_folder_is_told_file_by_file(
    tmp_path: Path, pinned: Base, places: dict[str, Any]
) -> None:
    folder = tmp_path / "given" / "small-hubert"
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b'{"hidden_size": 8}')
    with pytest.raises(SettingsError) as raised:
        pull_base(pinned, **(places | {"source": From(tmp_path / "given")}))
    assert f"https://huggingface.co/{REPOSITORY}/resolve/main/small-hubert/pytorch_model.bin" in raised.value.message
    assert "small-hubert/config.json" not in raised.value.message


@pytest.mark.parametrize("name", [name for name in list_bases() if name.startswith("gpt-sovits")])
def test_every_official_file_is_pinned_to_a_commit_and_to_its_bytes(name: str) -> None:
    for role, file in load_base(name).weights.items():
        assert re.fullmatch("[0-9a-f]{40}", file.revision), role
        for digest in [file.sha256] if file.layout == "upstream" else [*file.files.values()]:
            assert digest is not None and re.fullmatch("[0-9a-f]{64}", digest), role
        assert file.layout == "upstream" or {"config.json", "pytorch_model.bin"} <= set(file.files)


def test_a_damaged_lock_is_named(tmp_path: Path, base: Base, places: dict[str, Any]) -> None:
    places["lock_path"].write_text('{"repositories": {"a/b": {"files": {}}}}')
    with pytest.raises(SettingsError, match=r"bases\.lock: repositories\.a/b\.commit"):
        pull_base(base, **places)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_bases() if name.startswith("gpt-sovits")])
def test_every_official_file_has_a_network_to_be_checked_against(name: str) -> None:
    described = load_base(name)
    roles = [role for role, file in described.weights.items() if file.layout == "upstream"]
    assert {"synthesizer", "text2semantic"} <= set(roles)
    with torch.device("meta"):
        assert all(len(build_network(described, role).state_dict()) > 50 for role in roles)


def test_two_bases_of_one_repository_share_its_commit(base: Base, hub: Hub, places: dict[str, Any]) -> None:
    wanted = [WantedFile("a", REPOSITORY, "v2/s2G.pth"), WantedFile("b", REPOSITORY, "s1=v3.ckpt")]
    files = pull(
        "x", wanted, lock=read_lock(places["lock_path"]), downloads=places["cache"], source=From(endpoint=hub.url)
    )
    assert {file.revision for file in files} == {COMMIT}
    assert sum("/revision/main" in line for line in hub.requests) == 1


def test_the_command_pulls_from_the_endpoint_of_the_environment(
    tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pipeline.toml").write_text('[voxline]\ncache = "kept"\n')
    monkeypatch.chdir(tmp_path)
    assert run_command(["bases", "pull", "small"]) == 0
    assert (tmp_path / "kept" / "bases" / "small" / "synthesizer.safetensors").exists()
    assert (tmp_path / "bases.lock").exists()
    assert "small is ready" in capfd.readouterr().err
    assert run_command(["bases", "pull", "nowhere"]) != 0
