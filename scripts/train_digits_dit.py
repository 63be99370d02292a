"""Train a small DiTPipeline of scikit-learn's digits, with an autoencoder of its own: a stand-in for DiT-XL/2.

python scripts/train_digits_dit.py --output_dir digits-dit
python scripts/train_digits_dit.py --output_dir digits-dit-without-3 --exclude_class 3 --vae digits-dit
"""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from torch.nn import functional as F
from tqdm import trange
from transformers import set_seed

from hf_unlearn import DiTPrediction, FineTune, UnlearnConfig, UnlearnTrainer, digits
from hf_unlearn.cli import parsing as cli
from hf_unlearn.common.limits import SEEDS, check_limits
from hf_unlearn.common.untrusted import loading
from hf_unlearn.data.pairs import split_by_label
from hf_unlearn.families.latents import encode_images


def train_vae(images: torch.Tensor, steps: int) -> AutoencoderKL:
    """8x8 grey pixels in 4x4 latents of 4 channels, of unit spread; noise on the latents instead of a KL term."""
    vae = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=8,
        scaling_factor=1.0,
    ).train()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in trange(steps, desc="autoencoder"):
        batch = images[torch.randint(len(images), (64,))]
        latents = vae.encode(batch).latent_dist.mode()
        noisy = latents + 0.1 * torch.randn_like(latents)
        spread = (latents.std() - 1) ** 2 + latents.mean() ** 2
        loss = F.l1_loss(vae.decode(noisy).sample, batch) + 0.1 * spread
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return vae.eval().requires_grad_(False)


def build_pipeline(vae: AutoencoderKL) -> DiTPipeline:
    """Ten digits of 1,000 classes: DiTPipeline's null class is number 1000. Learned sigma, DiT's own schedule."""
    transformer = DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=24,
        in_channels=4,
        out_channels=8,
        num_layers=6,
        sample_size=4,
        patch_size=1,
        num_embeds_ada_norm=1000,
    )
    return DiTPipeline(transformer, vae, DDIMScheduler(timestep_spacing="trailing", clip_sample=False))


def main() -> None:
    parser = cli.CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--exclude_class", type=int, help="leave this class out: the retrained reference")
    parser.add_argument("--vae", help="take the autoencoder of this pipeline folder instead of training one")
    parser.add_argument("--vae_steps", type=int, default=2000)
    parser.add_argument("--max_train_steps", type=int, default=4000)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    check_limits(options, seed=SEEDS, vae_steps="[1, inf)", max_train_steps="[1, inf)")
    cli.check_writable(options.output_dir)

    set_seed(options.seed)
    data = digits()
    if options.vae:
        with loading(options.vae):
            vae = AutoencoderKL.from_pretrained(options.vae, subfolder="vae", use_safetensors=True)
    else:
        vae = train_vae(data.pixel_values, options.vae_steps)
    pipeline = build_pipeline(vae)
    if options.exclude_class is not None:
        _, data = split_by_label(data, options.exclude_class)
    trainer = UnlearnTrainer(
        DiTPrediction(pipeline, variance_weight=1e-3),
        UnlearnConfig(
            output_dir=options.output_dir,
            max_steps=options.max_train_steps,
            learning_rate=options.learning_rate,
            warmup_steps=options.max_train_steps // 10,
            logging_steps=250,
            guard_steps=0,
            seed=options.seed,
        ),
        method=FineTune(),
        retain_dataset=encode_images(vae, data, f"{options.output_dir}/cache", flips=False, batch_size=256),
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    cli.run(main)
