"""Pictures at every evaluation, sent to trackers: what they show, that nobody else gets them, that nothing changes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from conftest import config, latents, tiny_sd
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from hf_unlearn import METHODS, TextToImage, UnlearnTrainer, encode_prompts, split_by_label
from hf_unlearn.evaluation.concept_pictures import draw_prompts
from hf_unlearn.evaluation.picture_prompts import PictureFlags
from hf_unlearn.evaluation.validation import ValidationPictures, check_validation
from hf_unlearn.families.latents import Drawing

TEXTS = ["a photo of a church", "a photo of a house", "a dog"]
PROMPTS = ["a church", "a dog"]
DRAWING = Drawing(num_inference_steps=2, guidance_scale=3.0)


class Fake(GeneralTracker):
    name, requires_logging_directory = "fake", False
    got: list = []

    def __init__(self, run_name: str):
        super().__init__()

    def start(self):
        Fake.got.append("started")

    @property
    def tracker(self):
        return None

    def store_init_configuration(self, values):
        pass

    def log(self, values, step=None, **kwargs):
        pass

    def log_images(self, values, step=None, **kwargs):
        Fake.got.append((step, values))


@pytest.fixture
def fake(monkeypatch):
    """A tracker that transformers and accelerate know by its name."""
    Fake.got = []
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "fake", Fake)
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "fake", TrainerCallback)
    return Fake


def trainer_of(folder, dropout: float = 0.0, **options) -> UnlearnTrainer:
    pipeline = tiny_sd(0)
    objective = TextToImage(pipeline, encode_prompts(pipeline, TEXTS), {TEXTS[0]: TEXTS[1]}, label_dropout=0.5)
    for module in pipeline.unet.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    forget, retain = split_by_label(latents(objective.prompts), [1])
    steps = {"max_steps": 3, "eval_strategy": "steps", "eval_steps": 1, **options}
    return UnlearnTrainer(objective, config(folder, **steps), METHODS["sfron"](), forget, retain)


def drawn(trainer) -> torch.Tensor:
    """What the weights draw, without dropout and without a change of torch's generator."""
    network = trainer.objective.network
    training = network.training
    network.eval()
    with torch.random.fork_rng():
        pictures = draw_prompts(trainer.objective.pipeline, PROMPTS, DRAWING, 2)
    network.train(training)
    return pictures


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.objective.network.state_dict().items()}


def test_every_evaluation_is_shown_and_the_run_is_the_same(tmp_path, fake):
    """With dropout, so that a picture that took a random number would change the weights."""
    silent = trainer_of(tmp_path / "silent", 0.3, report_to="none")
    silent.evaluate()
    silent.train()
    trainer = trainer_of(tmp_path / "run", 0.3, report_to="fake")
    before = drawn(trainer)
    trainer.add_callback(ValidationPictures(trainer, PROMPTS, DRAWING, per_prompt=2))
    trainer.evaluate()  # of the original, as a command does; training begins with the same again
    trainer.train()
    assert all(torch.equal(value, weights(silent)[name]) for name, value in weights(trainer).items())
    assert fake.got[0] == "started" and [step for step, _ in fake.got[1:]] == [0, 1, 2, 3]
    after = drawn(trainer)
    assert (before - after).abs().max() > 1e-2
    for (_, shown), made in ((fake.got[1], before), (fake.got[-1], after)):
        assert list(shown) == ["validation/a church", "validation/a dog"]
        for images, wanted in zip(shown.values(), made, strict=True):
            got = np.stack([np.asarray(image) for image in images])
            expected = ((wanted / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy()
            assert np.array_equal(got, expected.astype("uint8"))


def test_a_resumed_run_is_a_straight_one(tmp_path, fake):
    def drawing(folder, **options):
        trainer = trainer_of(folder, report_to="fake", save_strategy="steps", save_steps=1, **options)
        trainer.add_callback(ValidationPictures(trainer, PROMPTS, DRAWING, per_prompt=1))
        return trainer

    straight = drawing(tmp_path / "one")
    straight.train()
    resumed = drawing(tmp_path / "one")
    fake.got.clear()
    resumed.train(str(tmp_path / "one/checkpoint-2"))
    assert all(torch.equal(value, weights(straight)[name]) for name, value in weights(resumed).items())
    assert [entry[0] for entry in fake.got if entry != "started"] == [3]


def test_unsafe_ones_are_blurred(tmp_path, fake):
    trainer = trainer_of(tmp_path, report_to="fake")
    for blurred in (False, True):
        trainer.add_callback(ValidationPictures(trainer, PROMPTS[:1], DRAWING, 1, blurred))
    trainer.evaluate()
    sharp, soft = (np.asarray(shown["validation/a church"][0], float) for _, shown in fake.got[-1:-4:-2][::-1])
    assert np.abs(np.diff(soft, axis=0)).mean() < 0.5 * np.abs(np.diff(sharp, axis=0)).mean()


def test_tensorboard_has_them(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = trainer_of(tmp_path, report_to="tensorboard", max_steps=1)
    trainer.add_callback(ValidationPictures(trainer, PROMPTS[:1], DRAWING, 2))
    trainer.train()
    [folder] = (Path(tmp_path) / "runs").iterdir()  # beside the curves
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    tag = "validation/a church"
    found = [name for name in events.Tags()["images"] if name.startswith(tag)]
    assert found and {event.step for name in found for event in events.Images(name)} == {0, 1}
    event = events.Images(found[0])[0]
    assert event.height * event.width >= 16 * 16 and math.log2(event.height).is_integer()
    assert "eval/forget_loss" in events.Tags()["scalars"]


def test_what_nobody_would_see_is_refused(tmp_path, fake):
    asked = PictureFlags(validation_prompts=["x"])
    for report_to, eval_steps, problem in (
        (["none"], 1, "set --report_to, to tensorboard for example"),
        (["mlflow"], 1, "report_to mlflow takes no pictures through accelerate, these do: .*tensorboard"),
        (["fake"], None, "set --eval_steps"),
    ):
        with pytest.raises(ValueError, match=problem):
            check_validation(asked, report_to, eval_steps)
    check_validation(asked, ["fake", "tensorboard"], 5)
    check_validation(PictureFlags(), ["none"], None)
    with pytest.raises(ValueError, match="--num_validation_images is for --validation_prompts"):
        check_validation(PictureFlags(num_validation_images=2), ["none"], None)
    with pytest.raises(ValueError, match="num_validation_images must be at least 1, got 0"):
        PictureFlags(validation_prompts=["x"], num_validation_images=0)
    with pytest.raises(ValueError, match="are drawn for trackers"):
        ValidationPictures(trainer_of(tmp_path, report_to="none"), PROMPTS, DRAWING)
