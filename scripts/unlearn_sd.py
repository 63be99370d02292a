"""Make a Stable Diffusion pipeline (1.x, 2.x, XL) forget a concept, and save what plain diffusers loads.

    accelerate launch scripts/unlearn_sd.py --concept nudity \\
        --pretrained_model_name_or_path stable-diffusion-v1-5/stable-diffusion-v1-5
    python scripts/unlearn_sd.py --pretrained_model_name_or_path FOLDER --concept "a church" --anchor_concept "a house"
"""

import sys
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from accelerate import PartialState
from transformers.trainer_utils import set_seed

from hf_unlearn import UnlearnTrainer
from hf_unlearn.cli import parsing as cli
from hf_unlearn.cli.finish import finish, prepare_repo
from hf_unlearn.cli.flags import LoraFlags, TrainingFlags
from hf_unlearn.cli.stages import Stages
from hf_unlearn.common.limits import check_limits
from hf_unlearn.common.weights import weights_digest
from hf_unlearn.data.sources import load_captioned_images
from hf_unlearn.evaluation import concept_picture, draw_prompts, loss_metrics, strength_pictures, write_metrics
from hf_unlearn.evaluation.picture_prompts import PictureFlags
from hf_unlearn.evaluation.text_to_image import PictureEvaluation
from hf_unlearn.families.concepts import RETAIN_PROMPTS, concept_of, list_concepts
from hf_unlearn.families.latents import Drawing
from hf_unlearn.families.synthesis import concept_data
from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline
from hf_unlearn.report.reading import read_record
from hf_unlearn.report.recording import record_run
from hf_unlearn.saving.export import load_saved


@dataclass
class ModelFlags:
    pretrained_model_name_or_path: str | None = field(
        default=None, metadata={"help": "StableDiffusionPipeline or StableDiffusionXLPipeline: folder or Hub id"}
    )
    revision: str | None = field(default=None, metadata={"help": "Hub revision of the model"})
    variant: str | None = field(default=None, metadata={"help": "of the weight files, such as fp16"})
    train_method: str = field(default="full", metadata={"help": "full, xattn, noxattn, selfattn or text_encoder"})
    label_dropout: float = field(default=0.1, metadata={"help": "empty prompts among the retain samples"})
    enable_xformers_memory_efficient_attention: bool = field(
        default=False, metadata={"help": "instead of torch's own scaled dot product attention"}
    )


@dataclass
class ConceptFlags:
    concept: list[str] | None = field(default=None, metadata={"help": "what to forget: a preset or any words"})
    anchor_concept: str | None = field(default=None, metadata={"help": "what to draw instead"})
    prompt_templates: list[str] | None = field(
        default=None, metadata={"help": 'prompts of free text, "{}" is the concept, such as "a drawing of {}"'}
    )
    list_concepts: bool = field(default=False, metadata={"help": "print the presets and stop"})
    retain_prompts: list[str] | None = field(default=None, metadata={"help": "what must stay; default a mixed list"})
    num_forget_images: int = field(default=64, metadata={"help": "drawn by the model itself"})
    num_retain_images: int = field(default=128, metadata={"help": "drawn by the model itself"})
    forget_dataset_name: str | None = field(default=None, metadata={"help": "Hub id of images to forget, not drawn"})
    forget_data_dir: str | None = field(default=None, metadata={"help": "folder of images to forget"})
    retain_dataset_name: str | None = field(default=None, metadata={"help": "Hub id of images to retain, not drawn"})
    retain_data_dir: str | None = field(default=None, metadata={"help": "folder of images to retain"})
    image_column: str = field(default="image", metadata={"help": "column of the images"})
    caption_column: str = field(default="text", metadata={"help": "column of the captions, if there is one"})
    center_crop: bool = field(default=False, metadata={"help": "crop to a square instead of squeezing"})
    resolution: int | None = field(default=None, metadata={"help": "in pixels; default the model's"})
    num_inference_steps: int = field(default=30, metadata={"help": "of drawn images"})
    guidance_scale: float = field(default=7.5, metadata={"help": "of drawn images"})
    drawing_batch_size: int = field(default=4, metadata={"help": "images drawn at a time"})
    cache_dir: str | None = field(default=None, metadata={"help": "latents and masks; default OUTPUT_DIR/cache"})

    def __post_init__(self):
        counts = ("num_forget_images", "num_retain_images", "drawing_batch_size", "resolution")
        limits = dict.fromkeys(counts, "[1, inf)")
        check_limits(self, guidance_scale="[0, inf)", num_inference_steps="[1, 1000]", **limits)
        if self.resolution and self.resolution % 8:
            raise ValueError(f"resolution must be a multiple of 8, got {self.resolution}")

    @property
    def sources(self) -> dict[str, str]:
        """Where the forget and the retain images come from."""
        drawn = "drawn by the original model"
        return {
            "forget": self.forget_data_dir or self.forget_dataset_name or drawn,
            "retain": self.retain_data_dir or self.retain_dataset_name or drawn,
        }


@dataclass
class DiffusionFlags(TrainingFlags):
    train_batch_size: int = field(default=4, metadata={"help": "forget and retain samples per device"})
    max_train_steps: int = field(default=100, metadata={"help": "outer steps"})
    learning_rate: float = field(default=1e-5, metadata={"help": "rate of the retain steps"})


