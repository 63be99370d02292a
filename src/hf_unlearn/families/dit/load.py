"""A DiT pipeline from a folder or Hub id."""

from typing import Any

from diffusers import DiffusionPipeline

from ...common.untrusted import check_filled, loading, pipeline_index


def load_dit_pipeline(folder: str, **kwargs: Any) -> DiffusionPipeline:
    """A DiTPipeline from a folder or Hub id, in float32, safetensors only. Raises ValueError for another pipeline."""
    from diffusers import DiTPipeline

    kind = pipeline_index(folder, **kwargs).get("_class_name")
    if kind != "DiTPipeline":
        raise ValueError(f"{folder} is a {kind}: give a DiTPipeline")
    with loading(folder):
        pipeline = DiTPipeline.from_pretrained(folder, use_safetensors=True, **kwargs)
    check_filled(pipeline, folder)
    return pipeline
