"""A tiny model with its data, by family."""

import torch
from conftest import latents, random_images, tiny_dit, tiny_pipeline, tiny_sd, tiny_sdxl, tiny_vit

from hf_unlearn import Classification, DiTPrediction, NoisePrediction, encode_prompts, split_by_label
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.families import text_to_image_objective


def tiny_resnet():
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    sizes = dict(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")
    return ResNetForImageClassification(ResNetConfig(num_channels=1, num_labels=4, **sizes))


def sd_case(make, train_method="full"):
    """(objective, data) of two prompts of a text-to-image pipeline."""
    pipeline = make()
    prompts = encode_prompts(pipeline, ["a cat", "a dog"])
    return text_to_image_objective(pipeline, prompts, {"a cat": "a dog"}, train_method=train_method), latents(prompts)


def family_case(family: str):
    """(objective, forget, retain)."""
    if family in ("sd", "sdxl", "text_encoder"):
        method = "text_encoder" if family == "text_encoder" else "full"
        objective, data = sd_case(tiny_sdxl if family == "sdxl" else tiny_sd, method)
    elif family == "dit":
        objective = DiTPrediction(tiny_dit())
        data = ArrayDataset(torch.randn(12, 4, 4, 4), torch.arange(12) % 3)
    else:
        data = random_images()
        made = {"unet": tiny_pipeline, "vit": tiny_vit, "resnet": tiny_resnet}[family]()
        objective = NoisePrediction(made) if family == "unet" else Classification(made)
    return objective, *split_by_label(data, 1)
