"""Publish a finished folder to a Hub repository in one commit.

Large files are uploaded first and are not part of the repository until the commit. An interrupted upload therefore
leaves the repository unchanged, and the next one sends only what is missing.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import validate_repo_id

from .. import __version__
from ..common.errors import TOKEN, redact
from .contents import Contents, read_contents

# Weights that a loader would prefer to those on the left, or load on top of them.
RIVALS = {
    "model": "model|pytorch_model|tf_model|flax_model|adapter_model",
    "diffusion_pytorch_model": "diffusion_pytorch_model|diffusion_flax_model",
    "adapter_model": "adapter_model",
    "pytorch_lora_weights": "pytorch_lora_weights",
}
FORMS = r"(\.\w+)?(-\d+-of-\d+)?(\.\w+)?\.(safetensors|bin|pt|ckpt|h5|msgpack)(\.index(\.\w+)?\.json)?"


@dataclass(frozen=True)
class Published:
    """What the repository holds after publishing. `commit` is an older one where `changed` is False."""

    repo: str
    url: str
    revision: str
    commit: str
    changed: bool
    private: bool
    kind: str
    files: tuple[str, ...]
    removed: tuple[str, ...]


def publish(
    folder: str | Path,
    repo: str,
    token: str | None = None,
    private: bool = False,
    revision: str | None = None,
    include_masks: bool = False,
    message: str = "Unlearned",
) -> Published:
    """Upload the files of `folder` that `contents` allows to `repo`, which is created if it does not exist.

    The same commit removes weights that the repository holds for the same parts under other names (shards, a variant,
    pickles). Loaders would prefer them, and they may know what was forgotten. The repository's history keeps them.

    Args:
        token: a Hub token, by default HF_TOKEN or the stored login.
        private: create a private repository. An existing one must be private.
        revision: the branch, by default main. It is created if it does not exist.
        include_masks: whether to upload masks*.safetensors and fisher*.safetensors too.

    Raises:
        ValueError: the folder is no finished result, there is no token, the repository id is malformed, or a file to
            upload holds a token.
        OSError: the Hub refused or could not be reached. The repository is unchanged, unless the answer to the commit
            was lost. Publishing again finishes the upload.
    """
    contents = read_contents(folder, include_masks)
    api = connect(token)
    _check_no_token(contents, _token_of(api))
    repo = open_repo(api, repo, private, revision)
    with _one_line(api, repo):
        before = api.model_info(repo, revision=revision)
        theirs = [file.rfilename for file in before.siblings or ()]
        removed = _rivals(contents.files, theirs)
        added = [CommitOperationAdd(name, str(contents.folder / name)) for name in contents.files]
        if ".gitignore" in theirs:  # the client would silently leave files out that it lists
            api.preupload_lfs_files(repo, added, revision=revision, free_memory=False, gitignore_content="#")
        deleted = [CommitOperationDelete(name, is_folder=False) for name in removed]
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [*added, *deleted]
        commit = api.create_commit(repo, operations, commit_message=message, revision=revision)
    return Published(
        repo=repo,
        url=f"{api.endpoint}/{repo}",
        revision=revision or "main",
        commit=commit.oid,
        changed=commit.oid != before.sha,
        private=bool(before.private),
        kind=contents.kind,
        files=contents.files,
        removed=tuple(removed),
    )


def connect(token: str | None = None) -> HfApi:
    """Return a Hub client with a token. Raises ValueError without one. Only the Hub can tell whether it is valid."""
    token = (token or get_token() or "").strip()
    if not token:
        raise ValueError("no Hub token: log in with `hf auth login`, set HF_TOKEN, or pass the token")
    if not re.fullmatch(r"[!-~]+", token):  # the client would print the header that it cannot send
        raise ValueError("the Hub token holds a space or another character that no token has: copy it again")
    return HfApi(token=token, library_name="hf_unlearn", library_version=__version__)


def _token_of(api: HfApi) -> str:
    """Return the client's token, or "" if it has none of its own."""
    return api.token if isinstance(api.token, str) else ""


