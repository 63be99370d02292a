"""Train a class-conditional DDPM of CIFAR-10, for tables of augmentation; resumable, and it says how long it takes.

    python benchmarks/train_cifar_ddpm.py --data_dir FOLDER --output_dir cifar-ddpm     # FOLDER/train*.parquet
    python benchmarks/train_cifar_ddpm.py --data_dir FOLDER --output_dir cifar-ddpm --judge CLASSIFIER

About three core-hours with the defaults (a step of batch 64 took 0.93 s of one core, 0.6 s with --bf16), minutes on a
GPU; after 20 steps the command says how long its own machine takes. 8,000 steps with --bf16 took 96 minutes and are
too few: 40 % of the samples are read right (docs/augmentation.md). A killed run goes on from its last checkpoint when
the same command is given again. With --judge a classifier reads samples of the result: below 70 % read right it is of
no use for variants.
The 1.8M weights (7 MB) are rebuilt by this command and not shipped.
"""

import time
from pathlib import Path

from diffusers import DDIMScheduler, UNet2DModel
from transformers import TrainerCallback, set_seed

from hf_unlearn import ClassConditionalDDPMPipeline, FineTune, NoisePrediction, UnlearnConfig, UnlearnTrainer
from hf_unlearn.cli import parsing as cli
from hf_unlearn.common.limits import SEEDS, check_limits
from hf_unlearn.data.sources import load_images
from hf_unlearn.evaluation.class_judge import class_judge
from hf_unlearn.evaluation.generation import SamplingConfig, sample_classes
from hf_unlearn.evaluation.metric import share_text
from hf_unlearn.families.ddpm.pipeline import load_ddpm_pipeline

ENOUGH = 0.7  # of the samples that a classifier must read right
TIMED = 20  # steps after which the time of all of them is known


def build_pipeline() -> ClassConditionalDDPMPipeline:
    """Build the untrained pipeline: ten classes and a null class, cosine noise schedule."""
    unet = UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=16,
        attention_head_dim=16,
        num_class_embeds=11,
    )
    scheduler = DDIMScheduler(1000, beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing", clip_sample=True)
    return ClassConditionalDDPMPipeline(unet, scheduler, null_class=10)


class Timed(TrainerCallback):
    """Say after some steps how long the rest takes."""

    def __init__(self) -> None:
        self.first, self.start = 0, 0.0

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.first, self.start = state.global_step, time.monotonic()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        done = state.global_step - self.first
        if done == TIMED:
            left = (state.max_steps - state.global_step) * (time.monotonic() - self.start) / done
            print(f"{state.max_steps - state.global_step} steps are left, about {left / 60:.0f} minutes", flush=True)


def main() -> None:
    parser = cli.CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="folder of CIFAR-10 as parquet files or images")
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--image_column", default="img")
    parser.add_argument("--label_column", default="label")
    parser.add_argument("--max_train_steps", type=int, default=12_000)
    parser.add_argument("--train_batch_size", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--checkpointing_steps", type=int, default=500)
    parser.add_argument("--bf16", action="store_true", help="a fifth less time on a CPU that multiplies in bfloat16")
    parser.add_argument("--judge", help="classifier of CIFAR-10 that reads samples of a finished pipeline")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts = ("max_train_steps", "train_batch_size", "checkpointing_steps")
    check_limits(options, seed=SEEDS, **dict.fromkeys(counts, "[1, inf)"))
    cli.check_writable(options.output_dir)
    if not (Path(options.output_dir) / "model_index.json").is_file():
        train(options)
    if options.judge:
        read(options)


def train(options) -> None:
    """Train, from the last checkpoint if there is one, and save the pipeline."""
    set_seed(options.seed)
    data = load_images(options.data_dir, 32, 3, image_column=options.image_column, label_column=options.label_column)
    trainer = UnlearnTrainer(
        NoisePrediction(build_pipeline()),
        UnlearnConfig(
            output_dir=options.output_dir,
            max_steps=options.max_train_steps,
            per_device_train_batch_size=options.train_batch_size,
            learning_rate=options.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=options.max_train_steps // 20,
            logging_steps=100,
            guard_steps=0,
            bf16=options.bf16,
            save_strategy="steps",
            save_steps=options.checkpointing_steps,
            save_total_limit=1,
            seed=options.seed,
        ),
        method=FineTune(),
        retain_dataset=data,
        callbacks=[Timed()],
    )
    trainer.train(resume_from_checkpoint="auto")
    trainer.save_model()


def read(options) -> None:
    """Print the share of samples that the classifier reads as what they were drawn for."""
    judge = class_judge(options.judge, None, range(10))
    images = sample_classes(load_ddpm_pipeline(options.output_dir), list(range(10)), SamplingConfig(20, 1.5, 25))
    right = sum(int(one) == i // 20 for i, one in enumerate(judge(images).argmax(1)))
    fit = "enough for variants" if right / len(images) >= ENOUGH else "too few for variants"
    print(f"read right: {share_text(right / len(images), len(images))}, {fit}")


if __name__ == "__main__":
    cli.run(main)
