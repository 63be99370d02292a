"""Tiny text-to-image pipelines of the real classes beside Stable Diffusion's, with random weights, 16x16 images.

Sana draws nothing under 32x32."""

import string

import torch
from conftest import TINY_VAE, byte_tokenizer, tiny_text_encoder
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from torch import nn

LETTERS = string.ascii_letters + string.digits + ".,:;-!?'\"()"
VAE = dict(**TINY_VAE, scaling_factor=1.5, shift_factor=0.06)
BLOCKS = dict(num_attention_heads=2, num_layers=2)


def ready(pipeline):
    """Without a progress bar; weights that start at exactly 0, as those that end a block, are moved a little."""
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        for p in pipeline.transformer.parameters():
            p.add_(torch.randn_like(p) * 0.02)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval()
    return pipeline


def t5():
    """(tokenizer of single letters, T5EncoderModel)."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((letter, -2.0) for letter in LETTERS)]
    tokenizer = T5Tokenizer(vocab=vocab, extra_ids=0)
    sizes = dict(d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return tokenizer, T5EncoderModel(T5Config(vocab_size=len(tokenizer), **sizes)).eval()


def qwen_tokenizer():
    """A Qwen2Tokenizer of single bytes, with a chat template."""
    from transformers import Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab = {word: i for i, word in enumerate([*bytes_to_unicode().values(), *special])}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[], additional_special_tokens=special[1:])
    turn = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    tokenizer.chat_template = f"{{% for m in messages %}}{turn}{{% endfor %}}<|im_start|>assistant\n"
    return tokenizer


def gemma_tokenizer():
    """A GemmaTokenizer of single letters that begins with <bos>."""
    from tokenizers.processors import TemplateProcessing
    from transformers import GemmaTokenizer

    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", "\n", *LETTERS]
    tokenizer = GemmaTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
    begin = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    tokenizer.backend_tokenizer.post_processor = begin
    return tokenizer


def tiny_sd3(seed: int = 0, with_t5: bool = True, **network):
    """3.5 medium's second attention in the first block."""
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection

    torch.manual_seed(seed)
    sizes = dict(sample_size=8, patch_size=2, in_channels=4, out_channels=4, pos_embed_max_size=8, qk_norm="rms_norm")
    widths = dict(joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32, attention_head_dim=8)
    transformer = SD3Transformer2DModel(**{**sizes, **widths, **BLOCKS, "dual_attention_layers": (0,), **network})
    clips = [tiny_text_encoder(CLIPTextModelWithProjection, projection_dim=16).eval() for _ in range(2)]
    tokenizer, encoder = t5() if with_t5 else (None, None)
    return ready(
        StableDiffusion3Pipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=AutoencoderKL(**VAE),
            text_encoder=clips[0],
            tokenizer=byte_tokenizer(),
            text_encoder_2=clips[1],
            tokenizer_2=byte_tokenizer(),
            text_encoder_3=encoder,
            tokenizer_3=tokenizer,
        )
    )


def tiny_flux(seed: int = 0, guidance_embeds: bool = True):
    from diffusers import FluxPipeline, FluxTransformer2DModel

    torch.manual_seed(seed)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_single_layers=1,
        attention_head_dim=8,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(2, 2, 4),
        **BLOCKS,
    )
    tokenizer, encoder = t5()
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=AutoencoderKL(**VAE),
        text_encoder=tiny_text_encoder().eval(),
        tokenizer=byte_tokenizer(),
        text_encoder_2=encoder,
        tokenizer_2=tokenizer,
        transformer=transformer,
    )
    return ready(pipeline)


def tiny_flux2(seed: int = 0, is_distilled: bool = False):
    from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_single_layers=1,
        attention_head_dim=8,
        joint_attention_dim=3 * 8,
        guidance_embeds=False,
        timestep_guidance_channels=16,
        axes_dims_rope=(2, 2, 2, 2),
        **BLOCKS,
    )
    tokenizer = qwen_tokenizer()
    layers = dict(num_hidden_layers=28, hidden_size=8, intermediate_size=8)  # the pipeline reads the 27th
    heads = dict(num_attention_heads=2, num_key_value_heads=1, head_dim=4)
    text = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), **layers, **heads)).eval()
    vae = AutoencoderKLFlux2(**TINY_VAE)
    with torch.no_grad():
        vae.bn.running_mean.normal_()
        vae.bn.running_var.uniform_(0.5, 2.0)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return ready(Flux2KleinPipeline(scheduler, vae, text, tokenizer, transformer, is_distilled))


def tiny_sana(seed: int = 0):
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    torch.manual_seed(seed)
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=8,
        sample_size=8,
    )
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (), ()),
        decoder_qkv_multiscales=((), (), ()),
        scaling_factor=0.41407,
    )
    tokenizer = gemma_tokenizer()
    sizes = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, head_dim=4)
    text = Gemma2Model(Gemma2Config(vocab_size=len(tokenizer), num_key_value_heads=1, **sizes)).eval()
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )  # as the published models have it
    return ready(SanaPipeline(tokenizer, text, vae, transformer, scheduler))


def tiny_qwen(seed: int = 0):
    from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(seed)
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        attention_head_dim=8,
        joint_attention_dim=16,
        axes_dims_rope=(2, 2, 4),
        **BLOCKS,
    )
    vae = AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.8, 1.1, 2.0],
    )
    tokenizer = qwen_tokenizer()
    heads = dict(num_attention_heads=2, num_key_value_heads=2)
    text = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, vocab_size=len(tokenizer), **heads)
    text |= {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
    vision = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=16)
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    encoder = Qwen2_5_VLForConditionalGeneration(config).eval()
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02)
    return ready(QwenImagePipeline(scheduler, vae, encoder, tokenizer, transformer))


def tiny_pixart(seed: int = 0):
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

    torch.manual_seed(seed)
    sizes = dict(attention_head_dim=8, in_channels=4, out_channels=8, sample_size=8, patch_size=2)
    transformer = PixArtTransformer2DModel(cross_attention_dim=16, caption_channels=32, **sizes, **BLOCKS)
    tokenizer, encoder = t5()
    vae = AutoencoderKL(**TINY_VAE)
    scheduler = DPMSolverMultistepScheduler()
    return ready(PixArtSigmaPipeline(tokenizer, encoder, vae, transformer, scheduler))


TINY = {
    "sd3": tiny_sd3,
    "flux": tiny_flux,
    "flux2": tiny_flux2,
    "sana": tiny_sana,
    "qwen": tiny_qwen,
    "pixart": tiny_pixart,
}
SIDES = {**dict.fromkeys(TINY, 16), "sana": 32}


def small(family: str, seed: int = 0):
    """A tiny pipeline whose own size is `SIDES`: Flux and Qwen-Image say theirs beside the configuration."""
    pipeline = TINY[family](seed)
    if hasattr(pipeline, "default_sample_size"):
        pipeline.default_sample_size = SIDES[family] // pipeline.vae_scale_factor
    return pipeline
