"""A Hub on loopback: the endpoints that huggingface_hub's client uses, kept in memory, with faults on demand.

It does what the Hub does where a client can tell: writing takes a known token that may write, large files go to an
address of their own without the token, a commit takes only large files that are there, their downloads are redirected,
what does not exist says so in X-Error-Code. It does not offer Xet: set HF_HUB_DISABLE_XET=1.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LARGE = (".safetensors", ".png", ".bin", ".pt")
TOKEN = "hf_aB3dE5gH7jK9mN1pQ3sT5vX7zA2cD4fG6h"  # as long as real ones; nobody's
READER = "hf_rEaDeR7jK9mN1pQ3sT5vX7zA2cD4fG6hJk"
Files = dict[str, bytes | str]  # path -> content, or the SHA-256 of a large file


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    status: int = 0  # stays 0 if the connection was cut


@dataclass
class Fault:
    """What to do to the next `times` requests that match, instead of answering.

    Attributes:
        status: the answer; 0 cuts the connection after `after` bytes of the request.
        hold: do not cut, wait: for a client that is to be killed while it sends.
        reached: set as soon as a request was met.
    """

    method: str
    path: str
    times: int = 1
    status: int = 500
    text: str = "made to fail"
    after: int = 0
    hold: bool = False
    reached: threading.Event = field(default_factory=threading.Event)


class Repo:
    """Commits are (id, files); a branch is the id of one."""

    def __init__(self, private: bool):
        self.private, self.commits, self.branches = private, [], {}
        self.commit("main", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})

    def commit(self, branch: str, files: Files) -> str:
        oid = hashlib.sha1(f"{len(self.commits)} {branch} {sorted(files)}".encode()).hexdigest()
        self.commits.append((oid, files))
        self.branches[branch] = oid
        return oid

    def at(self, revision: str) -> tuple[str, Files] | None:
        wanted = self.branches.get(revision, revision)
        return next((commit for commit in self.commits if commit[0] == wanted), None)


class HubServer(ThreadingHTTPServer):
    """`with HubServer() as hub:` serves at hub.url. `tokens` are token -> (user, whether it may write)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.storage_url = f"http://localhost:{self.server_address[1]}/storage"  # to the client another host
        self.tokens = {TOKEN: ("user", True), READER: ("reader", False)}
        self.repos: dict[str, Repo] = {}
        self.storage: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.lock, self.closing = threading.RLock(), threading.Event()

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """A client that was killed while it sent is no error here."""

    def fail(self, method: str, path: str, **how) -> Fault:
        self.faults.append(Fault(method, path, **how))
        return self.faults[-1]

    def met(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == method and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """Path -> content of what is published, without the .gitattributes that every repository starts with."""
        files = {path: self.content(blob) for path, blob in self.repos[repo].at(revision)[1].items()}
        return {path: content for path, content in files.items() if path != ".gitattributes"}

    def content(self, blob: bytes | str) -> bytes:
        return self.storage[blob] if isinstance(blob, str) else blob

    def seen(self, method: str, path: str = "") -> list[Request]:
        return [r for r in self.requests if r.method == method and re.search(path, r.path)]


class Refused(Exception):
    def __init__(self, status: int, text: str, code: str = ""):
        self.status, self.text, self.code = status, text, code


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *args) -> None:
        pass

    def serve(self) -> None:
        path, self.query = unquote(urlsplit(self.path).path), parse_qs(urlsplit(self.path).query)
        self.record = Request(self.command, path, dict(self.headers))
        with self.server.lock:
            self.server.requests.append(self.record)
            fault = self.server.met(self.command, path)
        if fault is not None and fault.status == 0:
            self.rfile.read(min(fault.after, int(self.headers.get("Content-Length") or 0)))
            fault.reached.set()
            if fault.hold:
                self.server.closing.wait(120)
            self.close_connection = True
            return
        self.body = self.read_body()
        if fault is not None:
            fault.reached.set()
            return self.answer(fault.status, {"error": fault.text}, {"X-Error-Message": fault.text})
        try:
            for method, pattern, route in ROUTES:
                found = re.fullmatch(pattern, path)
                if found and self.command in method.split():
                    with self.server.lock:
                        self.user = self.known_user()
                        return route(self, **found.groupdict())
            raise Refused(404, f"no such address: {self.command} {path}")
        except Refused as no:
            self.answer(no.status, {"error": no.text}, {"X-Error-Message": no.text, "X-Error-Code": no.code})

    do_GET = do_HEAD = do_POST = do_PUT = serve

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while length := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(length))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, status: int, value=None, headers: dict | None = None, content: bytes | None = None) -> None:
        body = json.dumps(value).encode() if content is None else content
        self.record.status = status
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_file(self, content: bytes, headers: dict) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return self.answer(200, headers={"Accept-Ranges": "bytes", **headers}, content=content)
        start, end = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
        span = {"Content-Range": f"bytes {start}-{end}/{len(content)}", **headers}
        self.answer(206, headers=span, content=content[start : end + 1])

    # ---- who may do what ---------------------------------------------------------------------------
    def known_user(self) -> tuple[str, bool] | None:
        given = self.headers.get("Authorization")
        if given is None:
            return None
        if given.removeprefix("Bearer ") not in self.server.tokens:
            raise Refused(401, "Invalid username or password.")
        return self.server.tokens[given.removeprefix("Bearer ")]

    def writer(self, namespace: str) -> str:
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        if self.user != (namespace, True):
            raise Refused(403, f"You don't have the required permissions to write to {namespace}.")
        return self.user[0]

    def repo(self, name: str) -> Repo:
        repo = self.server.repos.get(name)
        if repo is None or (repo.private and (self.user is None or self.user[0] != name.split("/")[0])):
            raise Refused(401 if self.user is None else 404, "Repository not found", "RepoNotFound")
        return repo

    def written(self, name: str) -> Repo:
        repo = self.repo(name)
        self.writer(name.split("/")[0])
        return repo

    def commit(self, repo: str, revision: str) -> tuple[str, Files]:
        found = self.repo(repo).at(revision)
        if found is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found