def open_repo(api: HfApi, repo: str, private: bool = False, revision: str | None = None) -> str:
    """Create the repository and branch if they do not exist. Return the id with its namespace.

    Raises:
        ValueError: the id is malformed, or the repository is public and should be private.
        OSError: the Hub refused or could not be reached.
    """
    try:
        validate_repo_id(repo)
    except ValueError:
        named = redact(repr(repo), _token_of(api))
        raise ValueError(f"repository {named} is no Hub id: user/name of letters, digits, - _ . (no -- ..)") from None
    with _one_line(api, repo):
        repo = api.create_repo(repo, private=private or None, exist_ok=True).repo_id
        if private and not api.model_info(repo).private:
            raise ValueError(f"{repo} is there and public: make it private in its settings, or name another one")
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
    return repo


def reserve(repo: str, token: str | None = None, private: bool = False, revision: str | None = None) -> str:
    """Check before a long run that a later `publish` to `repo` can work: open it and check write permission.

    Nothing is uploaded. The Hub is asked how it would receive a small file, which it tells only to writers. Return the
    id with its namespace. Raises what `publish` raises.
    """
    api = connect(token)
    repo = open_repo(api, repo, private, revision)
    with _one_line(api, repo):
        api.preupload_lfs_files(repo, [CommitOperationAdd("README.md", b"#")], revision=revision)
    return repo


def _rivals(ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """Return the repository's files that would be loaded instead of those to upload, or on top of them."""
    found = set()
    for path in map(PurePosixPath, ours):
        stem = re.split(r"[.-]", path.name)[0]
        if stem in RIVALS:
            weights = re.compile(f"({RIVALS[stem]}){FORMS}" + ("|adapter_config.json" if stem == "model" else ""))
            beside = [other for other in map(PurePosixPath, theirs) if other.parent == path.parent]
            found |= {str(other) for other in beside if weights.fullmatch(other.name)}
    return sorted(found - set(ours))


def _check_no_token(contents: Contents, token: str) -> None:
    for name in contents.files:
        if not name.endswith((".safetensors", ".png")):
            text = (contents.folder / name).read_text(encoding="utf-8", errors="replace")
            if (token and token in text) or TOKEN.search(text):
                raise ValueError(f"{contents.folder / name} holds a Hub token: take it out and revoke that token")


@contextmanager
def _one_line(api: HfApi, repo: str) -> Iterator[None]:
    """Turn the client's errors into one line that says what to do, without the token and without a traceback."""
    try:
        yield
    except (HTTPError, OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        kind = ValueError if isinstance(error, ValueError) and not isinstance(error, HTTPError) else OSError
        raise kind(redact(" ".join(_explain(error, api.endpoint, repo).split()), _token_of(api))) from None


def _explain(error: BaseException, endpoint: str, repo: str) -> str:
    again = "publish again, what the Hub has already is not sent twice"
    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # wraps the error of one file
        error = error.__cause__
    if isinstance(error, json.JSONDecodeError):
        return f"{endpoint} gave an answer that is no JSON: {again}"
    if isinstance(error, LookupError | TypeError | AttributeError) or "improperly formatted" in str(error):
        return f"{endpoint} gave an answer about {repo} that is not of a Hub ({error}): {again}"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status == 401:
            return f"{endpoint} does not know the token (401): pass a valid one, set HF_TOKEN or log in again"
        if status == 403:
            return f"the token may not write to {repo} (403): it needs write permission there"
        if status == 404:
            return f"{endpoint} has no {repo} that this token may see (404)"
        if status == 429 or status >= 500:
            return f"{endpoint} failed ({status}): {again}"
        return f"{endpoint} refused {repo} ({status}): {error}"
    if isinstance(error, HTTPError):
        return f"{endpoint} cannot be reached or hung up ({type(error).__name__}: {error}): {again}"
    return str(error) or type(error).__name__
