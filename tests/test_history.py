"""What was forgotten before is in the saved configuration, in order, and loads plainly."""

import logging

import pytest
import torch
from conftest import config, latents, random_images, tiny_pipeline, tiny_sd, tiny_vit
from diffusers import StableDiffusionPipeline, UNet2DModel
from diffusers.utils import logging as diffusers_logging
from transformers import AutoModelForImageClassification
from transformers.utils import logging as transformers_logging

from hf_unlearn import (
    SSD,
    FineTune,
    GradientAscent,
    TextToImage,
    UnlearnTrainer,
    encode_prompts,
    load_ddpm_pipeline,
    split_by_label,
)
from hf_unlearn.saving.history import read_history, write_history


def text_to_image_objective(pipeline) -> TextToImage:
    return TextToImage(pipeline, encode_prompts(pipeline, ["a church", "a house"]), {"a church": "a house"})


# build, (what trains it, its data), load as this package does, the network that plain from_pretrained loads
FAMILIES = {
    "ddpm": (
        tiny_pipeline,
        lambda model: (model, random_images()),
        load_ddpm_pipeline,
        lambda folder: UNet2DModel.from_pretrained(folder, subfolder="unet"),
    ),
    "classifier": (
        tiny_vit,
        lambda model: (model, random_images()),
        AutoModelForImageClassification.from_pretrained,
        AutoModelForImageClassification.from_pretrained,
    ),
    "sd": (
        tiny_sd,
        lambda model: ((made := text_to_image_objective(model)), latents(made.prompts)),
        StableDiffusionPipeline.from_pretrained,
        lambda folder: StableDiffusionPipeline.from_pretrained(folder).unet,
    ),
}


def forget(model, data, folder, label: int, words: str, steps: int = 1) -> UnlearnTrainer:
    trainer = UnlearnTrainer(
        model, config(folder, max_steps=steps), GradientAscent(), *split_by_label(data, label), forgotten=words
    )
    trainer.train()
    return trainer


@pytest.fixture
def warnings():
    """Messages of diffusers and transformers at WARNING and above."""
    seen = []

    class Seen(logging.Handler):
        def emit(self, record):
            seen.append(record.getMessage())

    handler = Seen(logging.WARNING)
    loggers = [diffusers_logging.get_logger("diffusers"), transformers_logging.get_logger("transformers")]
    for logger in loggers:
        logger.addHandler(handler)
    yield seen
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.mark.parametrize("family", FAMILIES)
def test_two_runs_in_a_row(family, tmp_path, warnings):
    build, parts, load, plain = FAMILIES[family]
    model = build()
    forget(*parts(model), tmp_path / "one", 1, "class 1").save_model()
    second = forget(*parts(load(str(tmp_path / "one"))), tmp_path / "two", 2, "class 2", steps=2)
    second.save_model()
    second.save_model()  # saving again adds nothing
    warnings.clear()
    network = plain(str(tmp_path / "two"))
    network.save_pretrained(tmp_path / "again")
    history = read_history(type(network).from_pretrained(tmp_path / "again"))
    assert warnings == []
    assert [e["forgotten"] for e in history] == ["class 1", "class 2"]
    assert [e["outer_steps"] for e in history] == [1, 2]
    assert [e["base_model"] for e in history] == [None, "one"]
    assert {e["method"] for e in history} == {"gradient_ascent"}
    assert history == second.history
    live = second.objective.network.state_dict()
    assert all(torch.equal(value, live[name]) for name, value in network.state_dict().items())


def test_runs_on_one_model_in_memory(tmp_path):
    pipeline, data = tiny_pipeline(), random_images()
    forget(pipeline, data, tmp_path, 1, "class 1")
    forget(pipeline, data, tmp_path, 2, "class 2").save_model()
    assert [e["forgotten"] for e in read_history(pipeline.unet)] == ["class 1", "class 2"]


def test_a_method_that_takes_no_step_counts_once_it_ran(tmp_path):
    data = random_images()
    trainer = UnlearnTrainer(tiny_vit(), config(tmp_path), SSD(), *split_by_label(data, 1))
    trainer.train()
    trainer.save_model()
    (only,) = read_history(AutoModelForImageClassification.from_pretrained(tmp_path))
    assert (only["forgotten"], only["method"], only["outer_steps"]) == ("5 samples", "ssd", 0)


def test_training_without_forget_data_and_no_training_add_nothing(tmp_path):
    forget_data, retain = split_by_label(random_images(), 1)
    model = tiny_vit()
    UnlearnTrainer(model, config(tmp_path), GradientAscent(), forget_data, retain).save_model()
    assert read_history(model) == [] and "unlearning_history" not in model.config.to_dict()
    trainer = UnlearnTrainer(model, config(tmp_path, max_steps=1), FineTune(), None, retain)
    trainer.train()
    trainer.save_model()
    assert read_history(AutoModelForImageClassification.from_pretrained(tmp_path)) == []


def test_a_resumed_run_has_the_straight_runs_history(tmp_path):
    data = split_by_label(random_images(), 1)

    def run(folder, **options) -> UnlearnTrainer:
        args = config(folder, max_steps=2, save_strategy="steps", save_steps=1)
        trainer = UnlearnTrainer(tiny_pipeline(), args, GradientAscent(), *data, forgotten="class 1")
        trainer.train(**options)
        trainer.save_model()
        return trainer

    straight = run(tmp_path / "straight")
    resumed = run(tmp_path / "resumed", resume_from_checkpoint=str(tmp_path / "straight/checkpoint-1"))
    assert straight.history == resumed.history and len(straight.history) == 1
    names = ("unet/config.json", "unet/diffusion_pytorch_model.safetensors")
    for name in names:
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes()


def test_an_empty_history_leaves_the_configuration_alone():
    model = tiny_vit()
    before = model.config.to_dict()
    write_history(model, [])
    assert model.config.to_dict() == before
