"""Make a UNet2D diffusion pipeline forget a class or a set of images, show it, and save what plain diffusers loads.

    python scripts/unlearn_ddpm.py                     # forgets one digit of the shipped model
    python scripts/unlearn_ddpm.py --forget_class 7 --output_dir without-7
    accelerate launch scripts/unlearn_ddpm.py --pretrained_model_name_or_path google/ddpm-cifar10-32 \\
        --train_data_dir photos --forget_data_dir photos-to-forget
"""

from dataclasses import dataclass, field

from transformers.trainer_utils import set_seed

from hf_unlearn import NoisePrediction, UnlearnTrainer, digits, load_ddpm_pipeline
from hf_unlearn.cli import parsing as cli
from hf_unlearn.cli.finish import finish, prepare_repo
from hf_unlearn.cli.flags import ImageDataFlags, JudgeFlags, LoraFlags, TrainingFlags, unet_sets
from hf_unlearn.cli.judge import judge_for
from hf_unlearn.common.limits import check_limits
from hf_unlearn.data.streaming import first_of
from hf_unlearn.evaluation import (
    DIGITS_DDPM,
    SamplingConfig,
    class_rows,
    compare_pipelines,
    digits_judge,
    figures_table,
    frozen_copy,
    judged_pipelines,
    loss_metrics,
    losses_table,
    picture,
    retrained_digits_ddpm,
    strength_picture,
)
from hf_unlearn.report.recording import record_run


@dataclass
class ModelFlags:
    pretrained_model_name_or_path: str | None = field(
        default=None, metadata={"help": "UNet2D pipeline: folder or Hub id; default the shipped digits DDPM"}
    )
    revision: str | None = field(default=None, metadata={"help": "Hub revision of the model"})
    label_dropout: float = field(default=0.1, metadata={"help": "null labels among retain samples"})
    null_class: int | None = field(default=None, metadata={"help": "class embedding that means no class"})
    antithetic: bool = field(default=False, metadata={"help": "timesteps in pairs t, T-1-t"})


@dataclass
class SamplingFlags:
    guidance_scale: float = field(default=1.5, metadata={"help": "of the samples in the table and the picture"})
    num_inference_steps: int = field(default=10, metadata={"help": "of the samples in the table and the picture"})

    def __post_init__(self):
        check_limits(self, guidance_scale="[0, inf)", num_inference_steps="[1, 1000]")


def main() -> None:
    kinds = (ModelFlags, ImageDataFlags, SamplingFlags, JudgeFlags, LoraFlags, TrainingFlags)
    model, data, sampling, judging, lora, training, method = cli.parse(kinds, description=__doc__.splitlines()[0])
    default = model.pretrained_model_name_or_path is None
    if training.dry_run:
        print(cli.resolved((model, data, sampling, judging, lora, training, method)), end="")
        return
    cli.check_writable(training.output_dir)
    repo = prepare_repo(training)
    set_seed(training.seed)
    pipeline = load_ddpm_pipeline(model.pretrained_model_name_or_path or str(DIGITS_DDPM), revision=model.revision)
    forget, retain = unet_sets(data, pipeline, default)
    before, forgotten = frozen_copy(pipeline), data.forget_class or []

    objective = NoisePrediction(pipeline, model.label_dropout, model.null_class, model.antithetic)
    judge = judge_for(judging, data, retain, objective.conditional)
    lora.apply(objective, forget, retain, training.seed)
    measured = first_of(retain)
    trainer = UnlearnTrainer(
        objective,
        training.config(),
        method,
        forget_dataset=forget,
        retain_dataset=retain,
        eval_retain_dataset=measured,
        masks=training.mask_path,
        forgotten=data.forgotten,
    )
    judged = bool(judge) or (default and bool(forgotten) and judging.eval_samples_per_class > 0)
    losses = {} if judged else {"before": trainer.evaluate()}
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model()
    if not judged:
        losses["after"] = trainer.evaluate()
    if not trainer.is_world_process_zero():
        return

    draw = SamplingConfig(
        max(judging.eval_samples_per_class, 4),
        sampling.guidance_scale,
        sampling.num_inference_steps,
        training.seed,
    )
    pipelines = {"before": before.to(trainer.args.device), "after": pipeline}
    if judged:
        if default and len(forgotten) == 1:
            pipelines["retrained"] = retrained_digits_ddpm(forgotten[0]).to(trainer.args.device)
        if judge:
            figures = judged_pipelines(pipelines, *judge, forgotten, retain, training.output_dir, draw)
        else:
            real = digits()
            figures = compare_pipelines(
                pipelines, digits_judge(), forgotten, real.pixel_values, real.label_tensor, training.output_dir, draw
            )
        table = figures_table(figures)
        metrics, rows = {name: f.metrics() for name, f in figures.items()}, class_rows(figures, forgotten)
    else:
        table = losses_table(losses, training.output_dir)
        metrics, rows = loss_metrics(losses, {"forget": len(forget), "retain": len(measured)}), []
        picture(pipelines, f"{training.output_dir}/before_after.png", forgotten, draw)
    if lora.use_lora and objective.conditional:
        strength_picture(pipeline, f"{training.output_dir}/strengths.png", forgotten, draw)
    base = (model.pretrained_model_name_or_path, model.revision)
    record = record_run(trainer, data.forgotten, metrics, *base, data.sources, rows)
    finish(training, repo, record, table, trainer)


if __name__ == "__main__":
    cli.run(main)