# ---- account and repositories --------------------------------------------------------------------------
def whoami(self: Handler) -> None:
    if self.user is None:
        raise Refused(401, "Invalid username or password.")
    self.answer(200, {"type": "user", "name": self.user[0], "auth": {"type": "access_token"}})


def create(self: Handler) -> None:
    asked = json.loads(self.body)
    namespace = asked.get("organization") or (self.user or ("", False))[0]
    name = f"{self.writer(namespace)}/{asked['name']}"
    place = {"url": f"{self.server.url}/{name}", "name": name}
    if name in self.server.repos:
        return self.answer(409, {"error": "You already created this model repo", **place})
    self.server.repos[name] = Repo(asked.get("visibility") == "private")
    self.answer(200, place)


def branch(self: Handler, repo: str, name: str) -> None:
    branches = self.written(repo).branches
    if name in branches:
        raise Refused(409, f"Reference already exists: {name}")
    branches[name] = branches["main"]
    self.answer(200, {})


def check_card(self: Handler) -> None:
    found = re.match(r"---\n(.*?)\n---\n", json.loads(self.body)["content"], re.S)
    try:
        data = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        return self.answer(400, {"errors": [{"message": str(error)}], "warnings": []})
    errors = [] if isinstance(data, dict) else [{"message": "the front matter is not a mapping"}]
    self.answer(400 if errors else 200, {"errors": errors, "warnings": []})


def info(self: Handler, repo: str, revision: str | None = None) -> None:
    oid, files = self.commit(repo, revision or "main")
    listed = [{"rfilename": path} for path in files]
    private = self.server.repos[repo].private
    self.answer(200, {"id": repo, "modelId": repo, "sha": oid, "private": private, "tags": [], "siblings": listed})


def described(path: str, blob: bytes | str, server: HubServer) -> dict:
    content = server.content(blob)
    entry = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
    return (
        {**entry, "lfs": {"oid": blob, "size": len(content), "pointerSize": 134}} if isinstance(blob, str) else entry
    )


def tree(self: Handler, repo: str, revision: str, folder: str | None = None) -> None:
    _, files = self.commit(repo, revision)
    below = f"{folder}/" if folder else ""
    inside = {path: blob for path, blob in files.items() if path.startswith(below)}
    if folder and not inside:
        raise Refused(404, f"{folder} does not exist", "EntryNotFound")
    folders = {path[: path.index("/", len(below))] for path in inside if "/" in path[len(below) :]}
    if self.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
        inside = {path: blob for path, blob in inside.items() if "/" not in path[len(below) :]}
    listed = [{"type": "directory", "path": path, "oid": git_hash(path.encode()), "size": 0} for path in folders]
    self.answer(200, listed + [described(path, blob, self.server) for path, blob in inside.items()])


def paths_info(self: Handler, repo: str, revision: str) -> None:
    _, files = self.commit(repo, revision)
    if self.headers["Content-Type"] == "application/json":
        paths = json.loads(self.body)["paths"]
    else:
        paths = parse_qs(self.body.decode())["paths"]
    self.answer(200, [described(path, files[path], self.server) for path in paths if path in files])


