"""A double of the Hugging Face Hub that takes uploads: repositories, commits with parents, LFS, tags, and branches."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from faulty_proxy import read_body, served

LARGE = 1500  # files above go by LFS, as everything but text does there
READ, WRITE = "hf_reads", "hf_writes"


@dataclass
class Repository:
    """Commits by id: path -> content. ``refs``: branches and tags."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        told = json.dumps([len(self.commits), {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}])
        commit = hashlib.sha1(told.encode()).hexdigest()
        self.commits[commit] = files
        self.branches["main"] = commit
        return commit

    def at(self, revision: str) -> str | None:
        found = self.branches.get(revision) or self.tags.get(revision) or revision
        return found if found in self.commits else None


@dataclass
class Hub:
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Refused(Exception):
    def __init__(self, status: int, code: str = "", told: str = "") -> None:
        super().__init__(told)
        self.status, self.code, self.told = status, code, told


@contextmanager
def hub_server() -> Iterator[tuple[Hub, str, int]]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def respond(self) -> None:
            self.body = read_body(self)
            try:
                with hub.lock:
                    status, headers, content = self.route()
            except Refused as refusal:
                told = json.dumps({"error": refusal.told}).encode()
                status, headers, content = refusal.status, {"X-Error-Code": refusal.code} if refusal.code else {}, told
                headers["X-Error-Message"] = refusal.told
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = respond

        def route(self) -> tuple[int, dict[str, str], bytes]:
            asked = urlsplit(self.path)
            path, query = unquote(asked.path), parse_qs(asked.query)
            for method, pattern, act in ROUTES:
                if self.command == method and (found := re.fullmatch(pattern, path)):
                    return act(self, query, *found.groups())
            raise Refused(404, "EntryNotFound", f"no {self.command} {path} here")

        def token(self) -> str:
            return self.headers.get("Authorization", "").removeprefix("Bearer ")

        def json(self, told: Any, status: int = 200) -> tuple[int, dict[str, str], bytes]:
            return status, {"Content-Type": "application/json"}, json.dumps(told).encode()

        def repository(self, name: str, *, write: bool = False) -> Repository:
            found = hub.repositories.get(name)
            if found is None or (found.private and self.token() not in (READ, WRITE)):
                raise Refused(404 if self.token() in (READ, WRITE) else 401, "RepoNotFound", "Repository not found")
            if write and self.token() != WRITE:
                raise Refused(403, told="this token has no right to write")
            return found

        # What is asked

        def create(self, query: Any) -> Any:
            if self.token() != WRITE:
                raise Refused(403 if self.token() == READ else 401, told="this token has no right to create")
            told = json.loads(self.body)
            name = f"{told['organization']}/{told['name']}"
            if name in hub.repositories:
                return self.json(
                    {"url": f"http://127.0.0.1/{name}", "error": "You already created this model repo"}, 409
                )
            hub.repositories[name] = Repository(told.get("visibility") == "private")
            hub.repositories[name].commit({".gitattributes": b""})
            return self.json({"url": f"http://127.0.0.1/{name}"})

        def info(self, query: Any, name: str, revision: str | None = None) -> Any:
            found = self.repository(name)
            commit = found.at(revision or "main")
            files = found.commits[commit or found.branches["main"]]
            told = {"id": name, "modelId": name, "sha": commit, "private": found.private, "tags": [], "downloads": 0}
            return self.json({**told, "likes": 0, "siblings": [{"rfilename": path} for path in files]})

        def list(self, query: Any) -> Any:
            listed = []
            for name, found in sorted(hub.repositories.items()):
                if not name.startswith(f"{query['author'][0]}/") or (
                    found.private and self.token() not in (READ, WRITE)
                ):
                    continue
                header = re.match(
                    rb"---\n(.*?)\n---", found.commits[found.branches["main"]].get("README.md", b""), re.S
                )
                if header and re.search(rf"\b{query['filter'][0]}\b".encode(), header[1]):
                    listed.append({"id": name, "sha": found.branches["main"], "private": found.private})
            return self.json(listed)

        def validate(self, query: Any) -> Any:
            told = json.loads(self.body)
            yaml.safe_load(told["content"].split("---")[1])
            return self.json({"errors": [], "warnings": []})

        def preupload(self, query: Any, name: str, revision: str) -> Any:
            self.repository(name, write=True)
            told = json.loads(self.body)["files"]
            return self.json(
                {
                    "files": [
                        {
                            "path": one["path"],
                            "uploadMode": "lfs"
                            if one["size"] > LARGE and not one["path"].endswith("json")
                            else "regular",
                            "shouldIgnore": False,
                        }
                        for one in told
                    ]
                }
            )

        def batch(self, query: Any, name: str) -> Any:
            self.repository(name, write=True)
            host = self.headers["Host"]
            objects = []
            for one in json.loads(self.body)["objects"]:
                told = {"oid": one["oid"], "size": one["size"]}
                if one["oid"] not in hub.large:
                    told["actions"] = {"upload": {"href": f"http://{host}/large/{one['oid']}"}}
                objects.append(told)
            return self.json({"transfer": "basic", "objects": objects})

        def keep(self, query: Any, oid: str) -> Any:
            if hashlib.sha256(self.body).hexdigest() != oid:
                raise Refused(400, told="not what was announced")
            hub.large[oid] = self.body
            return 200, {}, b""

        def commit(self, query: Any, name: str, revision: str) -> Any:
            found = self.repository(name, write=True)
            lines = [json.loads(line) for line in self.body.splitlines()]
            files = dict(found.commits[found.branches["main"]])
            for line in lines:
                value = line["value"]
                if line["key"] == "header":
                    if value.get("parentCommit") not in (None, found.branches["main"]):
                        raise Refused(412, told="A commit has happened since. Please refresh and try again.")
                elif line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.large[value["oid"]]
                elif line["key"] == "deletedFolder":
                    files = {path: data for path, data in files.items() if not path.startswith(value["path"])}
            oid = found.commit(files)
            return self.json({"commitUrl": f"http://127.0.0.1/{name}/commit/{oid}", "commitOid": oid})

        def tag(self, query: Any, name: str, revision: str) -> Any:
            found, told = self.repository(name, write=True), json.loads(self.body)["tag"]
            commit = found.at(revision)
            if told in found.tags or commit is None:
                raise Refused(409 if commit else 404, told="tag exists already")
            found.tags[told] = commit
            return 200, {}, b""

        def branch(self, query: Any, name: str, branch: str) -> Any:
            found = self.repository(name, write=True)
            commit = found.at(json.loads(self.body).get("startingPoint") or "main")
            if branch in found.branches or commit is None:
                raise Refused(409 if commit else 404, told="branch exists already")
            found.branches[branch] = commit
            return 200, {}, b""

        def drop(self, query: Any, name: str, kind: str, ref: str) -> Any:
            found = self.repository(name, write=True)
            if (found.branches if kind == "branch" else found.tags).pop(ref, None) is None:
                raise Refused(404, "RevisionNotFound", f"no such {kind}")
            return 200, {}, b""

        def resolve(self, query: Any, name: str, revision: str, path: str) -> Any:
            found = self.repository(name)
            commit = found.at(revision)
            content = found.commits[commit].get(path) if commit else None
            if content is None:
                raise Refused(404, "EntryNotFound", f"no {path}")
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit}
            if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
                start = int(asked[1])
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                return 206, headers, content[start:]
            return 200, headers, content

    name = r"([\w.-]+/[\w.-]+)"
    ROUTES = [
        ("POST", "/api/repos/create", Handler.create),
        ("GET", "/api/models", Handler.list),
        ("GET", f"/api/models/{name}", Handler.info),
        ("GET", f"/api/models/{name}/revision/([^/]+)", Handler.info),
        ("POST", "/api/validate-yaml", Handler.validate),
        ("POST", f"/api/models/{name}/preupload/([^/]+)", Handler.preupload),
        ("POST", r"/([\w.-]+/[\w-]+)\.git/info/lfs/objects/batch", Handler.batch),
        ("PUT", "/large/([0-9a-f]{64})", Handler.keep),
        ("POST", f"/api/models/{name}/commit/([^/]+)", Handler.commit),
        ("POST", f"/api/models/{name}/tag/([^/]+)", Handler.tag),
        ("POST", f"/api/models/{name}/branch/([^/]+)", Handler.branch),
        ("DELETE", f"/api/models/{name}/(branch|tag)/([^/]+)", Handler.drop),
        *((method, f"/{name}/resolve/([^/]+)/(.+)", Handler.resolve) for method in ("GET", "HEAD")),
    ]
    with served(Handler) as (url, port):
        yield hub, url, port
