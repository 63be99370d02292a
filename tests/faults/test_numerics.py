"""Numbers that go wrong: found at the step, explained in one line, the last good weights kept."""

from dataclasses import dataclass, replace

import pytest
import torch
from conftest import config, random_images, tiny_pipeline
from safetensors.torch import load_file
from torch.utils.data import Dataset

from hf_unlearn import (
    DivergenceError,
    FineTune,
    GradientAscent,
    NoisePrediction,
    SFRon,
    UnlearnTrainer,
    split_by_label,
)
from hf_unlearn.data.numerics import bad_samples, total_norm
from hf_unlearn.families.latents import Cache
from hf_unlearn.saliency.ranks import add_lora, choose_lora
from hf_unlearn.saving.adapters import tuner_layers

SAVED = "last_good/unet/diffusion_pytorch_model.safetensors"


class Lazy(Dataset):
    """Items that are made when they are asked for; `bad` maps positions to a value in one of their pixels."""

    def __init__(self, images, bad: dict[int, float]):
        self.images, self.bad = images, bad

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict:
        item = {name: value.clone() for name, value in self.images[i].items()}
        if i in self.bad:
            item["pixel_values"][0, 3, 4] = self.bad[i]
        return item


def trainer_of(folder, method, sets=None, pipeline=None, **values) -> UnlearnTrainer:
    sets = sets or split_by_label(random_images(), 1)
    return UnlearnTrainer(pipeline or tiny_pipeline(), config(folder, **values), method, *sets)


def same(left, right) -> bool:
    return left.keys() == right.keys() and all(torch.equal(v, right[n]) for n, v in left.items())


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_samples_in_memory_are_named_at_construction(tmp_path, value):
    images = random_images()
    images.pixel_values[[5, 13], 0, 0, 0] = value  # the second and fourth sample of class 1
    with pytest.raises(ValueError, match="forget samples 1, 3 hold inf or NaN: leave them out"):
        trainer_of(tmp_path, SFRon(), split_by_label(images, 1))


def test_samples_that_are_read_later_are_named_at_the_step(tmp_path):
    forget, retain = split_by_label(random_images(), 1)
    broken = trainer_of(tmp_path, FineTune(), (forget, Lazy(retain, {2: float("inf")})))
    with pytest.raises(DivergenceError, match="loss is not finite: retain samples 2 hold inf or NaN; the weights of"):
        broken.train()
    assert broken.guard.kept == 0 and same(load_file(tmp_path / SAVED), tiny_pipeline().unet.state_dict())


@pytest.mark.parametrize("estimator", ["sample", "batch"])
def test_the_fisher_names_them_too(tmp_path, estimator):
    """NaN in a Fisher is never salient: the forget step would do nothing, and nobody would know."""
    forget, retain = split_by_label(random_images(), 1)
    sets = (Lazy(forget, {0: float("nan"), 4: float("inf")}), retain)
    with pytest.raises(ValueError, match="gradients of the forget data are not finite: forget samples 0, 4 hold"):
        trainer_of(tmp_path, SFRon(fisher=estimator), sets).train()


def test_bad_samples_of_any_dataset():
    images = random_images()
    assert bad_samples(images) == [] and bad_samples(Lazy(images, {7: float("nan")})) == [7]
    images.pixel_values[::2, 0, 0, 0] = float("nan")
    assert bad_samples(images) == [0, 2, 4, 6, 8] and bad_samples(images, [1, 18, 3]) == [18]
    assert bad_samples(split_by_label(images, 2)[0]) == [0, 1, 2, 3, 4]


def test_a_model_that_is_broken_already(tmp_path):
    pipeline = tiny_pipeline()
    pipeline.unet.conv_out.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="weight conv_out.weight of the model is not finite"):
        trainer_of(tmp_path, SFRon(), pipeline=pipeline)


@dataclass(frozen=True)
class BadGradient(FineTune):
    """Fine-tuning whose loss is right, but from `start` to `end` of the run its gradient is not finite."""

    start: float = 0.5
    end: float = 1.0

    def loss(self, step, batch):
        losses = super().loss(step, batch)
        zero = (0 * step.parameters[0]).sum()
        bad = self.start <= step.progress < self.end
        return replace(losses, retain=losses.retain + zero.sqrt()) if bad else losses


