"""Write a Stable Diffusion pipeline as one file, in the layout of CompVis' and Stability's code.

A1111, ComfyUI and others read it. The names are the opposites of those that diffusers' reader makes of them
(`diffusers.loaders.single_file_utils`), which reads back whatever is written here before it counts as written.
"""

import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..common.files import atomic
from ..common.precisions import as_stored

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
UNET, VAE = "model.diffusion_model.", "first_stage_model."
OUTER = {  # first part of a weight's name in the UNet -> its name there
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def write_single_file(pipeline: Any, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write UNet, autoencoder and text encoders of a pipeline to `path`, a .safetensors file.

    Args:
        dtype: of the written weights; None keeps that of the files that they came from.

    Raises:
        ValueError: the pipeline has no such layout, or a weight has no place in it.
        RuntimeError: diffusers reads other weights back. An earlier file is unchanged then.
    """
    with as_stored(pipeline, one_file=True) if dtype is None else nullcontext():
        state = {name: value.to("cpu", dtype).contiguous() for name, value in single_file_state(pipeline).items()}
        with atomic(path) as partial:
            save_file(state, partial, metadata={"format": "pt"})
            _check_reading(pipeline, load_file(partial), dtype)


def single_file_state(pipeline: Any) -> dict[str, Tensor]:
    """The weights of a pipeline under the names of that layout."""
    kind = type(pipeline).__name__
    if kind not in PIPELINES:
        raise ValueError(f"{kind} has no layout in a single file here: it is of Stable Diffusion 1.x, 2.x and XL")
    if not hasattr(pipeline.vae.config, "up_block_types"):
        small = type(pipeline.vae).__name__
        raise ValueError(
            f"the layout of a single file is that of an AutoencoderKL, and this model has an {small}: load its "
            "folder, or export an adapter with --format kohya"
        )
    state = {UNET + name: value for name, value in _unet(pipeline.unet)}
    state |= {VAE + name: value for name, value in _vae(pipeline.vae)}
    for encoder, prefix, of_open_clip in text_encoders(pipeline):
        named = _open_clip(encoder) if of_open_clip else _clip(encoder)
        state |= {prefix + name: value for name, value in named}
    return state


def text_encoders(pipeline: Any) -> list[tuple[nn.Module, str, bool]]:
    """(text encoder, first part of its names, whether it is of OpenCLIP) of a pipeline.

    SD 1.x has OpenAI's CLIP, 2.x OpenCLIP, whose activation is an exact GELU, and XL one of each.
    """
    if type(pipeline).__name__ == "StableDiffusionXLPipeline":
        first, second = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
        return [(pipeline.text_encoder, first, False), (pipeline.text_encoder_2, second, True)]
    if pipeline.text_encoder.config.hidden_act == "gelu":
        return [(pipeline.text_encoder, "cond_stage_model.model.", True)]
    return [(pipeline.text_encoder, "cond_stage_model.transformer.", False)]


def _renamed(name: str, names: dict[str, str]) -> str:
    """`name` with its first parts, up to a dot, as `names` says. Raises ValueError where that says nothing."""
    for ours, theirs in names.items():
        if name == ours or name.startswith(f"{ours}."):
            return theirs + name[len(ours) :]
    raise ValueError(f"the weight {name} has no place in a single file: it is of another architecture")


def unet_name(name: str, config: Any, with_attention: set[int]) -> str:
    """The name of a UNet's weight in that layout.

    Args:
        config: of the UNet.
        with_attention: numbers of the up blocks that have attention, after which their upsampler is counted.
    """
    layers = config["layers_per_block"]
    if not isinstance(layers, int):
        raise ValueError("the UNet's blocks have different numbers of layers, which a single file cannot say")
    found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", name)
    if found:
        side, block, kind, number, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
        first = block * (layers + 1)
        if kind == "downsamplers":
            return f"input_blocks.{first + layers + 1}.0.op.{rest.removeprefix('conv.')}"
        if kind == "upsamplers":
            return f"output_blocks.{first + layers}.{2 if block in with_attention else 1}.{rest}"
        place = f"input_blocks.{first + number + 1}" if side == "down" else f"output_blocks.{first + number}"
        return f"{place}.0.{_renamed(rest, RESNET)}" if kind == "resnets" else f"{place}.1.{rest}"
    found = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", name)
    if found and found[1] == "resnets":
        return f"middle_block.{2 * int(found[2])}.{_renamed(found[3], RESNET)}"
    if found:
        return f"middle_block.{2 * int(found[2]) + 1}.{found[3]}"
    return _renamed(name, OUTER)


def _unet(unet: Any) -> Iterator[tuple[str, Tensor]]:
    state = unet.state_dict()
    found = (re.match(r"up_blocks\.(\d+)\.attentions\.", name) for name in state)
    with_attention = {int(match[1]) for match in found if match}
    for name, value in state.items():
        yield unet_name(name, unet.config, with_attention), value


def _vae(vae: Any) -> Iterator[tuple[str, Tensor]]:
    last = len(vae.config.up_block_types) - 1
    for name, value in vae.state_dict().items():
        attention = re.fullmatch(r"(.+)mid_block\.attentions\.0\.(.+)", name)
        if attention:
            linear = value.dim() == 2  # a convolution of 1 x 1 there
            named = f"{attention[1]}mid.attn_1.{_renamed(attention[2], VAE_ATTENTION)}"
            yield named, value[:, :, None, None] if linear else value
            continue
        name = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", name)
        name = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{last - int(m[1])}.block.", name)
        name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0\.", lambda m: f"up.{last - int(m[1])}.upsample.", name)
        name = re.sub(r"mid_block\.resnets\.(\d+)\.", lambda m: f"mid.block_{int(m[1]) + 1}.", name)
        yield name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out"), value


def _clip(encoder: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """OpenAI's CLIP as transformers named it before 5.6, with `text_model` in front."""
    for name, value in encoder.state_dict().items():
        yield name if name.startswith("text_model.") else f"text_model.{name}", value


def _open_clip(encoder: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """OpenCLIP keeps queries, keys and values in one matrix, and its projection the other way round."""
    state = {name.removeprefix("text_model."): value for name, value in encoder.state_dict().items()}
    for name, value in state.items():
        layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", name)
        if name == "text_projection.weight":
            yield "text_projection", value.T
        elif layer is None:
            yield _renamed(name, OPEN_CLIP), value
        elif "self_attn.q_proj." in name:
            parts = [state[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            kind = name.rpartition(".")[2]
            yield f"transformer.resblocks.{layer[1]}.attn.in_proj_{kind}", torch.cat(parts)
        elif not re.search(r"self_attn\.[kv]_proj\.", name):
            yield f"transformer.resblocks.{layer[1]}.{_renamed(layer[2], OPEN_CLIP_LAYER)}", value


def _check_reading(pipeline: Any, state: dict[str, Tensor], dtype: torch.dtype | None) -> None:
    """Raise RuntimeError unless diffusers makes the pipeline's weights of `state`."""
    from diffusers.loaders import single_file_utils as reader

    parts = [
        ("unet", pipeline.unet, reader.convert_ldm_unet_checkpoint(dict(state), pipeline.unet.config)),
        ("vae", pipeline.vae, reader.convert_ldm_vae_checkpoint(dict(state), pipeline.vae.config)),
    ]
    for encoder, prefix, of_open_clip in text_encoders(pipeline):
        if of_open_clip:
            read = reader.convert_open_clip_checkpoint(encoder, dict(state), prefix)
        else:
            read = reader.convert_ldm_clip_checkpoint(dict(state))
        parts.append((prefix, encoder, read))
    for part, module, read in parts:
        read = {name.removeprefix("text_model."): value for name, value in read.items()}
        for name, value in module.state_dict().items():
            found = read.get(name.removeprefix("text_model."))
            wanted = value.to("cpu", dtype)
            if found is None or found.shape != wanted.shape or not torch.equal(found, wanted):
                raise RuntimeError(f"diffusers does not read {part} {name} back as it was written")
