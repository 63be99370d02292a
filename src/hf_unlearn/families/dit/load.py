"""A DiT pipeline from a folder or Hub id."""

from typing import Any

from diffusers import DiffusionPipeline

from ...common.untrusted import check_filled, loading, pipeline_index


def load_dit_pipeline(folder: str, **kwargs: Any) -> DiffusionPipeline:
    """A DiTPipeline from a folder or Hub id, in float32, safetensors only.

    Raises:
        ValueError: another pipeline, or parts that do not fit each other.
    """
    from diffusers import DiTPipeline

    kind = pipeline_index(folder, **kwargs).get("_class_name")
    if kind != "DiTPipeline":
        raise ValueError(f"{folder} is a {kind}: give a DiTPipeline")
    with loading(folder):
        pipeline = DiTPipeline.from_pretrained(folder, use_safetensors=True, **kwargs)
    check_filled(pipeline, folder)
    check_parts(pipeline, folder)
    return pipeline


def check_parts(pipeline: Any, folder: str) -> None:
    """Raise ValueError if transformer and VAE do not fit each other, or the transformer predicts something else than
    noise, with or without a learned variance.

    A configuration without `out_channels`, which means as many as `in_channels`, gets that number: DiTPipeline reads
    it when it samples.
    """
    transformer, vae = pipeline.transformer, pipeline.vae
    channels = transformer.config.in_channels
    if transformer.config.out_channels is None:
        transformer.register_to_config(out_channels=transformer.out_channels)
    if transformer.config.out_channels not in (channels, 2 * channels):
        raise ValueError(
            f"the transformer of {folder} gives {transformer.config.out_channels} channels for {channels} taken: it "
            f"must give {channels}, or {2 * channels} with a learned variance"
        )
    if vae.config.latent_channels != channels:
        raise ValueError(
            f"the VAE of {folder} makes latents of {vae.config.latent_channels} channels, the transformer takes "
            f"{channels}: give parts that belong together"
        )
    if not transformer.config.num_embeds_ada_norm:
        raise ValueError(f"the transformer of {folder} embeds no classes (num_embeds_ada_norm): give a DiT that does")
