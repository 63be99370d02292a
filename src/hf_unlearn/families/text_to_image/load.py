"""A text-to-image pipeline from a folder or Hub id."""

from importlib import import_module
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ...common.untrusted import check_filled, loading, pipeline_index
from .pipelines import PIPELINES, listed
from .single_file import is_single_file, load_single_file


def load_text_to_image_pipeline(
    folder: str, xformers: bool = False, config: str | None = None, **kwargs: Any
) -> DiffusionPipeline:
    """A pipeline of one of `PIPELINES` from a folder, a Hub id or a single file, in float32.

    Of folders and Hub ids safetensors alone are read; a single file may be a .ckpt that holds nothing but tensors.

    Args:
        xformers: use xformers' attention instead of torch's scaled dot product attention.
        config: of a single file, where its configuration is (`load_single_file`).
        kwargs: of `from_pretrained`, for folders and Hub ids: revision and variant.

    Raises:
        ValueError: another kind of pipeline, or xformers does not import.
    """
    pipeline: Any
    if is_single_file(folder):
        given = next((name for name, value in kwargs.items() if value is not None), None)
        if given is not None:
            raise ValueError(f"{folder} is a single file, which has no {given}: leave --{given} out")
        pipeline = load_single_file(folder, config)
    elif config is not None:
        raise ValueError(f"--model_config is for a model in a single file, and {folder} is none: leave it out")
    else:
        pipeline = _load_folder(folder, kwargs)
    if xformers:
        try:
            import_module("xformers.ops")
        except ImportError as error:
            raise ValueError(
                f"xformers does not import ({error}): install hf_unlearn[xformers], or leave the flag out, "
                "torch's scaled dot product attention is the default"
            ) from error
    for part in pipeline.components.values():  # transformers' parts keep the stored precision, diffusers' parts do not
        if isinstance(part, torch.nn.Module) and part.dtype != torch.float32:
            part.to(torch.float32)
    if xformers:
        pipeline.enable_xformers_memory_efficient_attention()
    return pipeline


def _load_folder(folder: str, options: dict[str, Any]) -> DiffusionPipeline:
    """The pipeline of a folder or Hub id, in the precision that its libraries give it."""
    index = pipeline_index(folder, revision=options.get("revision"), variant=options.get("variant"))
    kind = index.get("_class_name")
    if kind not in PIPELINES:
        raise ValueError(f"{folder} is a {kind}: give a {listed(PIPELINES)}")
    # A Stable Diffusion 3 that was saved without T5 is loaded without it only if one says so.
    parts = ("text_encoder_3", "tokenizer_3") if kind == "StableDiffusion3Pipeline" else ()
    left_out = {name: None for name in parts if not any(index.get(name) or ())}
    with loading(folder):
        pipeline = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, **left_out, **options)
    check_filled(pipeline, folder)
    return pipeline