def images_of(name: str | None, folder: str | None, concept: ConceptFlags, pipeline):
    """(images, captions or None) from the flags, or None: then the model draws them."""
    if name is None and folder is None:
        return None
    size = concept.resolution or pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    return load_captioned_images(
        folder or name, size, concept.image_column, concept.caption_column, concept.center_crop
    )


def main() -> None:
    if "--list_concepts" in sys.argv[1:]:
        print(list_concepts())
        return
    model, concept, measuring, lora, training, method = cli.parse(
        (ModelFlags, ConceptFlags, PictureFlags, LoraFlags, DiffusionFlags), description=__doc__.splitlines()[0]
    )
    if training.dry_run:
        print(cli.resolved((model, concept, measuring, lora, training, method)), end="")
        return
    if model.pretrained_model_name_or_path is None:
        raise ValueError("no model: set --pretrained_model_name_or_path to a Stable Diffusion pipeline")
    if not concept.concept:
        raise ValueError("no concept: set --concept (--list_concepts shows the presets)")
    concepts = [concept_of(text, concept.anchor_concept, concept.prompt_templates) for text in concept.concept]
    cli.check_writable(training.output_dir)
    retain_prompts = concept.retain_prompts or RETAIN_PROMPTS
    # The others wait while the first one draws, which may take longer than an exchange of gradients ever does.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))
    evaluation = None  # for the main process only; what is missing for it fails here, before anything is drawn
    if state.is_main_process:
        evaluation = PictureEvaluation(measuring, concepts, retain_prompts, training.seed)
        if evaluation.note():
            print(evaluation.note())
    repo = prepare_repo(training)
    set_seed(training.seed)
    pipeline = load_text_to_image_pipeline(
        model.pretrained_model_name_or_path,
        xformers=model.enable_xformers_memory_efficient_attention,
        revision=model.revision,
        variant=model.variant,
    )
    pipeline.set_progress_bar_config(disable=True)
    made_from = [cli.resolved((model, concept, lora, training, method)), weights_digest(pipeline.unet)]
    stages = Stages(training.output_dir, ["data", "masks", "unlearn", "save", "evaluate"], show=state.is_main_process)

    stages.begin("data")
    drawing = Drawing(
        concept.num_inference_steps,
        concept.guidance_scale,
        concept.resolution,
        concept.drawing_batch_size,
        training.seed,
    )
    cache = concept.cache_dir or f"{training.output_dir}/cache"
    with state.local_main_process_first():  # the others find what the first has drawn
        pipeline.to(state.device)
        objective, forget, retain = concept_data(
            pipeline,
            concepts,
            cache,
            retain_prompts,
            concept.num_forget_images,
            concept.num_retain_images,
            drawing,
            method.forget_images,
            images_of(concept.forget_dataset_name, concept.forget_data_dir, concept, pipeline),
            images_of(concept.retain_dataset_name, concept.retain_data_dir, concept, pipeline),
            train_method=model.train_method,
            label_dropout=model.label_dropout,
            resolution=concept.resolution,
        )
    shown = [c.prompts[0] for c in concepts] + list(retain_prompts[: 2 if measuring.quick else 5])
    per_prompt = 1 if measuring.quick else 4
    if evaluation is not None:
        pictures = {"before": draw_prompts(pipeline, shown, drawing, per_prompt)}
        evaluation.draw("before", pipeline, drawing, cache)
    objective.release()
    lora.apply(objective, forget, retain, training.seed)
    words = ", ".join(c.name for c in concepts)
    options = {"masks": training.mask_path, "forgotten": words}
    trainer = UnlearnTrainer(objective, training.config(), method, forget, retain, **options)
    stages.begin("masks")
    trainer.prepare_masks(f"{cache}/masks")
    losses = {"before": trainer.evaluate()}
    if stages.finished("save", made_from):
        stages.begin("save", "finished before")
        load_saved(objective, training.output_dir)
    else:
        stages.begin("unlearn")
        trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
        stages.begin("save")
        trainer.save_model()
        if trainer.is_world_process_zero():  # a later call that only measures again knows the run from here
            base = (model.pretrained_model_name_or_path, model.revision)
            record_run(trainer, words, {}, *base, concept.sources).write(training.output_dir)
        stages.finish("save", made_from)
    stages.begin("evaluate")
    losses["after"] = trainer.evaluate()
    if evaluation is None:
        return
    pictures["after"] = draw_prompts(pipeline.to(state.device), shown, drawing, per_prompt)
    evaluation.draw("after", pipeline, drawing, cache)
    found = loss_metrics(losses, {"forget": len(forget), "retain": len(retain)})
    figures = evaluation.figures(found, state.device)  # {"before": {name: Metric}, "after": {name: Metric}}
    table = write_metrics(figures, training.output_dir)
    evaluation.sheets(training.output_dir)
    forgotten = [i < len(concepts) for i in range(len(shown))]
    blurred = [i < len(concepts) and concepts[i].unsafe for i in range(len(shown))]
    concept_picture(pictures, shown, forgotten, blurred, f"{training.output_dir}/before_after.png")
    if lora.use_lora:
        strengths = strength_pictures(pipeline, shown, drawing)
        path = f"{training.output_dir}/strengths.png"
        concept_picture(strengths, shown, forgotten, blurred, path, "adapter strength")
    finish(training, repo, read_record(training.output_dir).measured(figures), table, trainer)


if __name__ == "__main__":
    cli.run(main)
