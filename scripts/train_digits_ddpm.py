"""Train the default model: a class-conditional DDPM of scikit-learn's digits; or retrain it without one class.

python scripts/train_digits_ddpm.py --output_dir digits-ddpm
python scripts/train_digits_ddpm.py --output_dir digits-ddpm-without-3 --exclude_class 3
python scripts/train_digits_ddpm.py --output_dir digits-unconditional --unconditional
python scripts/train_digits_ddpm.py --output_dir digits-train-part --train_part   # for benchmarks/augmentation.py
"""

from pathlib import Path

from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel
from safetensors.torch import save_file
from transformers import set_seed

from hf_unlearn import ClassConditionalDDPMPipeline, FineTune, NoisePrediction, UnlearnConfig, UnlearnTrainer, digits
from hf_unlearn.cli import parsing as cli
from hf_unlearn.common.limits import SEEDS, check_limits
from hf_unlearn.data.pairs import split_by_label
from hf_unlearn.training.recipes import digits_splits


def build_pipeline(conditional: bool = True) -> ClassConditionalDDPMPipeline | DDPMPipeline:
    """The untrained pipeline: 0.40M weights, ten classes and a null class (or none), cosine noise schedule."""
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(24, 48),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=8,
        num_class_embeds=11 if conditional else None,
    )
    scheduler = DDIMScheduler(
        num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing", clip_sample=True
    )
    return (
        ClassConditionalDDPMPipeline(unet, scheduler, null_class=10) if conditional else DDPMPipeline(unet, scheduler)
    )


def main() -> None:
    parser = cli.CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--exclude_class", type=int, help="leave this class out: the retrained reference")
    parser.add_argument("--unconditional", action="store_true", help="a model without labels, a plain DDPMPipeline")
    parser.add_argument(
        "--train_part", action="store_true", help="only the 1,258 training images of digits_splits, no test image"
    )
    parser.add_argument("--max_train_steps", type=int, default=4500)
    parser.add_argument("--train_batch_size", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--half_weights", help="also write the UNet's weights, in half precision, to this file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    check_limits(options, seed=SEEDS, max_train_steps="[1, inf)", train_batch_size="[1, inf)")
    cli.check_writable(options.output_dir)

    if options.half_weights and not Path(options.half_weights).absolute().parent.is_dir():
        raise ValueError(f"half_weights {options.half_weights}: there is no such folder, make it first")
    set_seed(options.seed)
    pipeline = build_pipeline(not options.unconditional)
    data = digits_splits()["train"] if options.train_part else digits()
    if options.exclude_class is not None:
        _, data = split_by_label(data, options.exclude_class)
    trainer = UnlearnTrainer(
        NoisePrediction(pipeline, label_dropout=0.1, antithetic=True),
        UnlearnConfig(
            output_dir=options.output_dir,
            max_steps=options.max_train_steps,
            per_device_train_batch_size=options.train_batch_size,
            learning_rate=options.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=options.max_train_steps // 10,
            logging_steps=250,
            guard_steps=0,
            seed=options.seed,
        ),
        method=FineTune(),
        retain_dataset=data,
    )
    trainer.train()
    trainer.save_model()
    if options.half_weights:
        save_file({name: value.half() for name, value in pipeline.unet.state_dict().items()}, options.half_weights)


if __name__ == "__main__":
    cli.run(main)
