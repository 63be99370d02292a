"""A Hub on loopback: the endpoints that huggingface_hub's client uses, kept in memory, with faults on demand.

It does what the Hub does where a client can tell: writing takes a known token that may write, large files go to an
address of their own without the token, a commit takes only large files that are there, their downloads are redirected,
what does not exist says so in X-Error-Code. It does not offer Xet: set HF_HUB_DISABLE_XET=1.
"""

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from hub_routes import ROUTES, Files, Refused, Repo

TOKEN = "hf_" + "aB3dE5gH7jK9mN1pQ3sT5vX7zA2cD4fG6h"  # as long as real ones; nobody's
READER = "hf_" + "rEaDeR7jK9mN1pQ3sT5vX7zA2cD4fG6hJk"


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
