"""A text-to-image pipeline from one file, as A1111 and ComfyUI keep them, through diffusers' reader."""

from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from huggingface_hub import constants, snapshot_download

from ...common.causes import in_a_folder
from ...common.precisions import precision_of_tensors
from ...common.untrusted import check_filled, loading, pipeline_index
from .pipelines import PIPELINES

SUFFIXES = (".safetensors", ".ckpt")
CONFIGURATIONS = ("*.json", "**/*.json", "*.txt", "**/*.txt", "**/*.model")  # no weights
NETWORK = "model.diffusion_model."


def is_single_file(name: str | Path) -> bool:
    """Whether `name` is a file here that is read as a whole pipeline."""
    return str(name).lower().endswith(SUFFIXES) and Path(name).is_file()


def beside(path: str | Path) -> str | None:
    """The folder with the configurations of a single file that lies beside it under the same name; None if none does:
    for models/v1-5.safetensors that is models/v1-5."""
    folder = Path(path).with_suffix("")
    return str(folder) if (folder / "model_index.json").is_file() else None


def load_single_file(path: str | Path, config: str | None = None) -> tuple[dict[str, torch.dtype], DiffusionPipeline]:
    """(the precision of most of the file for each part, the pipeline) of a .safetensors or .ckpt file, in that.

    Args:
        config: folder or Hub id of a pipeline of the same architecture, of which only configurations and tokenizers
            are read; the default is the folder `beside` the file, else what diffusers takes the file to be, from the
            cache or the Hub.

    Raises:
        ValueError: the file holds no pipeline, or code, or is torn; or its configuration is not here.
    """
    import diffusers
    from diffusers.loaders.single_file_utils import load_single_file_checkpoint

    name = str(path)
    with loading(name):
        state = load_single_file_checkpoint(name)
    if any("lora_" in key for key in state):
        raise ValueError(f"{name} is an adapter: give its base model, and load the adapter with load_lora_weights")
    folder = configuration(name, config or beside(name) or _inferred(name, state))
    stored = precision_of_tensors(state.values())
    del state
    index = pipeline_index(folder, weights=False)
    kind = index.get("_class_name")
    cls: Any = getattr(diffusers, str(kind), None) if kind in PIPELINES else None
    if not hasattr(cls, "from_single_file"):
        raise ValueError(f"{folder} is a {kind}, which diffusers reads from no single file: {in_a_folder(name)}")
    with loading(name):
        pipeline: Any = cls.from_single_file(name, config=folder, local_files_only=True, torch_dtype=stored)
    check_filled(pipeline, name)
    pipeline.register_to_config(_name_or_path=name)
    return dict.fromkeys(pipeline.components, stored), pipeline


def configuration(name: str, config: str) -> str:
    """The folder with the configurations of the single file `name`: `config` itself, or a copy of a Hub repository.

    Raises:
        ValueError: it is neither here nor in the cache, and the Hub does not answer.
    """
    if Path(config).is_dir():
        return config
    try:
        return snapshot_download(config, allow_patterns=list(CONFIGURATIONS))
    except (OSError, ValueError) as error:  # no such repository or no network, or no Hub id
        why = "HF_HUB_OFFLINE keeps the Hub from being asked" if constants.HF_HUB_OFFLINE else "the Hub has none"
        raise ValueError(
            f"{name} does not say its configuration, {config} is no folder here or in the cache, and {why}: set "
            "--model_config to the folder of a pipeline of the same architecture"
        ) from error


def _inferred(name: str, state: dict[str, Any]) -> str:
    """The Hub id of the pipeline that diffusers takes the weights of a file to be of.

    Raises:
        ValueError: they are none that it knows: it takes those for Stable Diffusion 1.5's too.
    """
    from diffusers.loaders.single_file_utils import fetch_diffusers_config, infer_diffusers_model_type

    if infer_diffusers_model_type(state) == "v1" and not any(key.startswith(NETWORK) for key in state):
        raise ValueError(
            f"{name} holds no whole model in the layout of Stable Diffusion (no {NETWORK}*): {in_a_folder(name)}"
        )
    return str(fetch_diffusers_config(state)["pretrained_model_name_or_path"])
