"""Why a model or data set does not load, and what to set: one line for what libraries report in many ways."""

import errno
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT)
CACHES = ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_ASSETS_CACHE", "HF_MODULES_CACHE")
# What diffusers and transformers say where only other files than safetensors are there.
NO_SAFETENSORS = ("`safetensors` weights", "no file named model.safetensors", "model.safetensors found in directory")


def cause_of(name: str | Path, error: BaseException) -> str | None:
    """Say what keeps `name`, a folder or Hub id, from loading and what to set; None for any other error."""
    chain = list(_chain(error))
    for say in (_access, _offline, _cache, _format, _code):
        for each in chain:
            found = say(str(name), each)
            if found:
                return found
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _access(name: str, error: BaseException) -> str | None:
    if isinstance(error, GatedRepoError):
        return f"{name} is gated on the Hub: accept its terms there, and log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError) or type(error).__name__ == "DatasetNotFoundError":
        return (
            f"the Hub has no {name} that this login may see: check the id, or, if it is private, log in with "
            "`hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{name} has no such revision on the Hub: set --revision to a branch, tag or commit that it has"
    if isinstance(error, HFValidationError):
        return f"{name} is neither a folder here nor a Hub id (user/name): check the spelling"
    return None


def _offline(name: str, error: BaseException) -> str | None:
    missed = (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError)
    if constants.HF_HUB_OFFLINE and isinstance(error, missed):
        return (
            f"{name} is no folder here, the cache does not hold it, and HF_HUB_OFFLINE=1 keeps the Hub from being "
            "asked: unset HF_HUB_OFFLINE, or name a folder"
        )
    if isinstance(error, LocalEntryNotFoundError):
        return (
            f"{name} is no folder here, the cache does not hold it, and the Hub at {constants.ENDPOINT} cannot be "
            "reached: check the network (or HF_ENDPOINT), or name a folder"
        )
    return None


def _cache(name: str, error: BaseException) -> str | None:
    if not isinstance(error, OSError) or error.errno not in UNWRITABLE or error.filename is None:
        return None
    place = os.path.abspath(os.fsdecode(error.filename))
    if place == os.path.abspath(name):
        return None
    roots = [constants.HF_HOME, constants.HF_HUB_CACHE, *(os.environ[name] for name in CACHES if name in os.environ)]
    if not any(_related(Path(place), Path(os.path.abspath(os.path.expanduser(root)))) for root in roots):
        return None
    given = [name for name in CACHES[1:] if name in os.environ]
    return (
        f"the cache folder {constants.HF_HOME} cannot be used ({error.strerror}: {place}): set HF_HOME"
        f"{' and ' + ' and '.join(given) if given else ''} to a folder that can be written"
    )


def _related(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _format(name: str, error: BaseException) -> str | None:
    said = str(error)
    if not isinstance(error, OSError | ValueError) or not any(words in said for words in NO_SAFETENSORS):
        return None
    return (
        f"{name} has no safetensors weights of this kind: {how_to_convert(name)}; where the files have a variant in "
        "their names, such as fp16, set --variant"
    )


def _code(name: str, error: BaseException) -> str | None:
    if not isinstance(error, pickle.UnpicklingError):
        return None
    return (
        f"{name} is a pickle that is torn or holds more than tensors and could run code, so it is not loaded: give "
        "the model as .safetensors"
    )


def how_to_convert(name: Any, kind: str = "DiffusionPipeline") -> str:
    """How weights in pickles become safetensors: by a user who trusts them."""
    return (
        f"pickles (.bin) are not loaded, because they can run code; if you trust them, convert them once: "
        f"{kind}.from_pretrained({str(name)!r}, use_safetensors=False).save_pretrained(FOLDER), and give FOLDER"
    )


def single_file(path: Any) -> str:
    """What to say of a checkpoint in one file where only a model's folder is taken."""
    return f"{path} is a checkpoint in a single file, which only `hf-unlearn t2i` takes: {in_a_folder(path)}"


def in_a_folder(path: Any) -> str:
    """How a single file becomes a model's folder."""
    return (
        f"convert it once with diffusers, StableDiffusionPipeline.from_single_file({str(path)!r})"
        ".save_pretrained(FOLDER) (StableDiffusionXLPipeline for SDXL), and give FOLDER"
    )