@pytest.mark.parametrize("clip", [1.0, 0.0])
def test_a_gradient_that_is_not_finite_is_never_taken(tmp_path, clip):
    trainer = trainer_of(tmp_path / "a", BadGradient(), guard_steps=1, max_grad_norm=clip)
    with pytest.raises(
        DivergenceError, match="outer step 3: the gradient of loss is not finite although loss is; the"
    ):
        trainer.train()
    good = trainer_of(tmp_path / "b", FineTune(), max_steps=2, max_grad_norm=clip)
    good.train()
    assert same(load_file(tmp_path / "a" / SAVED), good.objective.network.state_dict())


def scaled(trainer: UnlearnTrainer) -> UnlearnTrainer:
    """As with fp16 on a GPU: a scaler that skips steps whose gradients overflow."""
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu")
    return trainer


def test_fp16_overflow_at_the_start_is_the_scalers_business(tmp_path):
    method = BadGradient(start=0.0, end=0.3)
    trainer = scaled(trainer_of(tmp_path, method, max_steps=10))
    trainer.train()
    assert trainer.state.global_step == 10 and trainer.accelerator.scaler.get_scale() == 2.0**13
    assert trainer.guard.overflows == 0 and total_norm(trainer.step.parameters).isfinite()


def test_fp16_overflow_without_end_stops(tmp_path):
    trainer = scaled(trainer_of(tmp_path, BadGradient(start=0.0), max_steps=40))
    with pytest.raises(DivergenceError, match="outer step 25: fp16 overflow, the last 25 gradients .* Set bf16 or no"):
        trainer.train()
    assert same(trainer.objective.network.state_dict(), tiny_pipeline().unet.state_dict())


def test_ascent_without_retain_data_that_explodes(tmp_path):
    trainer = trainer_of(tmp_path, GradientAscent(), max_steps=50, guard_steps=1, learning_rate=0.3)
    with pytest.raises(DivergenceError, match="forget_loss .* is over .*, max_loss_ratio times the original's or 1"):
        trainer.train()
    assert all(v.isfinite().all() for v in load_file(tmp_path / SAVED).values())


def test_weights_that_the_last_step_broke_are_not_the_result(tmp_path):
    trainer = trainer_of(tmp_path, FineTune(), max_steps=1, learning_rate=1e39)
    with pytest.raises(DivergenceError, match="weight .* is not finite; the weights of step 0 are in"):
        trainer.train()
    assert same(load_file(tmp_path / SAVED), tiny_pipeline().unet.state_dict())


def adapted(pipeline) -> NoisePrediction:
    objective = NoisePrediction(pipeline)
    add_lora(objective, choose_lora(objective, *split_by_label(random_images(), 1), "all", 2), False, 0)
    return objective


def test_an_adapter_whose_gradients_are_all_zero(tmp_path):
    """Both factors at 0, as a broken start leaves them: each one's gradient is a multiple of the other."""
    objective = adapted(tiny_pipeline())
    with torch.no_grad():
        for layer in tuner_layers(objective.network).values():
            for p in layer.parameters():
                if p.requires_grad:
                    p.zero_()
    trainer = UnlearnTrainer(objective, config(tmp_path), SFRon(), *split_by_label(random_images(), 1))
    with pytest.raises(ValueError, match="nothing is learnt: all gradients of the first 3 outer steps were exactly 0"):
        trainer.train()
    assert not list(tmp_path.glob("*.safetensors"))


def test_an_adapter_as_it_starts_is_no_such_case(tmp_path):
    """One factor is 0 and so is the other's gradient, in the first step."""
    trainer = UnlearnTrainer(adapted(tiny_pipeline()), config(tmp_path), SFRon(), *split_by_label(random_images(), 1))
    trainer.train()
    assert trainer.guard.moving and trainer.guard.still == 0


def test_latents_that_overflowed_are_not_kept(tmp_path):
    cache = Cache(tmp_path, "content")
    with pytest.raises(ValueError, match="part 3 of the latents is not finite.*load the model in float32"):
        cache.write(3, torch.tensor([1.0, float("inf")]))
    assert cache.missing([3]) == [3] and [p.name for p in cache.folder.iterdir()] == ["content.json"]


@pytest.mark.parametrize("damage", ["cut", "zero"])
def test_latents_that_cannot_be_read_are_made_again(tmp_path, damage):
    cache = Cache(tmp_path, "content")
    for number in (0, 1):
        cache.write(number, torch.full((4,), float(number)))
    path = cache.folder / "00001.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-3] if damage == "cut" else bytes(len(content)))
    assert cache.missing([0, 1]) == [1]
