"""A text-to-image pipeline from a folder or Hub id."""

from importlib import import_module
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ...common.untrusted import check_filled, loading, pipeline_index
from .pipelines import PIPELINES, listed


def load_text_to_image_pipeline(folder: str, xformers: bool = False, **kwargs: Any) -> DiffusionPipeline:
    """A pipeline of one of `PIPELINES` from a folder or Hub id, in float32, safetensors only.

    Args:
        xformers: use xformers' attention instead of torch's scaled dot product attention.

    Raises:
        ValueError: another kind of pipeline, or xformers does not import.
    """
    index = pipeline_index(folder, revision=kwargs.get("revision"), variant=kwargs.get("variant"))
    kind = index.get("_class_name")
    if kind not in PIPELINES:
        raise ValueError(f"{folder} is a {kind}: give a {listed(PIPELINES)}")
    if xformers:
        try:
            import_module("xformers.ops")
        except ImportError as error:
            raise ValueError(
                f"xformers does not import ({error}): install hf_unlearn[xformers], or leave the flag out, "
                "torch's scaled dot product attention is the default"
            ) from error
    # A Stable Diffusion 3 that was saved without T5 is loaded without it only if one says so.
    parts = ("text_encoder_3", "tokenizer_3") if kind == "StableDiffusion3Pipeline" else ()
    kwargs |= {name: None for name in parts if not any(index.get(name) or ())}
    with loading(folder):
        pipeline = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, **kwargs)
    check_filled(pipeline, folder)
    for part in pipeline.components.values():  # transformers' parts keep the stored precision, diffusers' parts do not
        if isinstance(part, torch.nn.Module) and part.dtype != torch.float32:
            part.to(torch.float32)
    if xformers:
        pipeline.enable_xformers_memory_efficient_attention()
    return pipeline
