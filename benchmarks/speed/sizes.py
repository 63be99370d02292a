"""Networks of the published sizes with random weights, and what trains on them: no file and no network are needed.

The configurations are those of the published models' config.json. `tiny` ones have the same parts and a few thousand
weights: they test the code.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, FlowMatchEulerDiscreteScheduler
from torch import nn

from hf_unlearn import TextToImage
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.families import Objective
from hf_unlearn.families.dit.objective import DiTPrediction
from hf_unlearn.families.text_to_image.objective import Prompts

CROSS, PLAIN = "CrossAttn{}Block2D", "{}Block2D"


def blocks(*attention: bool) -> dict[str, tuple[str, ...]]:
    """Types of a UNet's blocks: which of the levels attend to the text, from the largest to the smallest."""
    down = [(CROSS if cross else PLAIN).format("Down") for cross in attention]
    up = [(CROSS if cross else PLAIN).format("Up") for cross in reversed(attention)]
    return {"down_block_types": tuple(down), "up_block_types": tuple(up)}


@dataclass(frozen=True)
class Size:
    """A published network.

    network: its class in diffusers. config: what is not the class's default; `tiny` takes the place of some of it.
    batch: samples a step. tokens: of a prompt. weights: how many the published one has, in millions.
    """

    network: str
    config: dict[str, Any]
    tiny: dict[str, Any]
    batch: int
    weights: float
    tokens: int = 77


SIZES = {
    "SD 1.5": Size(
        "UNet2DConditionModel",
        {"sample_size": 64, "cross_attention_dim": 768},
        {
            "sample_size": 8,
            "cross_attention_dim": 16,
            "block_out_channels": (8, 8, 16, 16),
            "norm_num_groups": 4,
            "attention_head_dim": 2,
            "layers_per_block": 1,
        },
        batch=4,
        weights=859.5,
    ),
    "DiT-XL/2": Size(
        "DiTTransformer2DModel",
        {
            "sample_size": 32,
            "num_layers": 28,
            "num_attention_heads": 16,
            "attention_head_dim": 72,
            "in_channels": 4,
            "out_channels": 8,
            "num_embeds_ada_norm": 1000,
        },
        {"sample_size": 4, "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8},
        batch=16,
        weights=749.8,  # diffusers keeps an embedding of the time in each of the 28 layers
    ),
    "SDXL": Size(
        "UNet2DConditionModel",
        {
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            **blocks(False, True, True),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
            "use_linear_projection": True,
        },
        {
            "sample_size": 8,
            "block_out_channels": (8, 8, 16),
            "transformer_layers_per_block": (1, 1, 1),
            "attention_head_dim": (1, 2, 2),
            "norm_num_groups": 4,
            "layers_per_block": 1,
            "cross_attention_dim": 16,
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 40,
        },
        batch=2,
        weights=2567.5,
    ),
    "SD 3.5 medium": Size(
        "SD3Transformer2DModel",
        {
            "sample_size": 128,
            "num_layers": 24,
            "num_attention_heads": 24,
            "attention_head_dim": 64,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 1536,
            "pooled_projection_dim": 2048,
            "in_channels": 16,
            "out_channels": 16,
            "pos_embed_max_size": 384,
            "dual_attention_layers": tuple(range(13)),
            "qk_norm": "rms_norm",
        },
        {
            "sample_size": 8,
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "joint_attention_dim": 16,
            "caption_projection_dim": 16,
            "pooled_projection_dim": 16,
            "pos_embed_max_size": 8,
            "dual_attention_layers": (0,),
        },
        batch=2,
        weights=2243.2,
        tokens=333,
    ),
    "Flux": Size(
        "FluxTransformer2DModel",
        {"guidance_embeds": True},
        {
            "in_channels": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "joint_attention_dim": 16,
            "pooled_projection_dim": 16,
            "axes_dims_rope": (2, 2, 4),
        },
        batch=1,
        weights=11901.4,
        tokens=512,
    ),
}
PIPELINES = {
    "SD 1.5": "StableDiffusionPipeline",
    "SDXL": "StableDiffusionXLPipeline",
    "SD 3.5 medium": "StableDiffusion3Pipeline",
    "Flux": "FluxPipeline",
}
PARTS = ("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3")
PARTS += ("safety_checker", "feature_extractor", "image_encoder")  # none of them is needed
TINY_SIDE = 8  # of latents


def network_of(name: str, device: Any, tiny: bool = False) -> nn.Module:
    """The network with random weights of a fixed seed, made on `device`."""
    import diffusers

    size = SIZES[name]
    torch.manual_seed(0)
    with torch.device(device):
        network: nn.Module = getattr(diffusers, size.network)(**{**size.config, **(size.tiny if tiny else {})})
    return network.to(device)  # what the class puts on the host whatever is said


def objective_of(name: str, network: nn.Module, train_method: str = "full", tiny: bool = False) -> Objective:
    """An objective around the network, without text encoders: its three prompts have random embeddings."""
    import diffusers

    with torch.device("cpu"):
        levels = 2 if tiny else 4  # a published autoencoder covers 8 x 8 pixels a latent
        types = {
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
        }
        vae = AutoencoderKL(block_out_channels=(8,) * levels, norm_num_groups=4, latent_channels=4, **types)
        ddim = DDIMScheduler(1000, steps_offset=1, clip_sample=False)
        if name == "DiT-XL/2":
            return DiTPrediction(DiTPipeline(network, vae, ddim))
        cls: Any = getattr(diffusers, PIPELINES[name])
        flow = name in ("SD 3.5 medium", "Flux")
        taken = inspect.signature(cls.__init__).parameters
        parts: dict[str, Any] = {part: None for part in PARTS if part in taken}
        if "requires_safety_checker" in taken:
            parts["requires_safety_checker"] = False
        parts["transformer" if flow else "unet"] = network
        pipeline = cls(**parts, vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0) if flow else ddim)
        texts, config = ["", "forgotten", "anchor"], network.config
        width = config.get("joint_attention_dim") or config.cross_attention_dim
        pooled = config.get("pooled_projection_dim")
        if name == "SDXL":
            pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        embeds = torch.randn(3, SIZES[name].tokens, width, generator=torch.Generator().manual_seed(1))
        told = None if pooled is None else torch.randn(3, pooled, generator=torch.Generator().manual_seed(2))
        prompts = Prompts(texts, embeds, [1, 1, 1], told)
        side = TINY_SIDE * 2 ** (levels - 1) if tiny else None  # in pixels
        return TextToImage(pipeline, prompts, {"forgotten": "anchor"}, train_method=train_method, resolution=side)


def latents(name: str, objective: Objective, count: int, label: int, tiny: bool = False) -> ArrayDataset:
    """Random latents of the network's own size, all with one label."""
    if isinstance(objective, TextToImage):
        channels, *sides = objective.denoiser.shape(objective.pipeline)
    else:
        channels, sides = objective.channels, [objective.network.config.sample_size] * 2
    sides = [TINY_SIDE] * 2 if tiny and name == "Flux" else sides  # its pipeline names the side, not the network
    made = torch.randn(count, channels, *sides, generator=torch.Generator().manual_seed(label))
    return ArrayDataset(made, torch.full((count,), label))
