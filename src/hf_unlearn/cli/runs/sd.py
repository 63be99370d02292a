"""A run on a text-to-image pipeline: a concept, and images that the model draws itself or is given."""

import copy
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from torch import nn

from ...common.devices import joined_state
from ...common.identity import file_digest, identity_of
from ...common.keys import class_code, code_key, content_key
from ...data.fingerprint import whole_fingerprint
from ...data.sources import load_captioned_images
from ...evaluation import concept_picture, loss_metrics, strength_pictures, write_metrics
from ...evaluation.concept_pictures import Column, draw_columns, picture_columns
from ...evaluation.picture_prompts import measuring_plan
from ...evaluation.text_to_image import PictureEvaluation
from ...evaluation.validation import ValidationPictures, check_validation
from ...families import denoiser_of, encode_prompts, side_of, text_to_image_objective
from ...families.concepts import Concept, about_retaining, concept_of, concept_pairs, fitting, prompts_to_retain
from ...families.latents import Drawing
from ...families.synthesis import concept_data
from ...families.text_to_image.load import load_text_to_image_pipeline
from ...families.text_to_image.pipelines import trained_names
from ...families.text_to_image.single_file import beside, is_single_file
from ...training.checks import method_for
from ...training.trainer import UnlearnTrainer
from ..attacks.flags import Known
from ..lean import take_adapter
from ..parsing import values_of
from ..plan import Room, adapter_instead, outlined
from ..stages import Stages
from .sampling import say_few
from .skeleton import DiffusionRun, need_modules

# Flags that say where something goes, and nothing of what it is.
ELSEWHERE = {
    *("output_dir", "cache_dir", "push_to_hub", "hub_model_id", "hub_token", "hub_private_repo", "push_masks"),
    *("dry_run", "report_to", "logging_steps", "dataloader_num_workers", "attack"),
    *("prompt_templates", "held_out_templates"),  # the concepts say which prompts are trained on
}


def _given(flags: Any, part: str) -> bool:
    """Whether the flags name images to "forget" or "retain"."""
    return bool(getattr(flags, f"{part}_data_dir") or getattr(flags, f"{part}_dataset_name"))


