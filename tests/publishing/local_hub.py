"""A Hub on this machine: the part of the Hugging Face Hub's HTTP API that its own clients use for datasets and models.

Repositories, commits with parents, branches, tags, regular and LFS uploads, file trees, ranged downloads, tokens with
roles, the card check, and faults on demand. It serves ``huggingface_hub``, ``datasets`` and ``transformers`` unchanged,
in processes started with ``LocalHub.environment``. What it does not have is Xet storage, so clients run with it
switched off.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.publishing.hub_card import card_problems

WRITER, READER = "hf_localwriter0000", "hf_localreader0000"
ROLES = {WRITER: "write", READER: "read"}
_LARGE = (".parquet", ".png", ".safetensors")


@dataclass(frozen=True)
class Blob:
    """A file version: ``digest`` is the sha256 of its bytes, ``oid`` what git calls it."""

    digest: str
    size: int
    oid: str
    lfs: bool


@dataclass
class Commit:
    oid: str
    message: str
    tree: dict[str, Blob]


@dataclass
class Repository:
    name: str
    private: bool
    commits: list[Commit]
    branches: dict[str, str]
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, revision: str) -> Commit | None:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        return next((commit for commit in self.commits if commit.oid == oid), None)


@dataclass(frozen=True)
class Served:
    """One answered request. ``received`` and ``sent`` count body bytes."""

    method: str
    path: str
    status: int
    received: int
    sent: int
    range: str | None


@dataclass
class Fault:
    """What happens to requests ``method path`` that match ``pattern``, for the next ``times`` of them.

    ``status`` answers with that error; ``drop`` closes the connection before anything is done, ``lose`` after it is
    done, ``cut`` in the middle of the request's body; ``call`` runs and then lets the request through.
    """

    pattern: str
    kind: str
    times: int = 1
    status: int = 503
    call: Callable[[], object] | None = None


class Refusal(Exception):
    """An error answer of the Hub's API."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class LocalHub:
    """The server's state. Use as a context manager: ``with LocalHub(folder) as hub``."""

    def __init__(self, folder: Path) -> None:
        self.objects = folder / "objects"
        self.objects.mkdir(parents=True)
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.served: list[Served] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> LocalHub:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path, token: str | None = WRITER) -> dict[str, str]:
        """Variables with which a process sees this server as the Hub and keeps its caches under ``home``."""
        variables = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        return variables | ({"HF_TOKEN": token} if token else {})

    @contextmanager
    def fault(self, pattern: str, kind: str, **settings: Any) -> Iterator[Fault]:
        """Faults while the block runs."""
        fault = Fault(pattern, kind, **settings)
        self.faults.append(fault)
        try:
            yield fault
        finally:
            self.faults.remove(fault)

    def take_fault(self, request: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None

    def repository(self, name: str, kind: str = "dataset") -> Repository:
        if (kind, name) not in self.repositories:
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return self.repositories[kind, name]

    def create(self, name: str, private: bool, kind: str = "dataset") -> Repository:
        attributes = self.store("".join(f"*{end} filter=lfs diff=lfs merge=lfs -text\n" for end in _LARGE).encode())
        commit = Commit(_oid(kind, name, "initial"), "initial commit", {".gitattributes": attributes})
        self.repositories[kind, name] = Repository(name, private, [commit], {"main": commit.oid})
        return self.repositories[kind, name]

    def store(self, data: bytes) -> Blob:
        """Keep a regular file."""
        digest = hashlib.sha256(data).hexdigest()
        (self.objects / digest).write_bytes(data)
        return Blob(digest, len(data), hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(), lfs=False)

    def bytes_sent(self, pattern: str) -> int:
        """Body bytes sent in answer to GET requests whose path matches."""
        return sum(item.sent for item in self.served if item.method == "GET" and re.search(pattern, item.path))


def _oid(*parts: object) -> str:
    return hashlib.sha1(repr(parts).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Requests are kept in ``hub.served`` instead of printed."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.query = parse_qs(url.query)
        fault = self.hub.take_fault(f"{self.command} {path}")
        if fault and fault.kind == "drop":
            return self._hang_up()
        length = int(self.headers.get("Content-Length", 0))
        if fault and fault.kind == "cut":
            self.rfile.read(length // 2)
            return self._hang_up()
        self.body = self.rfile.read(length)
        if fault and fault.call:
            fault.call()
        try:
            if fault and fault.kind == "status":
                raise Refusal(fault.status, "refused on demand")
            for method, pattern, handle in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method.split("|"):
                    arguments = match.groupdict()
                    self.kind = "dataset" if arguments.pop("kind", None) == "datasets/" else "model"
                    handle(self, **arguments)
                    break
            else:
                raise Refusal(404, f"no such endpoint: {self.command} {path}")
            status, headers, body = self.reply
        except Refusal as refusal:
            status, body = refusal.status, json.dumps({"error": str(refusal)}).encode()
            headers = {"X-Error-Message": str(refusal), "Content-Type": "application/json"}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
        if fault and fault.kind == "lose":
            return self._hang_up()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        sent = 0 if self.command == "HEAD" else len(body)
        self.hub.served.append(Served(self.command, path, status, length, sent, self.headers.get("Range")))
        if sent:
            self.wfile.write(body)
        return None

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _json(self, value: Any, status: int = 200) -> None:
        self.reply = (status, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _role(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in ROLES:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return ROLES.get(token)

    def _readable(self, repo: str) -> Repository:
        role = self._role()
        repository = self.hub.repository(repo, self.kind)
        if repository.private and role is None:
            raise Refusal(401, "Repository not found", "RepoNotFound")
        return repository

    def _writable(self, repo: str) -> Repository:
        self._writer()
        return self.hub.repository(repo, self.kind)

    def _writer(self) -> None:
        role = self._role()
        if role is None:
            raise Refusal(401, "Invalid username or password.")
        if role != "write":
            raise Refusal(403, "You don't have the rights to write to this repository")

    def _commit(self, repository: Repository, revision: str) -> Commit:
        commit = repository.commit(revision)
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def who_am_i(self) -> None:
        if self._role() is None:
            raise Refusal(401, "Invalid username or password.")
        self._json({"type": "user", "name": "local", "orgs": [], "auth": {"accessToken": {"role": self._role()}}})

    def create(self) -> None:
        self._writer()
        wanted = json.loads(self.body)
        name = f"{wanted.get('organization') or 'local'}/{wanted['name']}"
        self.kind = wanted.get("type", "model")
        with self.hub.lock:
            exists = (self.kind, name) in self.hub.repositories
            if not exists:
                self.hub.create(name, wanted.get("private") or wanted.get("visibility") == "private", self.kind)
        answer = {"url": self._address(name), "name": name, "id": name}
        self._json(
            answer | ({"error": f"You already created this {self.kind} repo"} if exists else {}), 409 if exists else 200
        )

    def _address(self, repo: str) -> str:
        return f"{self.hub.url}/{'datasets/' if self.kind == 'dataset' else ''}{repo}"

    def check_card(self) -> None:
        problems = card_problems(json.loads(self.body)["content"])
        answer = {"errors": [{"message": problem} for problem in problems], "warnings": []}
        self._json(answer, 400 if problems else 200)

    def preupload(self, repo: str, revision: str) -> None:
        repository = self._writable(repo)
        tree = self._commit(repository, revision).tree
        files = []
        for file in json.loads(self.body)["files"]:
            current = tree.get(file["path"])
            mode = "lfs" if file["path"].endswith(_LARGE) else "regular"
            oid = (current.digest if current.lfs else current.oid) if current else None
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": files})

    def lfs_batch(self, repo: str) -> None:
        self._writable(repo)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            href = f"{self.hub.url}/lfs/{repo}/{wanted['oid']}"
            stored = (self.hub.objects / wanted["oid"]).exists()
            actions = {"actions": {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}}
            objects.append(wanted if stored else wanted | actions)
        self._json({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(422, "content does not match its digest")
        temporary = self.hub.objects / f"{oid}.{threading.get_ident()}"
        temporary.write_bytes(self.body)
        temporary.replace(self.hub.objects / oid)
        self._json({})

    def lfs_verify(self, oid: str) -> None:
        if not (self.hub.objects / oid).exists():
            raise Refusal(404, "object not found")
        self._json({})

    def commit(self, repo: str, revision: str) -> None:
        repository = self._writable(repo)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        with self.hub.lock:
            if revision not in repository.branches:
                raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            head = repository.branches[revision]
            if header.get("parentCommit", head) != head:
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            tree = dict(self._commit(repository, head).tree)
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    tree[value["path"]] = self.hub.store(base64.b64decode(value["content"]))
                elif line["key"] == "lfsFile":
                    if not (self.hub.objects / value["oid"]).exists():
                        raise Refusal(400, f"LFS object of {value['path']} was not uploaded")
                    size = (self.hub.objects / value["oid"]).stat().st_size
                    tree[value["path"]] = Blob(value["oid"], size, _oid(value["oid"]), lfs=True)
                elif line["key"] == "deletedFile":
                    del tree[value["path"]]
            commit = Commit(_oid(head, header["summary"], sorted(tree.items())), header["summary"], tree)
            repository.commits.append(commit)
            repository.branches[revision] = commit.oid
        url = f"{self._address(repo)}/commit/{commit.oid}"
        self._json({"success": True, "commitUrl": url, "commitOid": commit.oid, "hookOutput": ""})

    def info(self, repo: str, revision: str = "main") -> None:
        repository = self._readable(repo)
        commit = self._commit(repository, revision)
        self._json(
            {
                "_id": _oid(repo)[:24],
                "id": repo,
                "author": repo.split("/")[0],
                "sha": commit.oid,
                "lastModified": "2026-01-01T00:00:00.000Z",
                "private": repository.private,
                "gated": False,
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": path} for path in sorted(commit.tree)],
            }
        )

    def refs(self, repo: str) -> None:
        repository = self._readable(repo)
        self._json(
            {
                kind: [{"name": name, "ref": f"refs/{short}/{name}", "targetCommit": oid} for name, oid in refs.items()]
                for kind, short, refs in (("branches", "heads", repository.branches), ("tags", "tags", repository.tags))
            }
            | {"converts": []}
        )

    def branch(self, repo: str, name: str) -> None:
        repository = self._writable(repo)
        if name in repository.branches:
            raise Refusal(409, "Reference already exists")
        repository.branches[name] = json.loads(self.body or b"{}").get("startingPoint") or repository.branches["main"]
        self._json({})

    def tag(self, repo: str, revision: str) -> None:
        repository = self._writable(repo)
        name = json.loads(self.body)["tag"]
        if name in repository.tags:
            raise Refusal(409, "Tag reference exists already")
        repository.tags[name] = self._commit(repository, revision).oid
        self._json({})

    def tree(self, repo: str, revision: str, folder: str = "") -> None:
        tree = self._commit(self._readable(repo), revision).tree
        prefix = f"{folder}/" if folder else ""
        inside = {path: blob for path, blob in tree.items() if path.startswith(prefix)}
        if folder and not inside:
            raise Refusal(404, f"{folder} does not exist", "EntryNotFound")
        recursive = self.query.get("recursive", ["false"])[0].lower() == "true"
        items: dict[str, dict[str, Any]] = {}
        for path, blob in sorted(inside.items()):
            parts = path[len(prefix) :].split("/")
            for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                name = prefix + "/".join(parts[:depth])
                items[name] = {"type": "directory", "path": name, "oid": _oid(name), "size": 0}
            if recursive or len(parts) == 1:
                items[path] = _listed(path, blob)
        self._json(list(items.values()))

    def paths_info(self, repo: str, revision: str) -> None:
        tree = self._commit(self._readable(repo), revision).tree
        wanted = json.loads(self.body)["paths"]
        self._json([_listed(path, tree[path]) for path in wanted if path in tree])

    def resolve(self, repo: str, revision: str, path: str) -> None:
        commit = self._commit(self._readable(repo), revision)
        if path not in commit.tree:
            raise Refusal(404, f"{path} does not exist", "EntryNotFound")
        blob = commit.tree[path]
        headers = {
            "ETag": f'"{blob.digest if blob.lfs else blob.oid}"',
            "X-Repo-Commit": commit.oid,
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(wanted[1]) if wanted else 0
        last = min(int(wanted[2]), blob.size - 1) if wanted and wanted[2] else blob.size - 1
        if first > last and blob.size:
            raise Refusal(416, "Requested range not satisfiable")
        if self.command == "HEAD":
            self.reply = (200, headers | {"Content-Length": str(blob.size)}, b"")
            return
        with (self.hub.objects / blob.digest).open("rb") as file:
            file.seek(first)
            data = file.read(last - first + 1)
        if wanted:
            headers["Content-Range"] = f"bytes {first}-{last}/{blob.size}"
        self.reply = (206 if wanted else 200, headers, data)


def _listed(path: str, blob: Blob) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": blob.size, "oid": blob.oid}
    return entry | ({"lfs": {"oid": blob.digest, "size": blob.size, "pointerSize": 134}} if blob.lfs else {})


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_API = f"/api/(?P<kind>datasets/|models/){_REPO}"
_FILES = f"/(?P<kind>datasets/)?{_REPO}"
_REV = r"(?P<revision>[^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", "/api/whoami-v2", _Handler.who_am_i),
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.check_card),
    ("POST", f"{_API}/preupload/{_REV}", _Handler.preupload),
    ("POST", f"{_FILES}.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", "/lfs/.+/(?P<oid>[0-9a-f]+)", _Handler.lfs_put),
    ("POST", "/lfs/.+/(?P<oid>[0-9a-f]+)/verify", _Handler.lfs_verify),
    ("POST", f"{_API}/commit/{_REV}", _Handler.commit),
    ("POST", f"{_API}/branch/(?P<name>.+)", _Handler.branch),
    ("POST", f"{_API}/tag/{_REV}", _Handler.tag),
    ("GET", f"{_API}/refs", _Handler.refs),
    ("GET", f"{_API}/tree/{_REV}", _Handler.tree),
    ("GET", f"{_API}/tree/{_REV}/(?P<folder>.+)", _Handler.tree),
    ("POST", f"{_API}/paths-info/{_REV}", _Handler.paths_info),
    ("GET", f"{_API}/revision/{_REV}", _Handler.info),
    ("GET", _API, _Handler.info),
    ("GET|HEAD", f"{_FILES}/resolve/{_REV}/(?P<path>.+)", _Handler.resolve),
]
