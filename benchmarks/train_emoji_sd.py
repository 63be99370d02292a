"""Train the stand-in for Stable Diffusion: a small StableDiffusionPipeline of emoji, and the judge that reads it.

    python benchmarks/train_emoji_sd.py --tokenizer FOLDER --data_dir FOLDER --output_dir emoji-sd

24 objects in three styles, moved, turned and scaled. Without --data_dir the pictures are rendered from npm packages.
Writes OUTPUT_DIR (a diffusers pipeline, half precision weights) and OUTPUT_DIR/judge, and prints what both can do. An
interrupted run does not train judge and autoencoder again.
"""

import json
import time
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from emoji_figures import draw_grid
from emoji_pictures import augmented, load_emoji
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import trange
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from hf_unlearn.cli import parsing as cli
from hf_unlearn.cli.stages import Stages
from hf_unlearn.common.limits import SEEDS, check_limits
from hf_unlearn.common.untrusted import loading
from hf_unlearn.evaluation.emoji import OBJECTS, STYLES, EmojiClassifier, prompt_of
from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline

WIDTH = 40  # of the text encoder
CHANNELS = 8  # of the latents


UNSEEN = 5 / 256  # near the spread of the random start, with few digits in half precision


def schedule(parameters, steps: int, rate: float) -> tuple:
    """(optimizer, its one-cycle schedule)."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-3)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)


def step(optimizer, scheduler, loss: Tensor, bar: trange) -> None:
    loss.backward()
    if bar.n % 50 == 0:
        bar.set_postfix(loss=f"{loss.item():.4f}")
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()


def train_judge(data, steps: int, generator: torch.Generator) -> EmojiClassifier:
    """Style and object of augmented pictures with a little noise."""
    images, styles, things = data
    judge = EmojiClassifier().train()
    optimizer, scheduler = schedule(judge.parameters(), steps, 2e-3)
    for _ in (bar := trange(steps, desc="judge")):
        chosen = torch.randint(len(images), (64,), generator=generator)
        batch = augmented(images[chosen], generator)
        noise = torch.rand(64, 1, 1, 1, generator=generator) * 0.2
        style, thing = judge(batch + noise * torch.randn(batch.shape, generator=generator))
        loss = F.cross_entropy(style, styles[chosen]) + F.cross_entropy(thing, things[chosen], label_smoothing=0.05)
        step(optimizer, scheduler, loss, bar)
    return judge.eval()


def train_vae(images: Tensor, steps: int, generator: torch.Generator) -> AutoencoderTiny:
    """64x64 pixels in 8x8 latents of 8 channels. Noise on them makes the decoder forgive the UNet's errors."""
    vae = AutoencoderTiny(
        encoder_block_out_channels=(16,) * 4,
        decoder_block_out_channels=(16,) * 4,
        num_encoder_blocks=(1, 1, 3, 3),
        num_decoder_blocks=(3, 3, 1, 1),
        latent_channels=CHANNELS,
    ).train()
    vae.to(memory_format=torch.channels_last)
    optimizer, scheduler = schedule(vae.parameters(), steps, 2e-3)
    for _ in (bar := trange(steps, desc="autoencoder")):
        batch = augmented(images[torch.randint(len(images), (16,), generator=generator)], generator)
        latents = vae.encode(batch).latents
        noisy = latents + 0.1 * torch.randn(latents.shape, generator=generator)
        spread = (latents.flatten(1).std() - 1) ** 2 + latents.mean() ** 2  # unit latents, as the noise schedule wants
        step(optimizer, scheduler, F.l1_loss(vae.decode(noisy).sample, batch) + 0.1 * spread, bar)
    return vae.eval()


def build_pipeline(tokenizer: CLIPTokenizer, vae: AutoencoderTiny) -> StableDiffusionPipeline:
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=16,
        attention_head_dim=8,
        cross_attention_dim=WIDTH,
    )
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
        timestep_spacing="trailing",
    )  # Stable Diffusion's own noise schedule
    parts = (vae, CLIPTextModel(text), tokenizer, unet, scheduler)
    return StableDiffusionPipeline(*parts, None, None, requires_safety_checker=False)


