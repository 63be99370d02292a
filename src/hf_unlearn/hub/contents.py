"""Which files of a finished folder may be published: an allow list.

Checkpoints, optimizer states, caches, snapshots and lists of forgotten samples lie in the same folder as the result,
so only files that are named here are published. Masks and Fishers tell where a concept was edited, which helps to
revive it (arXiv 2603.06640), so they are published only on request.
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..common.untrusted import check_folder, read_json, shards

BESIDE = (
    "README.md",
    "verdict.svg",
    "before_after.png",
    "samples_before.png",
    "samples_after.png",
    "strengths.png",
    "figures.json",
    "figures.md",
    "unlearning_report.json",
    "report.html",
    ".eval_results/*.yaml",
)
SETTINGS = (
    "config.json",
    "*_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "chat_template.jinja",
)
MASKS = ("masks*.safetensors", "fisher*.safetensors")
NO_RESULT = ("checkpoint-*", "cache", "last_good", "runs", "*.partial")
UNSAFE = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".msgpack", ".h5")


@dataclass(frozen=True)
class Contents:
    """`kind` is "pipeline", "model" or "adapter"; `files` are paths in `folder` with forward slashes, sorted."""

    folder: Path
    kind: str
    files: tuple[str, ...]

    @property
    def size(self) -> int:
        """The size of all files in bytes."""
        return sum((self.folder / name).stat().st_size for name in self.files)


def read_contents(folder: str | Path, include_masks: bool = False) -> Contents:
    """List the publishable files of a diffusers pipeline, a transformers model or an adapter (peft's or diffusers').

    Raises:
        ValueError: the folder is none of these, is unfinished or damaged, or has a part without safetensors weights;
            or masks are requested and it has none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    if folder.resolve().name.startswith("checkpoint-") and (folder / "trainer_state.json").is_file():
        raise ValueError(f"{folder} is a checkpoint, not a finished result: give the folder above it")
    adapters = _adapters(folder)
    if adapters and ((folder / "model_index.json").is_file() or (folder / "model.safetensors").is_file()):
        raise ValueError(f"{folder} holds a whole model and an adapter: keep one of them, loaders would mix them")
    if (folder / "model_index.json").is_file():
        kind, files = "pipeline", _pipeline(folder)
    elif adapters:
        kind, files = "adapter", adapters
    elif (folder / "config.json").is_file():
        if "_class_name" in read_json(folder / "config.json"):
            raise ValueError(f"{folder} is one part of a pipeline: give the folder with model_index.json")
        kind, files = "model", _part(folder)
    else:
        lacks = "it has no model_index.json (pipeline), config.json (model) or adapter weights"
        raise ValueError(_unfinished(folder, lacks))
    files += [name for pattern in BESIDE for name in _matching(folder, pattern)]
    if include_masks:
        masks = [name for pattern in MASKS for name in _matching(folder, pattern)]
        if not masks:
            raise ValueError(f"{folder} has no {' or '.join(MASKS)} to include")
        files += masks
    for name in files:  # a link or a part called "../x": files elsewhere are not part of the result
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"{folder / name} leads to {(folder / name).resolve()}, out of the folder: put a copy there"
            )
    return Contents(folder, kind, tuple(sorted(files)))


def _pipeline(folder: Path) -> list[str]:
    index = read_json(folder / "model_index.json")
    parts = [name for name, value in index.items() if isinstance(value, list) and value[:1] != [None]]
    empty = [name for name in parts if len(index[name]) != 2]
    if empty:
        raise ValueError(f"{folder / 'model_index.json'} does not say which class {empty[0]} is")
    for name in parts:
        if not (folder / name).is_dir():
            raise ValueError(f"{folder} is not a finished result: model_index.json names {name}, which is not there")
    return ["model_index.json", *(f"{name}/{file}" for name in parts for file in _part(folder / name))]


def _part(folder: Path) -> list[str]:
    """List a part's settings, and its weights if it has a config.json. Schedulers and tokenizers have another file."""
    settings = [name for pattern in SETTINGS for name in _matching(folder, pattern)]
    if (folder / "config.json").is_file():
        ours = "_class_name" in read_json(folder / "config.json")  # as diffusers writes it
        settings += _weights(folder, "diffusion_pytorch_model" if ours else "model")
    return sorted(set(settings))


def _adapters(folder: Path) -> list[str]:
    """List the files of the adapter in `folder` and of those in its subfolders, where peft saves further ones."""
    found = _adapter(folder)
    inside = [f for f in folder.iterdir() if f.is_dir() and not any(fnmatch(f.name, p) for p in NO_RESULT)]
    for place in sorted(inside) if found else []:
        found += [f"{place.name}/{name}" for name in _adapter(place)]
    return found


def _adapter(folder: Path) -> list[str]:
    names = []
    if (folder / "adapter_config.json").is_file():
        names += ["adapter_config.json", *_weights(folder, "adapter_model")]
    if (folder / "pytorch_lora_weights.safetensors").is_file():
        names += _weights(folder, "pytorch_lora_weights")
    return names


def _weights(folder: Path, stem: str) -> list[str]:
    """List the weight file, or the index and its shards. Each file is opened, so that no damaged one is published."""
    whole, index = f"{stem}.safetensors", f"{stem}.safetensors.index.json"
    if (folder / whole).is_file() and (folder / index).is_file():
        raise ValueError(f"{folder} holds both {whole} and {index}: remove the older weights")
    if (folder / index).is_file():
        check_folder(folder)
        files = shards(folder / index)
    else:
        files = [whole]
    for name in files:
        if not (folder / name).is_file():
            raise ValueError(_unfinished(folder, f"it has no {name}"))
        try:
            with safe_open(folder / name, framework="numpy"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{folder / name} is torn or no safetensors file ({error})") from error
    return [*files, index] if files != [whole] else files


def _unfinished(folder: Path, reason: str) -> str:
    pickled = sorted(f.name for f in folder.iterdir() if f.suffix in UNSAFE and re.search("model|weights", f.name))
    if pickled:
        return f"{folder} has weights only as {pickled[0]}: save them as safetensors"
    return f"{folder} is not a finished result: {reason}"


def _matching(folder: Path, pattern: str) -> list[str]:
    return sorted(f.relative_to(folder).as_posix() for f in folder.glob(pattern) if f.is_file())
