"""What a user of transformers' Trainer tries: it works as there, or ends in one line that says what to set."""

import numpy as np
import pytest
import torch
from conftest import config, random_images, tiny_dit, tiny_pipeline, tiny_sd, tiny_sdxl, tiny_unet, tiny_vit
from diffusers import DDIMScheduler, UNet2DConditionModel, UNet2DModel
from families import family_case
from peft import LoraConfig, get_peft_model
from torch.utils.data import Dataset
from transformers import DefaultDataCollator, TrainingArguments

from hf_unlearn import (
    ClassConditionalDDPMPipeline,
    Classification,
    DiTPrediction,
    NoisePrediction,
    UnlearnConfig,
    UnlearnTrainer,
    encode_prompts,
    split_by_label,
)
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.families import text_to_image_objective


def trainer_of(folder, model=None, values=None, data=None, **others):
    data = data or split_by_label(random_images(), 1)
    return UnlearnTrainer(model or tiny_vit(), config(folder, max_steps=1, **(values or {})), None, *data, **others)


class Unlabelled(Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, i):
        return {"pixel_values": torch.full((1, 8, 8), i / 5)}


# ---- predictions and metrics ---------------------------------------------------------------------
def test_predict_gives_logits_labels_and_metrics(tmp_path):
    trainer = trainer_of(tmp_path, compute_metrics=lambda p: {"accuracy": float((p[0].argmax(1) == p[1]).mean())})
    found = trainer.predict(trainer.retain_dataset)
    images = torch.stack([item["pixel_values"] for item in trainer.retain_dataset])
    with torch.no_grad():
        logits = trainer.objective.network(pixel_values=images).logits
    np.testing.assert_allclose(found.predictions, logits, rtol=1e-5, atol=1e-6)
    assert found.label_ids.tolist() == [int(item["labels"]) for item in trainer.retain_dataset]
    accuracy = (logits.argmax(1).numpy() == found.label_ids).mean()
    assert found.metrics["test_accuracy"] == trainer.evaluate()["eval_retain_accuracy"] == accuracy
    assert found.metrics["test_loss"] == pytest.approx(trainer.evaluate()["eval_retain_loss"])


def test_predict_gives_a_denoiser_s_output_on_fixed_draws(tmp_path):
    objective, *data = family_case("unet")
    trainer = trainer_of(tmp_path, objective, data=data)
    first, second = (trainer.predict(data[1]) for _ in range(2))
    assert first.predictions.shape == (15, 1, 8, 8) and np.array_equal(first.predictions, second.predictions)
    with pytest.raises(ValueError, match="no labels"):
        trainer.predict(Unlabelled())


def test_predict_takes_images_without_labels(tmp_path):
    trainer = trainer_of(tmp_path)
    found = trainer.predict(Unlabelled())
    assert found.predictions.shape == (5, 4) and found.label_ids is None and "test_loss" not in found.metrics
    with pytest.raises(ValueError, match="no labels"):
        trainer.evaluate(Unlabelled())


def test_metrics_may_ask_for_inputs_and_losses(tmp_path):
    def shapes(found):
        return {"inputs": float(found.inputs.shape[0]), "losses": float(len(found.losses))}

    values = {"include_for_metrics": ["inputs", "loss"], "bf16": True}
    assert trainer_of(tmp_path, values=values, compute_metrics=shapes).evaluate()["eval_forget_inputs"] == 5


# ---- arguments -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"data_collator": DefaultDataCollator()}, "no data_collator: items are stacked"),
        ({"train_dataset": [1]}, "no train_dataset: pass forget_dataset and retain_dataset"),
        ({"eval_dataset": [1]}, "pass eval_forget_dataset"),
        ({"compute_loss_func": print}, "derive one from Method"),
        ({"model_init": print}, "pass the model itself"),
    ],
)
def test_arguments_that_mean_nothing_here(tmp_path, others, said):
    with pytest.raises(ValueError, match=said):
        trainer_of(tmp_path, **others)


def test_stock_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="args is a TrainingArguments: pass an UnlearnConfig"):
        UnlearnTrainer(tiny_vit(), TrainingArguments(str(tmp_path), use_cpu=True), None, random_images())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor must be 0"),
        ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha must be None"),
        ({"auto_find_batch_size": True}, "set per_device_train_batch_size"),
        ({"bf16_full_eval": True}, "casts the weights that are trained; set bf16"),
        ({"max_steps": 0}, "max_steps is 0"),
        (
            {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"},
            "metric_for_best_model",
        ),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "metric_for_best_model"),
    ],
)
def test_options_that_cannot_work(tmp_path, values, said):
    with pytest.raises(ValueError, match=said):
        config(tmp_path, **values)


