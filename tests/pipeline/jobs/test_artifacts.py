"""Pulling artifacts: the real pip against a folder of wheels, a web server on this machine, folders, damaged bytes."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from pipeline.cli.main import run_command
from pipeline.errors import SettingsError, TransientError
from pipeline.io.artifacts import cache as artifact_cache
from pipeline.io.artifacts.cache import artifact_table, is_pulled
from pipeline.io.artifacts.sources import Download, fetch
from pipeline.io.hub import HUB, From
from pipeline.jobs.artifacts import pull_artifact
from pipeline.records.artifact import Artifact, ArtifactFile, UrlSource

WEIGHTS = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.tensor([1.0, 2.0])}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return buffer.getvalue()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, bytes]], Path]:
    """Puts a wheel where pip looks, and nowhere else; its module would leave a trace if it were ever imported."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")

    def add(package: str, members: dict[str, bytes]) -> Path:
        module, info = package.replace("-", "_"), f"{package.replace('-', '_')}-1.0.dist-info"
        wheel = folder / f"{module}-1.0-py3-none-any.whl"
        files = {
            f"{module}/__init__.py": f"open({str(tmp_path / 'ran')!r}, 'w').close()".encode(),
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            **{f"{module}/{name}": data for name, data in members.items()},
        }
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
            archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD")))
        return wheel

    return add


def package(name: str, member: str) -> dict[str, object]:
    return {"packages": [{"package": name, "version": "1.0", "member": f"{name.replace('-', '_')}/{member}"}]}


def artifact(data: bytes, *sources: dict[str, object], **file: object) -> Artifact:
    one = {"name": "net.bin", "size_bytes": len(data), "sha256": sha256(data), "sources": list(sources), **file}
    fields = {"name": "net", "title": "A net", "purpose": "tests", "license": "MIT", "author": "us", "files": [one]}
    return Artifact.model_validate({**fields, "groups": ["gate"]})


def test_a_pickle_out_of_a_package_becomes_the_same_tensors_and_no_code_runs(tmp_path: Path, index):
    data, kept = pickled({"model": WEIGHTS}), save(WEIGHTS, metadata={"format": "pt"})
    index("some-net", {"net.pt": data})
    rule = {"name": "net.safetensors", "size_bytes": len(kept), "sha256": sha256(kept)}
    one = artifact(data, package("some-net", "net.pt"), layout="pickle", key="model", kept=[rule])
    assert pull_artifact(one, tmp_path / "cache", From())
    folder = tmp_path / "cache" / "artifacts" / "net"
    found = load_file(folder / "net.safetensors")
    assert all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)
    assert sorted(path.name for path in folder.iterdir()) == ["net.safetensors", "pulled.json"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["net"]
    assert not (tmp_path / "ran").exists()
    assert not pull_artifact(one, tmp_path / "cache", From()), "what is here is not fetched again"


def test_parts_of_two_packages_are_joined_and_the_next_source_answers_for_one_that_lies(tmp_path: Path, index):
    index("part-one", {"a": b"first, "})
    index("part-two", {"b": b"second"})
    index("liar", {"net.bin": b"first, sec0nd"})
    parts = {"packages": [*package("part-one", "a")["packages"], *package("part-two", "b")["packages"]]}
    one = artifact(b"first, second", package("liar", "net.bin"), package("absent", "net.bin"), parts)
    pull_artifact(one, tmp_path / "cache", From())
    assert (tmp_path / "cache/artifacts/net/net.bin").read_bytes() == b"first, second"


def test_where_no_source_answers_the_file_its_digest_and_its_place_are_named(tmp_path: Path, index):
    one = artifact(b"weights", package("absent", "net.bin"))
    with pytest.raises(TransientError) as caught:
        pull_artifact(one, tmp_path / "cache", From())
    for part in ("FOLDER/net/net.bin", sha256(b"weights"), "package absent==1.0", "7 bytes"):
        assert part in caught.value.message
    assert not is_pulled(one, tmp_path / "cache")


@pytest.mark.parametrize("place", ["net/net.bin", "net.bin"])
def test_a_folder_is_taken_instead_of_the_network(tmp_path: Path, place: str):
    target = tmp_path / "usb" / place
    target.parent.mkdir(parents=True)
    target.write_bytes(b"weights")
    assert pull_artifact(artifact(b"weights", package("absent", "x")), tmp_path / "cache", From(tmp_path / "usb"))


def test_two_commands_that_pull_at_once_take_turns(tmp_path: Path):
    data = bytes(range(256)) * 40_000
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb" / "net.bin").write_bytes(data)
    wanted = artifact(data, {"url": "https://nowhere.invalid/net.bin"})
    with ThreadPoolExecutor(4) as pool:
        fetched = list(pool.map(lambda _: pull_artifact(wanted, tmp_path / "c", From(tmp_path / "usb")), range(4)))
    assert sorted(fetched) == [False, False, False, True]
    assert is_pulled(wanted, tmp_path / "c")


def test_a_wheel_in_a_folder_will_do_and_an_empty_folder_is_told_what_it_lacks(tmp_path: Path, index):
    wheel = index("some-net", {"net.bin": b"weights"})
    one = artifact(b"weights", package("some-net", "net.bin"))
    assert pull_artifact(one, tmp_path / "cache", From(wheel.parent))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match=r"net\.bin is not there"):
        pull_artifact(one, tmp_path / "other", From(tmp_path / "empty"))


