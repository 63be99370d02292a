"""Checks of model folders from untrusted sources, before a library loads them.

Weights are safetensors, which hold only numbers. Two risks remain: a configuration may name a class of another module,
whose import runs code, and an index may name a path outside the folder. docs/security.md has the full list.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .causes import cause_of, how_to_convert, single_file
from .versions import VersionFault, version_fault

LIBRARIES = ("diffusers", "transformers", "stable_diffusion")  # the last one is diffusers' safety checker


CHECKPOINTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)((?:[.-].*)?)\.(safetensors|bin|ckpt|h5|msgpack)"
)
SHARD = re.compile(r"-\d{5}-of-\d{5}")


def read_json(path: str | Path, kind: type = dict) -> Any:
    """Read a JSON file that holds a dict (or a `kind`). Raises ValueError, naming the file, for anything else."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is torn or no JSON ({error})") from error
    if not isinstance(value, kind):
        raise ValueError(f"{path} holds a {type(value).__name__}, not a {kind.__name__}: save it again")
    return value


def pipeline_index(folder: str, weights: bool = True, **kwargs: Any) -> dict[str, Any]:
    """Read model_index.json of a folder or Hub id and check that all parts are of diffusers or transformers.

    Args:
        weights: check too that the parts have weights that can be loaded (`check_weights`).
        kwargs: of `from_pretrained`: revision and variant.

    Raises:
        ValueError: the file holds no mapping, or names a class of another module, whose import would run its code.
        OSError: the file is missing or cannot be read.
    """
    from diffusers import DiffusionPipeline

    check_folder(folder)
    variant = kwargs.pop("variant", None)
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
    parts = [name for name, part in index.items() if isinstance(part, list | tuple) and part[0] is not None]
    if weights:
        check_weights(folder, parts, variant)
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
        ValueError: it is a single file or holds nothing else, or an index of shards points out of the folder or to
            another kind of file.
    """
    name, folder = str(folder), Path(folder)
    if name.lower().endswith(CHECKPOINTS) and (folder.is_file() or "://" in name):
        raise ValueError(single_file(name))
    if folder.is_file():
        raise ValueError(f"{name} is a file: give the folder of a model, or a Hub id")
    if not folder.is_dir():
        return
    alone = [path for path in sorted(folder.iterdir()) if path.suffix in CHECKPOINTS[:2] and path.is_file()]
    if alone and not any(folder.glob("*.json")) and not alone[0].name.startswith(("adapter_model", "pytorch_lora")):
        raise ValueError(single_file(alone[0]))
    for path in sorted([*folder.glob("*.index*.json"), *folder.glob("*/*.index*.json")]):
        for name in shards(path):
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise ValueError(f"{path} names {name}, which is no safetensors file beside it")


def check_weights(folder: str | Path, parts: Iterable[str], variant: str | None = None) -> None:
    """Check that the parts of a local model have weights that are loaded: safetensors of the right variant.

    Args:
        parts: subfolders with weights; "" is the folder itself. Those without a config.json have none.
        variant: as in `from_pretrained`, such as fp16.

    Raises:
        ValueError: there are only pickles, only weights of a variant, or none of that variant.
    """
    found: set[str] = set()
    for part in parts:
        place = Path(folder, part)
        if not (place / "config.json").is_file():
            continue
        names = [match for path in sorted(place.iterdir()) if (match := WEIGHTS.fullmatch(path.name))]
        safe = {SHARD.sub("", match[1]).lstrip(".") for match in names if match[2] == "safetensors"}
        found |= safe
        if names and not safe:
            kind = "AutoModelForImageClassification" if not part else "DiffusionPipeline"
            raise ValueError(
                f"{place} has weights only as {names[0][0]}, no safetensors: {how_to_convert(folder, kind)}"
            )
        if safe and "" not in safe and variant not in safe:
            other = ", ".join(sorted(safe))
            raise ValueError(
                f"{place} has weights only of the variant {other}: set --variant {sorted(safe)[0]}, or save the model "
                "once without a variant"
            )
    if variant and found and variant not in found:
        others = ", ".join(sorted(found - {""}))
        other = f"set --variant {others}, or leave it out" if others else "leave --variant out"
        raise ValueError(f"{folder} has no weights of the variant {variant}: {other}")


def check_metadata_paths(folder: str | Path) -> None:
    """Check that the files which describe an image folder's images name only images in their own folder.

    Raises:
        ValueError: a path leads out of it; the message says where.
    """
    for path in sorted(Path(folder).rglob("metadata.*")):
        if path.suffix not in (".jsonl", ".csv", ".parquet") or not path.is_file():
            continue
        for number, row in enumerate(_rows(path), 1):
            for key, named in row.items() if isinstance(row, dict) else ():
                if key in ("file_name", "file_names") or str(key).endswith(("_file_name", "_file_names")):
                    for name in named if isinstance(named, list) else [named]:
                        if isinstance(name, str) and _leaves(name):
                            raise ValueError(
                                f"{path}, row {number}: {key} {name!r} leads out of {path.parent}, so it is not read: "
                                "put the image into that folder and name it from there"
                            )


def _rows(path: Path) -> Iterator[Any]:
    """The rows of a metadata file, as far as they can be read: what is torn, the library that loads it says."""
    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            yield from parquet.read_table(path).to_pylist()
        elif path.suffix == ".csv":
            with open(path, encoding="utf-8", newline="") as file:
                yield from csv.DictReader(file)
        else:
            with open(path, encoding="utf-8") as file:
                yield from (json.loads(line) for line in file if line.strip())
    except (ValueError, RecursionError, csv.Error, OSError):
        return


def _leaves(name: str) -> bool:
    """Whether a relative path leads out of the folder that it starts from, on this system or on Windows."""
    depth = 0
    for part in name.replace("\\", "/").split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            return True
    return name.startswith(("/", "\\")) or bool(re.match(r"[A-Za-z]:|[a-z]+://", name))


def shards(index: str | Path) -> list[str]:
    """Return the sorted names of the files that an index of shards lists."""
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{index} has no weight_map of file names")
    return sorted(set(names.values()))


@contextmanager
def loading(name: str | Path) -> Iterator[None]:
    """Turn whatever a library raises over the files of `name` into a ValueError of one line that names it.

    OSErrors, such as those of a Hub that does not answer, stay OSErrors. Known causes are said with what to set. Where
    the cause may be a package that is too old or missing, a VersionFault says so instead: the files may be whole.
    """
    try:
        yield
    except (MemoryError, VersionFault):
        raise
    except Exception as error:
        kind = OSError if isinstance(error, OSError) else ValueError
        cause = cause_of(name, error)
        if cause is not None:
            raise kind(cause) from error
        said = " ".join(str(error).split())[:400]
        fault = version_fault(error)
        if fault:
            raise VersionFault(f"{name} does not load: {fault}" + ("" if said in fault else f" ({said})")) from error
        if isinstance(error, ValueError | OSError) and str(name) in said:
            raise
        what = said if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {said}"
        raise kind(f"{name} does not load, is it whole? {what}") from error
