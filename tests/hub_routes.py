"""What the Hub on loopback answers: account and repositories, uploads, downloads. See `hub_server`."""

import base64
import hashlib
import json
import re
from fnmatch import fnmatch
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import yaml

if TYPE_CHECKING:
    from hub_server import Handler, HubServer

LARGE = (".safetensors", ".png", ".bin", ".pt")
Files = dict[str, bytes | str]  # path -> content, or the SHA-256 of a large file


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


class Refused(Exception):
    def __init__(self, status: int, text: str, code: str = ""):
        self.status, self.text, self.code = status, text, code


# ---- account and repositories --------------------------------------------------------------------------
def whoami(self: "Handler") -> None:
    if self.user is None:
        raise Refused(401, "Invalid username or password.")
    self.answer(200, {"type": "user", "name": self.user[0], "auth": {"type": "access_token"}})


def create(self: "Handler") -> None:
    asked = json.loads(self.body)
    namespace = asked.get("organization") or (self.user or ("", False))[0]
    name = f"{self.writer(namespace)}/{asked['name']}"
    place = {"url": f"{self.server.url}/{name}", "name": name}
    if name in self.server.repos:
        return self.answer(409, {"error": "You already created this model repo", **place})
    self.server.repos[name] = Repo(asked.get("visibility") == "private")
    self.answer(200, place)


def branch(self: "Handler", repo: str, name: str) -> None:
    branches = self.written(repo).branches
    if name in branches:
        raise Refused(409, f"Reference already exists: {name}")
    branches[name] = branches["main"]
    self.answer(200, {})


def check_card(self: "Handler") -> None:
    found = re.match(r"---\n(.*?)\n---\n", json.loads(self.body)["content"], re.S)
    try:
        data = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        return self.answer(400, {"errors": [{"message": str(error)}], "warnings": []})
    errors = [] if isinstance(data, dict) else [{"message": "the front matter is not a mapping"}]
    self.answer(400 if errors else 200, {"errors": errors, "warnings": []})


def info(self: "Handler", repo: str, revision: str | None = None) -> None:
    oid, files = self.commit(repo, revision or "main")
    listed = [{"rfilename": path} for path in files]
    private = self.server.repos[repo].private
    self.answer(200, {"id": repo, "modelId": repo, "sha": oid, "private": private, "tags": [], "siblings": listed})


def described(path: str, blob: bytes | str, server: "HubServer") -> dict:
    content = server.content(blob)
    entry = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
    return (
        {**entry, "lfs": {"oid": blob, "size": len(content), "pointerSize": 134}} if isinstance(blob, str) else entry
    )


def tree(self: "Handler", repo: str, revision: str, folder: str | None = None) -> None:
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


def paths_info(self: "Handler", repo: str, revision: str) -> None:
    _, files = self.commit(repo, revision)
    if self.headers["Content-Type"] == "application/json":
        paths = json.loads(self.body)["paths"]
    else:
        paths = parse_qs(self.body.decode())["paths"]
    self.answer(200, [described(path, files[path], self.server) for path in paths if path in files])


# ---- uploads -------------------------------------------------------------------------------------------
def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def preupload(self: "Handler", repo: str, revision: str) -> None:
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


def batch(self: "Handler", repo: str) -> None:
    self.written(repo)
    answers = []
    for thing in json.loads(self.body)["objects"]:
        if thing["oid"] not in self.server.storage:
            upload = {"href": f"{self.server.storage_url}/{thing['oid']}?X-Amz-Signature=0"}
            verify = {"href": f"{self.server.url}/{repo}.git/info/lfs/objects/verify"}
            thing = {**thing, "actions": {"upload": upload, "verify": verify}}
        answers.append(thing)
    self.answer(200, {"transfer": "basic", "objects": answers})


def store(self: "Handler", oid: str) -> None:
    if hashlib.sha256(self.body).hexdigest() != oid:
        raise Refused(400, "the content is not what was announced")
    self.server.storage[oid] = self.body
    self.answer(200, content=b"")


def verify(self: "Handler", repo: str) -> None:
    self.written(repo)
    thing = json.loads(self.body)
    if len(self.server.storage.get(thing["oid"], b"")) != thing["size"]:
        raise Refused(404, "not in storage")
    self.answer(200, {})


def commit(self: "Handler", repo: str, revision: str) -> None:
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
def resolve(self: "Handler", repo: str, revision: str, path: str) -> None:
    oid, files = self.commit(repo, revision)
    if path not in files:
        raise Refused(404, f"{path} does not exist", "EntryNotFound")
    blob, headers = files[path], {"X-Repo-Commit": oid}
    if isinstance(blob, bytes):
        return self.answer_file(blob, {"ETag": f'"{git_hash(blob)}"', **headers})
    headers |= {"X-Linked-Size": str(len(self.server.content(blob))), "X-Linked-ETag": f'"{blob}"'}
    self.answer(302, {}, {"Location": f"{self.server.storage_url}/{blob}", **headers})


def stored(self: "Handler", oid: str) -> None:
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