def test_less_is_better_of_the_measures_that_a_trainer_adds(tmp_path):
    for name in ("eval_forget_score", "retain_drift", "eval_retain_loss"):
        assert config(tmp_path, metric_for_best_model=name).greater_is_better is False
    assert config(tmp_path, metric_for_best_model="accuracy").greater_is_better is True


def test_epochs_beside_the_default_number_of_steps(tmp_path):
    def made(**values):
        return UnlearnConfig(str(tmp_path), use_cpu=True, disable_tqdm=True, per_device_train_batch_size=8, **values)

    assert made().max_steps == 50 and made(max_steps=7, num_train_epochs=2).max_steps == 7
    trainer = UnlearnTrainer(tiny_vit(), made(num_train_epochs=2), None, *split_by_label(random_images(), 1))
    trainer.train()
    assert trainer.state.global_step == 4  # 15 retain samples are two batches of 8
    assert UnlearnConfig(**{"output_dir": str(tmp_path), "max_steps": -1, "use_cpu": True}).num_train_epochs == 3


def test_the_processing_class_is_saved_beside_a_classifier(tmp_path):
    from transformers import ViTImageProcessorPil

    processor = ViTImageProcessorPil(size={"height": 8, "width": 8})
    trainer = trainer_of(tmp_path, processing_class=processor)
    trainer.train()
    trainer.save_model()
    assert (tmp_path / "preprocessor_config.json").is_file() and trainer.objective.processor is processor


# ---- models --------------------------------------------------------------------------------------
def adapted():
    return get_peft_model(tiny_vit(), LoraConfig(target_modules="all-linear"))


def pipeline_of(change):
    made = tiny_pipeline()
    change(made.unet)
    return made


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (adapted, "wrapped by peft .*merge_and_unload"),
        (lambda: Classification(adapted()), "holds an adapter of peft: merge it"),
        (tiny_unet, "UNet2DModel is not a model that can be unlearned: pass .*a pipeline around a UNet2DModel"),
        (lambda: NoisePrediction(tiny_unet()), "no pipeline around a UNet2DModel: pass one"),
        (lambda: NoisePrediction(tiny_dit()), "DiTPipeline is no pipeline around a UNet2DModel"),
        (lambda: DiTPrediction(tiny_dit().transformer), "pass a DiTPipeline"),
        (lambda: tiny_vit().to("meta"), "on the meta device, without values"),
        (lambda: pipeline_of(lambda unet: unet.to("meta")), "conv_in.weight of the model is on the meta device"),
        (lambda: tiny_vit().requires_grad_(False), "no weight of the model can be trained: call requires_grad_"),
        (lambda: pipeline_of(lambda unet: unet.requires_grad_(False)), "no weight of the model can be trained"),
        (lambda: tiny_vit().half(), "is float16, which cannot be trained"),
        (lambda: tiny_vit().double(), "is float64, which cannot be trained"),
        (lambda: None, "NoneType is not a model"),
    ],
)
def test_models_that_cannot_be_trained_as_they_are(tmp_path, make, said):
    with pytest.raises(ValueError, match=said):
        UnlearnTrainer(make(), config(tmp_path), None, *split_by_label(random_images(), 1))


def test_one_trainable_layer_is_enough(tmp_path):
    model = tiny_vit().requires_grad_(False)
    model.classifier.requires_grad_(True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = trainer_of(tmp_path, model)
    trainer.train()
    trainer.save_model()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith("classifier") for name in moved)


def test_a_unet_that_is_not_square(tmp_path):
    settings = dict(tiny_unet().config) | {"sample_size": (8, 16)}
    pipeline = ClassConditionalDDPMPipeline(UNet2DModel.from_config(settings), DDIMScheduler(1000), null_class=4)
    data = ArrayDataset(torch.rand(12, 1, 8, 16) * 2 - 1, torch.arange(12) % 4)
    trainer = trainer_of(tmp_path, pipeline, data=split_by_label(data, 1))
    trainer.train()
    trainer.save_model()
    reloaded = ClassConditionalDDPMPipeline.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="images are 8x8 but the model takes 8x16"):
        trainer_of(tmp_path / "again", reloaded)


@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])
def test_latents_that_are_not_square(tmp_path, make):
    pipeline = make()
    pipeline.unet = UNet2DConditionModel.from_config(dict(pipeline.unet.config) | {"sample_size": (8, 16)})
    objective = text_to_image_objective(pipeline, encode_prompts(pipeline, ["a cat", "a dog"]), {"a cat": "a dog"})
    assert objective.time_ids.tolist() == [[16, 32, 0, 0, 16, 32]]
    data = ArrayDataset(torch.randn(8, 4, 8, 16), torch.arange(8) % 2 + 1)
    trainer = trainer_of(tmp_path, objective, data=split_by_label(data, 1))
    trainer.train()
    trainer.save_model()
