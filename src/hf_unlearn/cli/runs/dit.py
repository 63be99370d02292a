"""A run on a DiTPipeline."""

from collections.abc import Sequence
from typing import Any

from ...common.devices import joined_state
from ...evaluation import (
    SamplingConfig,
    class_rows,
    figures_table,
    frozen_copy,
    judged_pipelines,
    loss_metrics,
    losses_table,
    picture,
)
from ...families import DiTPrediction
from ...families.dit.load import load_dit_pipeline
from ...training.trainer import UnlearnTrainer
from ..image_sets import decoded_sets, latent_sets
from ..sample_classifier import sample_classifier
from .attack_stage import check_class_attack
from .early import check_images
from .sampling import check_sampling, class_draws, say_few, usable_guidance
from .skeleton import DiffusionRun, need_modules


class DiTRun(DiffusionRun):
    """Images are encoded once; the losses are those of latents."""

    def __init__(self, parts: Sequence[Any]):
        super().__init__(parts)
        self.model, self.data, self.samples, self.lora, self.training, self.method = parts
        self.base_model, self.revision = self.model.pretrained_model_name_or_path, self.model.revision
        self.original: Any = None
        self.classifier: Any = None
        self.state: Any = None
        self.guidance = 1.0

    @property
    def forgotten(self) -> str:
        return self.data.forgotten

    @property
    def sources(self) -> dict[str, str]:
        return self.data.sources

    @property
    def shows_stages(self) -> bool:
        return self.state.is_main_process

    @property
    def draws(self) -> list[str]:
        judged = self.samples.classifier_model_name_or_path is not None
        return class_draws(self.samples, self.data, judged, self.model.num_inference_steps)

    @property
    def side(self) -> int | None:
        return self.data.resolution and self.data.resolution // 8

    def check(self) -> None:
        if self.base_model is None:
            raise ValueError("no model: set --pretrained_model_name_or_path to a DiTPipeline")
        if self.data.streaming:
            raise ValueError("--streaming is for pixels: latents are encoded once and kept")
        check_images(self.data, self.training, self.method)
        self.samples.classifies(self.data, conditional=True)
        need_modules("report", "the picture of the result", "matplotlib")
        if self.samples.eval_samples_per_class and self.samples.classifier_model_name_or_path:
            need_modules("eval", "the Frechet distance in the table", "torchmetrics")

    def begin(self) -> None:
        self.state = joined_state()

    def check_attack(self) -> None:
        check_class_attack(self.data.forget_class, self.samples.classifier_model_name_or_path)

    def load(self) -> None:
        self.pipeline = load_dit_pipeline(str(self.base_model), revision=self.revision, variant=self.model.variant)
        why, classes = "", self.pipeline.transformer.config.num_embeds_ada_norm
        if classes != 1000:  # DiTPipeline's null class
            why = f"DiTPipeline guides models of 1000 classes only, and this one has {classes}"
        elif self.model.guidance_scale < 1:
            why = "DiTPipeline guides above 1 only"
        self.guidance = usable_guidance(self.model.guidance_scale, why)
        options = (self.model.label_dropout, self.model.antithetic)
        self.objective = DiTPrediction(self.pipeline, *options, variance_weight=self.model.variance_weight)
        self.original = frozen_copy(self.pipeline)
        check_sampling(self.original, self.draw, [0])

    def sets(self) -> None:
        cache = self.model.cache_dir or f"{self.training.output_dir}/cache"
        with self.state.local_main_process_first():  # the others find what the first has encoded
            sets = latent_sets(self.data, self.pipeline, cache, self.model.random_flip, self.state.device)
        self.forget, self.retain = sets
        self.data.say_classes()
        self.classifier = sample_classifier(self.samples, self.data, self.retain, conditional=True)
        if self.classifier is not None:
            say_few(self.draw.samples_per_class * len(self.data.classes), "--eval_samples_per_class")
        self.objective.class_names = self.data.class_names

    @property
    def draw(self) -> SamplingConfig:
        """How the evaluation samples."""
        sizes = (self.guidance, self.model.num_inference_steps, self.training.seed)
        return SamplingConfig(max(self.samples.eval_samples_per_class, 4), *sizes)

    def evaluate(self, trainer: UnlearnTrainer) -> tuple[str, dict[str, Any], Sequence[dict[str, Any]]]:
        folder, forgotten = self.training.output_dir, self.data.classes
        table = losses_table(self.losses, folder)
        metrics: dict[str, dict[str, Any]] = loss_metrics(self.losses, trainer.eval_dataset)
        draw, names = self.draw, self.data.class_names
        named = {"before": self.original, "after": self.pipeline}
        pipelines = {name: pipeline.to(self.state.device) for name, pipeline in named.items()}
        if self.classifier is None:
            picture(pipelines, f"{folder}/before_after.png", forgotten, draw, names)
            return table, metrics, []
        real = decoded_sets(self.data, self.pipeline)[1]
        classifier, classes = self.classifier
        found = judged_pipelines(pipelines, classifier, classes, forgotten, real, folder, draw, class_names=names)
        metrics = {name: {**found[name].metrics(), **row} for name, row in metrics.items()}
        return f"{figures_table(found)}\n\n{table}", metrics, class_rows(found, forgotten, names)
