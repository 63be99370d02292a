"""Checks of model folders from untrusted sources, before a library loads them.

Weights are safetensors, which hold only numbers. Two risks remain: a configuration may name a class of another module,
whose import runs code, and an index may name a path outside the folder. docs/security.md has the full list.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .versions import VersionFault, version_fault

LIBRARIES = ("diffusers", "transformers", "stable_diffusion")  # the last one is diffusers' safety checker


def read_json(path: str | Path, kind: type = dict) -> Any:
    """Read a JSON file that holds a dict (or a `kind`). Raises ValueError, naming the file, for anything else."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is torn or no JSON ({error})") from error
    if not isinstance(value, kind):
        raise ValueError(f"{path} holds a {type(value).__name__}, not a {kind.__name__}: save it again")
    return value


def pipeline_index(folder: str, **kwargs: Any) -> dict[str, Any]:
    """Read model_index.json of a folder or Hub id and check that all parts are of diffusers or transformers.

    Raises:
        ValueError: the file holds no mapping, or names a class of another module, whose import would run its code.
        OSError: the file is missing or cannot be read.
    """
    from diffusers import DiffusionPipeline

    check_folder(folder)
    with loading(folder):
        index = DiffusionPipeline.load_config(folder, **kwargs)
    if not isinstance(index, Mapping) or not isinstance(index.get("_class_name", ""), str):
        raise ValueError(f"model_index.json of {folder} does not name a pipeline's class: it would run other code")
    for name, part in index.items():
        if isinstance(part, list | tuple):
            if len(part) != 2 or not (part[0] is None or part[0] in LIBRARIES):
                raise ValueError(
                    f"{name} of {folder} is {list(part)}, a class that is not of diffusers or transformers: its code "
                    "would run, so it is not loaded"
                )
            if part[0] is not None and Path(folder).is_dir() and not (Path(folder) / name).is_dir():
                raise ValueError(f"{folder} has no folder {name}, a part that its model_index.json names")
    return dict(index)


def check_filled(pipeline: Any, folder: str) -> None:
    """Raise ValueError if a part of a loaded pipeline has weights that its file does not hold."""
    for name, part in pipeline.components.items():
        empty = [n for n, p in getattr(part, "named_parameters", dict)() if p.is_meta]
        if empty:
            raise ValueError(
                f"{name} of {folder} has no weights for {', '.join(empty[:3])}: they are of another model"
            )


def check_folder(folder: str | Path) -> None:
    """Check a model's folder before it is loaded. A Hub id passes, because its files are not local yet.

    Raises:
        ValueError: an index of shards points out of the folder or to another kind of file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return
    for path in sorted([*folder.glob("*.index*.json"), *folder.glob("*/*.index*.json")]):
        for name in shards(path):
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise ValueError(f"{path} names {name}, which is no safetensors file beside it")


def shards(index: str | Path) -> list[str]:
    """Return the sorted names of the files that an index of shards lists."""
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{index} has no weight_map of file names")
    return sorted(set(names.values()))


@contextmanager
def loading(name: str | Path) -> Iterator[None]:
    """Turn whatever a library raises over the files of `name` into a ValueError of one line that names it.

    OSErrors, such as those of a Hub that does not answer, stay OSErrors. Where the cause may be a package that is too
    old or missing, a VersionFault says so instead: the files may be whole.
    """
    try:
        yield
    except (MemoryError, VersionFault):
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:400]
        fault = version_fault(error)
        if fault:
            raise VersionFault(f"{name} does not load: {fault}" + ("" if said in fault else f" ({said})")) from error
        if isinstance(error, ValueError | OSError) and str(name) in said:
            raise
        kind = OSError if isinstance(error, OSError) else ValueError
        what = said if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {said}"
        raise kind(f"{name} does not load, is it whole? {what}") from error
