"""A run on a UNet2D pipeline."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from ...data.images import digits
from ...data.streaming import RetainStream, first_of
from ...evaluation import (
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
from ...evaluation.class_pictures import shown_classes
from ...families import NoisePrediction
from ...families.ddpm.pipeline import load_ddpm_pipeline, set_null_class
from ...training.trainer import UnlearnTrainer
from ..image_sets import unet_sets
from ..plan import outlined
from ..sample_classifier import sample_classifier
from .attack_stage import check_class_attack
from .early import check_images
from .sampling import check_sampling, class_draws, say_few, usable_guidance
from .skeleton import DiffusionRun, need_modules


class DDPMRun(DiffusionRun):
    """The digits where no model is named: then the table has a retrained model too."""

    def __init__(self, parts: Sequence[Any]):
        super().__init__(parts)
        self.model, self.data, self.sampling, self.samples, self.lora, self.training, self.method = parts
        self.base_model, self.revision = self.model.pretrained_model_name_or_path, self.model.revision
        self.original: Any = None
        self.classifier: Any = None
        self.classified = False
        self.guidance = 1.0

    @property
    def default(self) -> bool:
        return self.base_model is None

    @property
    def forgotten(self) -> str:
        return self.data.forgotten

    @property
    def sources(self) -> dict[str, str]:
        return self.data.sources

    @property
    def draws(self) -> list[str]:
        judged = self.samples.classifier_model_name_or_path is not None or (self.default and self.data.forget_class)
        ten = set(range(10)) if self.default and self.samples.classifier_model_name_or_path is None else None
        return class_draws(self.samples, self.data, bool(judged), self.sampling.num_inference_steps, ten)

    @property
    def side(self) -> int | None:
        return self.data.resolution

    def outlined(self) -> nn.Module | str:
        return outlined(self.base_model or str(DIGITS_DDPM), self.revision)

    def check(self) -> None:
        check_images(self.data, self.training, self.method, optional=self.default)
        self.samples.classifies(self.data, conditional=True)
        need_modules("report", "the picture of the result", "matplotlib")
        if self.samples.eval_samples_per_class and (self.default or self.samples.classifier_model_name_or_path):
            need_modules("eval", "the Frechet distance in the table", "torchmetrics")

    def check_attack(self) -> None:
        named = self.data.forget_class or (self.default and not self.data.says_what)
        check_class_attack(named, self.default or self.samples.classifier_model_name_or_path)

    def load(self) -> None:
        self.pipeline = load_ddpm_pipeline(
            self.base_model or str(DIGITS_DDPM), revision=self.revision, variant=self.model.variant
        )
        if self.model.null_class is not None:
            set_null_class(self.pipeline, self.model.null_class)
        embedded = self.pipeline.unet.config.num_class_embeds
        self.samples.classifies(self.data, conditional=bool(embedded))
        if embedded:
            unguided = getattr(self.pipeline, "null_class", None) is None
            why = "the model names no null class (if one of its classes means none, say which with --null_class)"
            self.guidance = usable_guidance(self.sampling.guidance_scale, why if unguided else "")
        options = (self.model.label_dropout, self.model.null_class, self.model.antithetic)
        self.objective = NoisePrediction(self.pipeline, *options)
        self.original = frozen_copy(self.pipeline)
        check_sampling(self.original, self.draw, shown_classes(self.pipeline, [])[:1] if embedded else None)

    def sets(self) -> None:
        self.forget, self.retain = unet_sets(self.data, self.pipeline, self.default)
        self.data.say_classes()
        self.objective.class_names = self.data.class_names
        self.classifier = sample_classifier(self.samples, self.data, self.retain, self.objective.conditional)
        self.eval_retain = first_of(self.retain) if isinstance(self.retain, RetainStream) else None
        digits_of = self.default and bool(self.data.forget_class) and self.samples.eval_samples_per_class > 0
        self.classified = self.classifier is not None or digits_of
        if self.classified:
            say_few(self.draw.samples_per_class * len(self.data.classes), "--eval_samples_per_class")

    @property
    def draw(self) -> SamplingConfig:
        """How the evaluation samples."""
        sizes = (self.guidance, self.sampling.num_inference_steps, self.training.seed)
        return SamplingConfig(max(self.samples.eval_samples_per_class, 4), *sizes)

    def before(self, trainer: UnlearnTrainer) -> None:
        if not self.classified:
            super().before(trainer)

    def after(self, trainer: UnlearnTrainer) -> None:
        if not self.classified:
            super().after(trainer)

    def evaluate(self, trainer: UnlearnTrainer) -> tuple[str, dict[str, Any], Sequence[dict[str, Any]]]:
        forgotten, folder = self.data.classes, self.training.output_dir
        draw, names = self.draw, self.data.class_names
        pipelines = {"before": self.original.to(trainer.args.device), "after": self.pipeline}
        if self.classified:
            table, metrics, rows = self.classify(pipelines, forgotten, draw, trainer.args.device)
        else:
            table, rows = losses_table(self.losses, folder), []
            metrics = loss_metrics(self.losses, trainer.eval_dataset)
            picture(pipelines, f"{folder}/before_after.png", forgotten, draw, names)
        if self.lora.use_lora and self.objective.conditional:
            strength_picture(self.pipeline, f"{folder}/strengths.png", forgotten, draw, class_names=names)
        return table, metrics, rows

    def classify(
        self, pipelines: dict[str, Any], forgotten: list[int], draw: SamplingConfig, device: Any
    ) -> tuple[str, dict[str, Any], Sequence[dict[str, Any]]]:
        """Have the classifier recognise what each pipeline generates."""
        folder = self.training.output_dir
        if self.default and len(forgotten) == 1:
            try:
                pipelines["retrained"] = retrained_digits_ddpm(forgotten[0]).to(device)
            except OSError as missing:
                print(f"the table has no row retrained: {missing}")
        names, twice = self.data.class_names, ("before", "after")  # read under another sampler too
        if self.classifier is not None:
            classifier, classes = self.classifier
            found = judged_pipelines(
                pipelines, classifier, classes, forgotten, self.retain, folder, draw, twice, names
            )
        else:
            real: Any = digits()
            judge: Any = digits_judge()
            images = (real.pixel_values, real.label_tensor)
            found = compare_pipelines(pipelines, judge, forgotten, *images, folder, draw, cross_check=twice)
        metrics = {name: f.metrics() for name, f in found.items()}
        return figures_table(found), metrics, class_rows(found, forgotten, names)
