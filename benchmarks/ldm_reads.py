"""Does the code that published Stable Diffusion read what `export --format single_file` writes?

    pip install --no-deps --target ldm stable-diffusion-sdkit==2.1.5 einops
    python benchmarks/ldm_reads.py ldm

The package is CompVis' `ldm`, on which A1111 is built. Its UNet and autoencoder of a small Stable Diffusion 1.x load
every weight by its name, none missing and none left over, and their outputs are compared with those of diffusers.
"""

import argparse
import sys
import types
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from hf_unlearn.evaluation import stamp
from hf_unlearn.evaluation.emoji import EMOJI_SD
from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline
from hf_unlearn.saving.single_file import single_file_state

WIDTHS, TEXT = (32, 64, 128, 128), 32


def small_pipeline() -> StableDiffusionPipeline:
    """A Stable Diffusion 1.x in small: its blocks, heads and layers, random weights of deviation 0.05."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(8, block_out_channels=WIDTHS, cross_attention_dim=TEXT)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = AutoencoderKL(block_out_channels=WIDTHS, layers_per_block=2, sample_size=64, **blocks)
    for weight in (*unet.parameters(), *vae.parameters()):
        nn.init.normal_(weight, std=0.05)
    sizes = {"hidden_size": TEXT, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = CLIPTextModel(CLIPTextConfig(**sizes, vocab_size=49408))
    tokenizer = load_text_to_image_pipeline(str(EMOJI_SD)).tokenizer
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1)
    return StableDiffusionPipeline(vae, text, tokenizer, unet, scheduler, None, None, requires_safety_checker=False)


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names begin so, without that."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def theirs(state: dict[str, Tensor]) -> tuple[Any, Any, Any]:
    """UNet, encoder and decoder of `ldm` with those weights. Raises RuntimeError for a name that does not fit."""
    from ldm.modules.diffusionmodules.model import Decoder, Encoder  # type: ignore[import-not-found]
    from ldm.modules.diffusionmodules.openaimodel import UNetModel  # type: ignore[import-not-found]

    multiples = [width // WIDTHS[0] for width in WIDTHS]
    unet = UNetModel(
        *(8, 4, WIDTHS[0], 4, 2, [4, 2, 1]),
        channel_mult=multiples,
        num_heads=8,
        use_spatial_transformer=True,
        context_dim=TEXT,
        legacy=False,
    )
    unet.load_state_dict(part(state, "model.diffusion_model."))
    sizes: dict[str, Any] = {"double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3}
    sizes |= {"ch": WIDTHS[0], "ch_mult": multiples, "num_res_blocks": 2, "attn_resolutions": []}
    found = [unet.eval()]
    for kind, name in ((Encoder, "encoder"), (Decoder, "decoder")):
        coder = kind(**sizes)
        coder.load_state_dict(part(state, f"first_stage_model.{name}."))
        found.append(coder.eval())
    return found[0], found[1], found[2]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ldm", help="folder that pip was given as --target")
    sys.path.insert(0, parser.parse_args().ldm)
    lists: Any = types.ModuleType("omegaconf.listconfig")  # ldm asks for one class of it that is not met here
    lists.ListConfig = type("ListConfig", (), {})
    sys.modules |= {"omegaconf": types.ModuleType("omegaconf"), "omegaconf.listconfig": lists}
    pipeline = small_pipeline()
    state = single_file_state(pipeline)
    unet, encoder, decoder = theirs(state)
    latents, times, context = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.randn(2, 7, TEXT)
    pixels = torch.randn(1, 3, 64, 64)
    ours, vae = pipeline.unet.eval(), pipeline.vae.eval()
    pairs = {
        "UNet": (unet(latents, timesteps=times, context=context), ours(latents, times, context).sample),
        "encoder": (vae.quant_conv(encoder(pixels)), vae.encode(pixels).latent_dist.parameters),
        "decoder": (decoder(vae.post_quant_conv(latents)), vae.decode(latents).sample),
    }
    print(f"{stamp('torch', 'diffusers')}\n\n{len(state)} weights")
    for name, (a, b) in pairs.items():
        print(f"{name}: outputs up to {float(b.abs().max()):.2g}, at most {float((a - b).abs().max()):.1g} apart")


if __name__ == "__main__":
    main()