def train_unet(pipeline, data, steps: int, batch_size: int, generator: torch.Generator) -> None:
    """UNet and text encoder together, one caption in ten empty; at the end the average of the last weights."""
    images, styles, things = data
    names = [prompt_of(STYLES[s], OBJECTS[o]) for s, o in zip(styles.tolist(), things.tolist())]
    options = dict(padding="max_length", max_length=pipeline.tokenizer.model_max_length, return_tensors="pt")
    tokens = pipeline.tokenizer([*names, ""], **options).input_ids
    trained = nn.ModuleList([pipeline.unet, pipeline.text_encoder]).train()
    average = AveragedModel(trained, multi_avg_fn=get_ema_multi_avg_fn(0.998))
    pipeline.unet.to(memory_format=torch.channels_last)
    optimizer, scheduler = schedule(trained.parameters(), steps, 2e-3)
    alphas = pipeline.scheduler.alphas_cumprod
    for _ in (bar := trange(steps, desc="unet")):
        chosen = torch.randint(len(images), (batch_size,), generator=generator)
        with torch.no_grad():
            latents = pipeline.vae.encode(augmented(images[chosen], generator)).latents
        noise = torch.randn(latents.shape, generator=generator)
        half = torch.randint(len(alphas), (batch_size // 2,), generator=generator)
        t = torch.cat([half, len(alphas) - 1 - half])
        noisy = alphas[t].sqrt().view(-1, 1, 1, 1) * latents + (1 - alphas[t]).sqrt().view(-1, 1, 1, 1) * noise
        dropped = torch.rand(batch_size, generator=generator) < 0.1
        ids = tokens[torch.where(dropped, len(names), chosen)]
        # 72 captions: each one that is asked for is encoded once.
        unique, place = ids.unique(dim=0, return_inverse=True)
        condition = pipeline.text_encoder(unique)[0][place]
        step(
            optimizer,
            scheduler,
            F.mse_loss(pipeline.unet(noisy, t, encoder_hidden_states=condition).sample, noise),
            bar,
        )
        average.update_parameters(trained)
    trained.load_state_dict(average.module.state_dict())
    trained.eval()


@torch.no_grad()
def flatten_unseen(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> None:
    """Keep only the signs of the embeddings of tokens that no caption has, all at one size.

    Training never moved these 98 % of the text encoder: they are the random start. As signs they still tell words
    apart, and the file compresses to a sixth. What the captions give stays the same to the bit.
    """
    captions = [prompt_of(style, thing) for style in STYLES for thing in OBJECTS]
    seen = sorted({number for ids in tokenizer(["", *captions]).input_ids for number in ids})
    table = text_encoder.get_input_embeddings().weight
    trained = table[seen].clone()
    table.copy_(torch.where(table < 0, -UNSEEN, UNSEEN))
    table[seen] = trained


def main() -> None:
    parser = cli.CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--tokenizer", required=True, help="folder with CLIP's vocab.json and merges.txt")
    parser.add_argument("--data_dir", help="folder with STYLE_64.npz files; default: render from npm")
    parser.add_argument("--judge_steps", type=int, default=800)
    parser.add_argument("--vae_steps", type=int, default=4000)
    parser.add_argument("--max_train_steps", type=int, default=6000)
    parser.add_argument("--train_batch_size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    check_limits(
        options,
        seed=SEEDS,
        **dict.fromkeys(("judge_steps", "vae_steps", "max_train_steps"), "[1, inf)"),
        train_batch_size="[2, inf)",
    )

    started, out = time.time(), Path(options.output_dir)
    cli.check_writable(str(out))
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    data = load_emoji(options.data_dir)
    with loading(options.tokenizer):
        tokenizer = CLIPTokenizer.from_pretrained(options.tokenizer)
    stages = Stages(out, ["judge", "autoencoder"])
    if stages.finished("judge", (options.judge_steps, options.seed)):
        judge = EmojiClassifier.from_pretrained(out / "judge", use_safetensors=True, torch_dtype=torch.float32).eval()
    else:
        judge = train_judge(data, options.judge_steps, generator)
        judge.save_pretrained(out / "judge")
        stages.finish("judge", (options.judge_steps, options.seed))
    generator.manual_seed(options.seed + 1)
    if stages.finished("autoencoder", (options.vae_steps, options.seed)):
        vae = AutoencoderTiny.from_pretrained(out / "vae", use_safetensors=True, torch_dtype=torch.float32).eval()
    else:
        vae = train_vae(data[0], options.vae_steps, generator)
        vae.save_pretrained(out / "vae")
        stages.finish("autoencoder", (options.vae_steps, options.seed))
    print(f"autoencoder: {autoencoded(vae, judge, data, generator)}", flush=True)
    generator.manual_seed(options.seed + 2)
    pipeline = build_pipeline(tokenizer, vae)
    train_unet(pipeline, data, options.max_train_steps, options.train_batch_size, generator)
    flatten_unseen(pipeline.text_encoder, tokenizer)
    pipeline.to(torch.float16).save_pretrained(out)
    judge.half().save_pretrained(out / "judge")
    judge.float()
    stages.path.unlink()
    report = describe(load_text_to_image_pipeline(str(out)), judge, data, generator)
    report |= {"seconds": round(time.time() - started), "settings": vars(options)}
    (out / "report.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))


@torch.no_grad()
def accuracies(judge: EmojiClassifier, pictures: Tensor, styles: Tensor, things: Tensor) -> dict[str, float]:
    style, thing = (torch.cat(p).argmax(1) for p in zip(*(judge(part) for part in pictures.split(256))))
    return {"style": (style == styles).double().mean().item(), "object": (thing == things).double().mean().item()}


@torch.no_grad()
def autoencoded(vae: AutoencoderTiny, judge: EmojiClassifier, data, generator: torch.Generator) -> dict:
    """What the judge reads in newly augmented pictures that went through the autoencoder, and how far they are off."""
    images, styles, things = (part.repeat(8, *[1] * (part.ndim - 1)) for part in data)
    real = augmented(images, generator)
    rebuilt = vae.decode(vae.encode(real).latents).sample
    return {**accuracies(judge, rebuilt, styles, things), "l1": (real - rebuilt).abs().mean().item()}


@torch.no_grad()
def describe(pipeline: StableDiffusionPipeline, judge: EmojiClassifier, data, generator: torch.Generator) -> dict:
    """Accuracy of the judge on newly augmented pictures, and of what the autoencoder and the pipeline make."""
    images, styles, things = (part.repeat(8, *[1] * (part.ndim - 1)) for part in data)
    real = augmented(images, generator)
    parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder, "vae": pipeline.vae}
    return {
        "real": accuracies(judge, real, styles, things),
        "autoencoder": autoencoded(pipeline.vae, judge, data, generator),
        "samples": accuracies(judge, *draw_grid(pipeline, 5, 20, 3.0)),
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
    }


if __name__ == "__main__":
    cli.run(main)