# ---- uploads -------------------------------------------------------------------------------------------
def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def preupload(self: Handler, repo: str, revision: str) -> None:
    self.written(repo)
    _, files = self.commit(repo, revision)
    asked = json.loads(self.body)
    ignored = asked.get("gitIgnore") or self.server.content(files.get(".gitignore", b"")).decode()
    answers = []
    for file in asked["files"]:
        path, blob = file["path"], files.get(file["path"])
        answer = {"path": path, "uploadMode": "lfs" if path.endswith(LARGE) else "regular"}
        answer["shouldIgnore"] = any(fnmatch(path, pattern) for pattern in ignored.split())
        if blob is not None:
            answer["oid"] = blob if isinstance(blob, str) else git_hash(blob)
        answers.append(answer)
    self.answer(200, {"files": answers})


def batch(self: Handler, repo: str) -> None:
    self.written(repo)
    answers = []
    for thing in json.loads(self.body)["objects"]:
        if thing["oid"] not in self.server.storage:
            upload = {"href": f"{self.server.storage_url}/{thing['oid']}?X-Amz-Signature=0"}
            verify = {"href": f"{self.server.url}/{repo}.git/info/lfs/objects/verify"}
            thing = {**thing, "actions": {"upload": upload, "verify": verify}}
        answers.append(thing)
    self.answer(200, {"transfer": "basic", "objects": answers})


def store(self: Handler, oid: str) -> None:
    if hashlib.sha256(self.body).hexdigest() != oid:
        raise Refused(400, "the content is not what was announced")
    self.server.storage[oid] = self.body
    self.answer(200, content=b"")


def verify(self: Handler, repo: str) -> None:
    self.written(repo)
    thing = json.loads(self.body)
    if len(self.server.storage.get(thing["oid"], b"")) != thing["size"]:
        raise Refused(404, "not in storage")
    self.answer(200, {})


def commit(self: Handler, repo: str, revision: str) -> None:
    changed = self.written(repo)
    files = dict(self.commit(repo, revision)[1])
    for line in self.body.splitlines():
        entry = json.loads(line)
        value = entry["value"]
        if entry["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif entry["key"] == "lfsFile":
            if value["oid"] not in self.server.storage:
                raise Refused(400, f"{value['path']} was not uploaded")
            files[value["path"]] = value["oid"]
        elif entry["key"] == "deletedFile":
            del files[value["path"]]
    oid = changed.commit(revision, files)
    self.answer(200, {"success": True, "commitOid": oid, "commitUrl": f"{self.server.url}/{repo}/commit/{oid}"})


# ---- downloads -----------------------------------------------------------------------------------------
def resolve(self: Handler, repo: str, revision: str, path: str) -> None:
    oid, files = self.commit(repo, revision)
    if path not in files:
        raise Refused(404, f"{path} does not exist", "EntryNotFound")
    blob, headers = files[path], {"X-Repo-Commit": oid}
    if isinstance(blob, bytes):
        return self.answer_file(blob, {"ETag": f'"{git_hash(blob)}"', **headers})
    headers |= {"X-Linked-Size": str(len(self.server.content(blob))), "X-Linked-ETag": f'"{blob}"'}
    self.answer(302, {}, {"Location": f"{self.server.storage_url}/{blob}", **headers})


def stored(self: Handler, oid: str) -> None:
    self.answer_file(self.server.storage[oid], {"ETag": f'"{oid}"', "Content-Type": "binary/octet-stream"})


REPO, REVISION = r"(?P<repo>[\w.-]+/[\w.-]+)", r"(?P<revision>[^/]+)"
MODEL = f"/api/models/{REPO}"
ROUTES = [
    ("GET", "/api/whoami-v2", whoami),
    ("POST", "/api/repos/create", create),
    ("POST", "/api/validate-yaml", check_card),
    ("POST", f"{MODEL}/branch/(?P<name>.+)", branch),
    ("POST", f"{MODEL}/preupload/{REVISION}", preupload),
    ("POST", f"{MODEL}/commit/{REVISION}", commit),
    ("POST", f"{MODEL}/paths-info/{REVISION}", paths_info),
    ("GET", f"{MODEL}/tree/{REVISION}(/(?P<folder>.+))?", tree),
    ("GET", f"{MODEL}(/revision/{REVISION})?", info),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", batch),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/verify", verify),
    ("PUT", "/storage/(?P<oid>[0-9a-f]{64})", store),
    ("GET HEAD", "/storage/(?P<oid>[0-9a-f]{64})", stored),
    ("GET HEAD", f"/{REPO}/resolve/{REVISION}/(?P<path>.+)", resolve),
]