def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    data = pickled({"w": Evil()})
    (tmp_path / "net.bin").write_bytes(data)
    rule = {"name": "net.safetensors", "size_bytes": 9, "sha256": "0" * 64}
    one = artifact(data, package("absent", "x"), layout="pickle", kept=[rule])
    with pytest.raises(SettingsError, match="print"):
        pull_artifact(one, tmp_path / "cache", From(tmp_path))
    assert not (tmp_path / "cache/artifacts/net").exists()


def test_only_named_members_of_an_archive_are_kept_and_a_link_is_none(tmp_path: Path):
    data = tarred({"in/a.onnx": b"graph", "../../escape": b"x"}, {"in/b.onnx": "/etc/passwd"})
    (tmp_path / "net.bin").write_bytes(data)
    rule = {"name": "a.onnx", "member": "in/a.onnx", "size_bytes": 5, "sha256": sha256(b"graph")}
    one = artifact(data, package("absent", "x"), layout="tar", kept=[rule])
    pull_artifact(one, tmp_path / "cache", From(tmp_path))
    names = sorted(path.name for path in (tmp_path / "cache/artifacts/net").iterdir())
    assert names == ["a.onnx", "pulled.json"]
    assert not (tmp_path / "escape").exists()
    bad = artifact(data, package("absent", "x"), layout="tar", kept=[{**rule, "member": "in/b.onnx"}])
    with pytest.raises(SettingsError, match=r"in/b\.onnx is not a file"):
        pull_artifact(bad, tmp_path / "other", From(tmp_path))


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, *arguments, data: bytes, ranges: list[str], **options) -> None:
        self.data, self.ranges = data, ranges
        super().__init__(*arguments, **options)

    def log_message(self, *arguments) -> None:
        pass

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(self.data) - start))
        self.end_headers()
        self.wfile.write(self.data[start:])


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    ranges: list[str] = []
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, data=b"0123456789", ranges=ranges))
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}/net.bin", ranges
    httpd.shutdown()
    thread.join()


def test_an_interrupted_download_goes_on_where_it_stopped_and_a_longer_file_is_cut_short(tmp_path: Path, server):
    url, ranges = server
    file = ArtifactFile(
        name="net.bin", size_bytes=10, sha256=sha256(b"0123456789"), sources=(UrlSource(url="https://x"),)
    )
    (tmp_path / "net.bin.part").write_bytes(b"0123")
    told: list[int] = []
    local = fetch(UrlSource.model_construct(url=url), file, Download(HUB, tmp_path, told.append))
    assert local.read_bytes() == b"0123456789"
    assert ranges == ["bytes=4-"]
    assert sum(told) == 10
    short = file.model_copy(update={"size_bytes": 3})
    assert fetch(UrlSource.model_construct(url=url), short, Download(HUB, tmp_path, told.append)).stat().st_size == 4


def test_plain_http_is_no_source():
    with pytest.raises(ValueError, match="url"):
        UrlSource(url="http://example.org/net.bin")


@pytest.fixture
def pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of one artifact, and a cache that has it."""
    (tmp_path / "net.bin").write_bytes(b"weights")
    one = artifact(b"weights", package("absent", "x"))
    monkeypatch.setattr(artifact_cache, "artifact_table", lambda: {"net": one})
    monkeypatch.setenv("VOXLINE_CACHE", str(tmp_path / "cache"))
    pull_artifact(one, tmp_path / "cache", From(tmp_path))
    return tmp_path / "cache/artifacts/net/net.bin"


def test_a_damaged_file_is_found_named_and_mended(pulled: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert run_command(["artifacts", "verify"]) == 0
    pulled.write_bytes(b"weighty")
    assert run_command(["artifacts", "verify", "gate"]) == 3
    assert "voxline artifacts pull net --force" in capfd.readouterr().err
    assert run_command(["artifacts", "pull", "net", "--from", str(tmp_path)]) == 0
    assert pulled.read_bytes() == b"weights"


def test_an_unknown_name_lists_those_that_are(pulled: Path, capfd: pytest.CaptureFixture[str]):
    assert run_command(["artifacts", "pull", "nett"]) == 3
    assert "there are: net, gate" in capfd.readouterr().err


def test_the_table_is_sound_and_the_gates_part_stays_small():
    table = artifact_table()
    kept = [file for one in table.values() for file in one.in_cache]
    assert all(len({file.name for file in one.in_cache}) == len(one.in_cache) for one in table.values())
    assert all(file.name and file.size_bytes > 1000 for file in kept)
    gate = [one for one in table.values() if "gate" in one.groups]
    assert 0 < sum(one.download_bytes for one in gate) <= 260e6
    assert all(file.sources for one in gate for file in one.files)