class TextToImageRun(DiffusionRun):
    """Five stages, none of which a repeated command does again."""

    stages = ("data", "masks", "unlearn", "save", "evaluate")

    def __init__(self, parts: Sequence[Any]):
        super().__init__(parts)
        self.model, self.concept, self.measuring, self.lora, self.training, self.method = parts
        self.base_model, self.revision = self.model.pretrained_model_name_or_path, self.model.revision
        self.concepts: list[Any] = []
        self.retain_prompts: tuple[str, ...] = ()
        self.loaded: Any = None  # what the original is
        self.given: dict[str, Any] = {}  # what the given images are, with their captions
        self.pictures: dict[str, Any] = {}
        self.state: Any = None
        self.evaluation: PictureEvaluation | None = None  # in the main process only
        scale = 7.5 if self.concept.guidance_scale is None else self.concept.guidance_scale  # until the model is there
        sizes = (self.concept.num_inference_steps, scale, self.concept.resolution)
        self.drawing = Drawing(*sizes, self.concept.drawing_batch_size, self.training.seed)
        self.cache = self.concept.cache_dir or f"{self.training.output_dir}/cache"

    @property
    def forgotten(self) -> str:
        return ", ".join(concept.name for concept in self.concepts)

    @property
    def sources(self) -> dict[str, str]:
        return self.concept.sources

    @property
    def shows_stages(self) -> bool:
        return self.state.is_main_process

    @property
    def masks_folder(self) -> str | None:
        return f"{self.cache}/masks"

    @property
    def made_from(self) -> Any:
        decided = [{k: v for k, v in values_of([part]).items() if k not in ELSEWHERE} for part in self.parts]
        del decided[2]  # how the result is measured
        masks = self.training.mask_path
        launch = [self.state.num_processes, os.environ.get("ACCELERATE_MIXED_PRECISION")]
        code = [code_key("training.trainer", "families.synthesis", "data.sources"), class_code(type(self.method))]
        told = [self.objective.prompts.texts, self.retain_prompts, [concept.trained for concept in self.concepts]]
        return [decided, self.loaded, self.given, told, masks and file_digest(masks), launch, code]

    def check(self) -> None:
        if self.base_model is None:
            raise ValueError("no model: set --pretrained_model_name_or_path to a text-to-image pipeline")
        if self.model.model_config is not None and not is_single_file(self.base_model):
            raise ValueError(f"--model_config is for a model in a single file, and {self.base_model} is none")
        if not self.concept.concept:
            raise ValueError("no concept: set --concept (--list_concepts shows the presets)")
        for part in ("forget", "retain"):
            name, folder = (getattr(self.concept, f"{part}_{kind}") for kind in ("dataset_name", "data_dir"))
            if name and folder:
                raise ValueError(f"give {part} images by --{part}_data_dir or by --{part}_dataset_name, not both")
            if folder and not Path(folder).exists():
                raise ValueError(f"{part}_data_dir {folder} does not exist")
        self.concepts = self.named_concepts
        self.retain_prompts = prompts_to_retain(self.concepts, self.concept.retain_prompts)
        given = self.concept
        folders = (given.forget_dataset_name, given.forget_data_dir, given.retain_dataset_name, given.retain_data_dir)
        if not any(folders):  # all is drawn, so the sizes are known
            self.method.sized(given.num_forget_images, given.num_retain_images)
        if self.method.trains and not (self.concept.forget_data_dir or self.concept.forget_dataset_name):
            concept_pairs(self.concepts, self.concept.num_forget_images)
        need_modules("report", "the picture of the result", "matplotlib")
        check_validation(self.measuring, self.training.report_to, self.training.eval_steps)

    def check_attack(self) -> None:
        forgotten = {prompt for concept in self.concepts for prompt in concept.prompts}
        if len([prompt for prompt in self.retain_prompts if prompt not in forgotten]) < 2:
            raise ValueError("--attack needs to know what stays: give at least two --retain_prompts")

    def digest(self) -> str | None:
        parts = {name: part for name, part in self.loaded.items() if isinstance(part, dict) and "weights" in part}
        return content_key({name: part["weights"] for name, part in parts.items()})  # as `model_digest` says it

    def known(self) -> Known:
        """With the original itself where its name alone does not say how it is loaded."""
        if self.model.model_config is None:
            return super().known()
        original = load_text_to_image_pipeline(str(self.base_model), config=self.model.model_config)
        return replace(super().known(), place=None, original=original)

    @property
    def named_concepts(self) -> list[Concept]:
        """What the flags name, with prompts and anchors."""
        given = self.concept
        told = (given.anchor_concept, given.prompt_templates, given.held_out_templates)
        named = [concept_of(text, *told) for text in given.concept or []]
        return fitting(named, given.num_forget_images) if self.method.trains else named

    @property
    def draws(self) -> list[str]:
        concepts, given = self.named_concepts, self.concept
        if not concepts:
            return ["no concept is named yet"]
        counts = {"forget": given.num_forget_images, "retain": given.num_retain_images}
        images = [f"{n} {part} images" for part, n in counts.items() if not _given(given, part)]
        data = f"the original generates {' and '.join(images)}" if images else "none are generated"
        retained = prompts_to_retain(concepts, given.retain_prompts)
        measured = measuring_plan(self.measuring, concepts, retained, self.training.seed)
        said = [] if _given(given, "retain") else about_retaining(concepts, given.retain_prompts)
        return [f"as data, {data}; what the cache holds is not generated again", measured, *said]

    @property
    def side(self) -> int | None:
        return self.concept.resolution and self.concept.resolution // 8

    def outlined(self) -> nn.Module | str:
        if self.model.train_method == "text_encoder":
            return "those of the text encoder are not looked at before they are loaded"
        if self.base_model is not None and is_single_file(self.base_model):
            network = outlined(self.model.model_config or beside(self.base_model) or self.base_model, None)
        else:
            network = super().outlined()
        if isinstance(network, nn.Module) and self.model.train_method is not None:
            chosen = trained_names(network, self.model.train_method)
            for name, p in network.named_parameters():
                p.requires_grad_(name in chosen)
        return network

    def settle(self, network: nn.Module | str, room: Room, stages: Stages) -> str:
        """Where the flags do not say which weights: all, or an adapter on all layers where they do not fit."""
        method = self.method
        said = self.model.train_method is not None or self.lora.use_lora is not None or self.training.mask_path
        if said or isinstance(network, str) or not method.trains or method.masks_every_step:
            return ""
        question = [self.base_model, self.revision, method.name, self.training.train_batch_size, self.side]
        why: str | None = stages.chosen("weights", question)  # as before, however much is free now
        why = adapter_instead(copy.deepcopy(network), self, room) if why is None else why
        if self.state is not None and self.state.num_processes > 1:
            [why] = broadcast_object_list([why])  # the processes find different memory
        if not self.training.dry_run:
            stages.choose("weights", question, why)
        if why:
            take_adapter(self)
        return why or ""

    def begin(self) -> None:
        # The others wait while the first one draws, which may take longer than an exchange of gradients ever does.
        self.state = joined_state(timeout=timedelta(days=1))
        if self.state.is_main_process:  # what is missing for it fails here, before anything is drawn
            prompts = (self.concepts, self.retain_prompts, self.training.seed)
            self.evaluation = PictureEvaluation(self.measuring, *prompts)
            if self.evaluation.note():
                print(self.evaluation.note())
            if self.evaluation.forgotten:
                say_few(self.evaluation.forgotten, "--num_eval_images")

    def load(self) -> None:
        self.pipeline = load_text_to_image_pipeline(
            str(self.base_model),
            xformers=self.model.enable_xformers_memory_efficient_attention,
            config=self.model.model_config,
            precision="fp32" if self.model.train_method == "text_encoder" else "stored",  # its gradients cross all
            revision=self.revision,
            variant=self.model.variant,
        )
        self.pipeline.set_progress_bar_config(disable=True)
        self.loaded = identity_of(self.pipeline)
        anchors = {p: a for c in self.concepts for p, a in zip(c.prompts[:1], c.anchors[:1]) if p != a}
        prompts = encode_prompts(self.pipeline, [*anchors, *anchors.values(), self.concepts[0].prompts[0]])
        self.drawing = replace(self.drawing, guidance_scale=self.guidance)
        # Until there are images:
        self.objective = text_to_image_objective(self.pipeline, prompts, anchors, **self.options)

    @property
    def guidance(self) -> float:
        """The guidance scale of the flags, or that at which the pipeline samples."""
        scale = self.concept.guidance_scale
        return denoiser_of(self.pipeline).guidance(self.pipeline) if scale is None else scale

    @property
    def options(self) -> dict[str, Any]:
        """How an objective of the pipeline is made."""
        found = {"train_method": self.model.train_method or "full", "label_dropout": self.model.label_dropout}
        return {**found, "resolution": self.concept.resolution, "guidance": self.guidance, **self.model.flow}

    def sets(self) -> None:
        given, method = self.concept, method_for(self.method, self.training)
        with self.state.local_main_process_first():  # the others find what the first has drawn
            self.pipeline.to(self.state.device)
            self.objective, self.forget, self.retain = concept_data(
                self.pipeline,
                self.concepts,
                self.cache,
                self.retain_prompts,
                given.num_forget_images,
                given.num_retain_images,
                self.drawing,
                method.synthesised_from,
                self.images_of(given.forget_dataset_name, given.forget_data_dir),
                self.images_of(given.retain_dataset_name, given.retain_data_dir),
                image_per_prompt=self.method.trains,
                **self.options,
            )
        self.draw("before")
        self.objective.release()

    def images_of(self, name: str | None, folder: str | None) -> Any:
        """Return (images, captions or None) from the flags, or None: then the model draws them."""
        source, given = folder or name, self.concept
        if source is None:
            return None
        columns = (given.image_column, given.caption_column, given.center_crop)
        images, captions = load_captioned_images(source, side_of(self.pipeline, given.resolution), *columns)
        self.given[source] = [whole_fingerprint(images), captions]
        return images, captions

    @property
    def shown(self) -> list[Column]:
        """Prompts of the picture."""
        return picture_columns(self.concepts, self.retain_prompts, self.measuring.quick)

    def draw(self, name: str) -> None:
        """Draw what the evaluation measures and shows, in the main process."""
        if self.evaluation is not None:
            per_prompt = 1 if self.measuring.quick else 4
            self.pictures[name] = draw_columns(self.pipeline, self.shown, self.drawing, per_prompt)
            self.evaluation.draw(name, self.pipeline, self.drawing, self.cache)

    def before(self, trainer: UnlearnTrainer) -> None:
        if self.measuring.validation_prompts:
            unsafe = any(concept.unsafe for concept in self.concepts)
            trainer.add_callback(ValidationPictures.of(self.measuring, trainer, self.drawing, unsafe))
        super().before(trainer)

    def evaluate(self, trainer: UnlearnTrainer) -> tuple[str, dict[str, Any], Sequence[dict[str, Any]]]:
        if self.evaluation is None:
            raise RuntimeError("only the main process evaluates")
        folder, shown = self.training.output_dir, self.shown
        self.pipeline.to(self.state.device)
        self.draw("after")
        found = loss_metrics(self.losses, trainer.eval_dataset)
        metrics = self.evaluation.figures(found, self.state.device)  # {"before": {name: Metric}, "after": ...}
        table = write_metrics(metrics, folder)
        self.evaluation.sheets(folder)
        concept_picture(self.pictures, shown, f"{folder}/before_after.png")
        if self.lora.use_lora:
            strengths = strength_pictures(self.pipeline, shown, self.drawing)
            concept_picture(strengths, shown, f"{folder}/strengths.png", "adapter strength")
        return table, metrics, []
