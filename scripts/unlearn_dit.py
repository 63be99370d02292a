"""Make a DiTPipeline forget a class or a set of images, and save what plain diffusers loads.

    accelerate launch scripts/unlearn_dit.py --pretrained_model_name_or_path facebook/DiT-XL-2-256 \\
        --train_data_dir imagenet/train --forget_class 207
"""

from dataclasses import dataclass, field

import torch
from accelerate import PartialState
from transformers.trainer_utils import set_seed

from hf_unlearn import DiTPrediction, UnlearnTrainer
from hf_unlearn.cli import parsing as cli
from hf_unlearn.cli.finish import finish, prepare_repo
from hf_unlearn.cli.flags import ImageDataFlags, JudgeFlags, LoraFlags, TrainingFlags, decoded_sets, latent_sets
from hf_unlearn.cli.judge import judge_for
from hf_unlearn.common.limits import check_limits
from hf_unlearn.evaluation import (
    SamplingConfig,
    class_rows,
    figures_table,
    frozen_copy,
    judged_pipelines,
    loss_metrics,
    losses_table,
    picture,
)
from hf_unlearn.families.dit.load import load_dit_pipeline
from hf_unlearn.report.recording import record_run


@dataclass
class ModelFlags:
    pretrained_model_name_or_path: str | None = field(default=None, metadata={"help": "DiTPipeline: folder or Hub id"})
    revision: str | None = field(default=None, metadata={"help": "Hub revision of the model"})
    label_dropout: float = field(default=0.1, metadata={"help": "null labels among retain samples"})
    antithetic: bool = field(default=False, metadata={"help": "timesteps in pairs t, T-1-t"})
    variance_weight: float = field(default=0.0, metadata={"help": "weight of the term that trains the variance half"})
    random_flip: bool = field(default=False, metadata={"help": "both flips of every image"})
    cache_dir: str | None = field(default=None, metadata={"help": "latents; default OUTPUT_DIR/cache"})
    guidance_scale: float = field(default=4.0, metadata={"help": "of the picture; 1 where there are not 1000 classes"})
    num_inference_steps: int = field(default=50, metadata={"help": "of the picture"})

    def __post_init__(self):
        check_limits(self, guidance_scale="[0, inf)", num_inference_steps="[1, 1000]", variance_weight="[0, inf)")


@dataclass
class DiTFlags(TrainingFlags):
    train_batch_size: int = field(default=16, metadata={"help": "forget and retain samples per device"})
    max_train_steps: int = field(default=100, metadata={"help": "outer steps"})
    learning_rate: float = field(default=1e-4, metadata={"help": "rate of the retain steps"})


def main() -> None:
    model, data, judging, lora, training, method = cli.parse(
        (ModelFlags, ImageDataFlags, JudgeFlags, LoraFlags, DiTFlags), description=__doc__.splitlines()[0]
    )
    if training.dry_run:
        print(cli.resolved((model, data, judging, lora, training, method)), end="")
        return
    if model.pretrained_model_name_or_path is None:
        raise ValueError("no model: set --pretrained_model_name_or_path to a DiTPipeline")
    cli.check_writable(training.output_dir)
    repo = prepare_repo(training)
    set_seed(training.seed)
    state = PartialState(cpu=not torch.cuda.is_available())
    pipeline = load_dit_pipeline(model.pretrained_model_name_or_path, revision=model.revision)
    cache = model.cache_dir or f"{training.output_dir}/cache"
    with state.local_main_process_first():  # the others find what the first has encoded
        forget, retain = latent_sets(data, pipeline, cache, model.random_flip, state.device)
    before, forgotten = frozen_copy(pipeline), data.forget_class or []
    judge = judge_for(judging, data, retain, conditional=True)

    objective = DiTPrediction(pipeline, model.label_dropout, model.antithetic, variance_weight=model.variance_weight)
    lora.apply(objective, forget, retain, training.seed)
    options = {"masks": training.mask_path, "forgotten": data.forgotten}
    trainer = UnlearnTrainer(objective, training.config(), method, forget, retain, **options)
    losses = {"before": trainer.evaluate()}
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model()
    losses["after"] = trainer.evaluate()
    if not trainer.is_world_process_zero():
        return
    table = losses_table(losses, training.output_dir)
    metrics, rows = loss_metrics(losses, {"forget": len(forget), "retain": len(retain)}), []
    guidance = model.guidance_scale if objective.null_class == 1000 else 1.0  # DiTPipeline's null class
    draw = SamplingConfig(max(judging.eval_samples_per_class, 4), guidance, model.num_inference_steps, training.seed)
    pipelines = {name: p.to(state.device) for name, p in {"before": before, "after": pipeline}.items()}
    if judge:
        real = decoded_sets(data, pipeline)[1]
        figures = judged_pipelines(pipelines, *judge, forgotten, real, training.output_dir, draw)
        table, rows = f"{figures_table(figures)}\n\n{table}", class_rows(figures, forgotten)
        metrics = {name: {**figures[name].metrics(), **row} for name, row in metrics.items()}
    else:
        picture(pipelines, f"{training.output_dir}/before_after.png", forgotten, draw)
    base = (model.pretrained_model_name_or_path, model.revision)
    record = record_run(trainer, data.forgotten, metrics, *base, data.sources, rows)
    finish(training, repo, record, table, trainer)


if __name__ == "__main__":
    cli.run(main)
