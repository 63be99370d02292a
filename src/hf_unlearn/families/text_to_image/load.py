"""A text-to-image pipeline from a folder or Hub id."""

from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import deprecation_utils

from ...common.devices import runs_on_cpu
from ...common.precisions import HALF, bring_to, decode_any, note_stored, precision_of_files, take_any, weight_files
from ...common.untrusted import check_filled, loading, pipeline_index
from ...common.weights import networks_of
from .pipelines import PIPELINES, denoiser_of, listed
from .single_file import is_single_file, load_single_file


def load_text_to_image_pipeline(
    folder: str,
    xformers: bool = False,
    config: str | None = None,
    precision: Literal["fp32", "stored"] = "fp32",
    **kwargs: Any,
) -> DiffusionPipeline:
    """A pipeline of one of `PIPELINES` from a folder, a Hub id or a single file.

    Of folders and Hub ids safetensors alone are read; a single file may be a .ckpt that holds nothing but tensors.
    Whatever it is loaded in, every part notes the precision of its files, in which it is written again
    (`precisions.as_stored`).

    Args:
        xformers: use xformers' attention instead of torch's scaled dot product attention.
        config: of a single file, where its configuration is (`load_single_file`).
        precision: "fp32" of every part, or "stored": parts in bfloat16 or float16 stay so, and all take tensors of any
            precision. On a CPU, which computes float16 tens of times slower, that becomes float32.
        kwargs: of `from_pretrained`, for folders and Hub ids: revision and variant.

    Raises:
        ValueError: another kind of pipeline, or xformers does not import.
    """
    pipeline: Any
    if is_single_file(folder):
        given = next((name for name, value in kwargs.items() if value is not None), None)
        if given is not None:
            raise ValueError(f"{folder} is a single file, which has no {given}: leave --{given} out")
        stored, pipeline = load_single_file(folder, config)
    elif config is not None:
        raise ValueError(f"--model_config is for a model in a single file, and {folder} is none: leave it out")
    else:
        stored, pipeline = _load_folder(folder, precision, kwargs)
    if xformers:
        try:
            import_module("xformers.ops")
        except ImportError as error:
            raise ValueError(
                f"xformers does not import ({error}): install hf_unlearn[xformers], or leave the flag out, "
                "torch's scaled dot product attention is the default"
            ) from error
    _settle(pipeline, stored, precision)
    if xformers:
        pipeline.enable_xformers_memory_efficient_attention()
    return pipeline


def _settle(pipeline: Any, stored: dict[str, torch.dtype], precision: str) -> None:
    """Give every part the precision that it is asked for, and have parts in half precision work beside others."""
    parts = networks_of(pipeline)
    for name, part in parts.items():
        if stored.get(name) in HALF:
            note_stored(part, stored[name])
        wanted = kept_precision(stored.get(name, torch.float32), precision)
        if part.dtype != wanted:
            bring_to(part, wanted)
    if any(part.dtype in HALF for part in parts.values()):
        take_any(denoiser_of(pipeline).network(pipeline))
        decode_any(pipeline.vae)


def kept_precision(stored: torch.dtype, precision: str = "stored") -> torch.dtype:
    """What a part of a stored precision is loaded in, as `load_text_to_image_pipeline` is asked."""
    if precision == "fp32" or (stored == torch.float16 and runs_on_cpu()):
        return torch.float32
    return stored


def stored_precisions(folder: str, index: dict[str, Any], variant: str | None = None) -> dict[str, torch.dtype]:
    """The precision of the files of each part of a pipeline in a folder, from their headers."""
    parts = [name for name, part in index.items() if isinstance(part, list | tuple) and part[0] is not None]
    files = {name: weight_files(Path(folder, name), variant) for name in parts}
    return {name: precision_of_files(paths) for name, paths in files.items() if paths}


def _load_folder(
    folder: str, precision: str, options: dict[str, Any]
) -> tuple[dict[str, torch.dtype], DiffusionPipeline]:
    """(the precision of the files of each part, the pipeline) of a folder or Hub id."""
    index = pipeline_index(folder, revision=options.get("revision"), variant=options.get("variant"))
    kind = index.get("_class_name")
    if kind not in PIPELINES:
        raise ValueError(f"{folder} is a {kind}: give a {listed(PIPELINES)}")
    # A Stable Diffusion 3 that was saved without T5 is loaded without it only if one says so.
    parts = ("text_encoder_3", "tokenizer_3") if kind == "StableDiffusion3Pipeline" else ()
    left_out = {name: None for name in parts if not any(index.get(name) or ())}
    options = {**left_out, **options}
    with loading(folder):
        here = folder if Path(folder).is_dir() else DiffusionPipeline.download(folder, use_safetensors=True, **options)
        stored = stored_precisions(here, index, options.get("variant"))
        wanted = {name: kept_precision(dtype, precision) for name, dtype in stored.items()}
        # diffusers 0.42 has another name for it and warns of the old one.
        name = "dtype" if hasattr(deprecation_utils, "_resolve_dtype") else "torch_dtype"
        options[name] = {"default": torch.float32, **wanted}
        pipeline = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, **options)
    check_filled(pipeline, folder)
    return stored, pipeline
