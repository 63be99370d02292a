"""CLIP score against its formula, on a tiny CLIP from a configuration."""

import pytest
import torch
from conftest import tiny_clip
from PIL import Image

from hf_unlearn.evaluation.clip import CLIPScore


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip")
    tiny_clip(path)
    return path


def test_score_by_the_formula_whatever_the_batch(folder):
    score = CLIPScore(str(folder))
    pictures = [Image.new("RGB", (20, 20), (80 * i, 30, 200 - 60 * i)) for i in range(3)]
    prompts = ["a cat", "something much longer than that " * 10, "a"]
    cosines = []
    for picture, prompt in zip(pictures, prompts):
        tokens = score.tokenizer(prompt, truncation=True, max_length=77, return_tensors="pt")
        with torch.no_grad():
            text = score.model.text_projection(score.model.text_model(**tokens).pooler_output)
            pixels = score.processor(images=picture, return_tensors="pt")["pixel_values"]
            image = score.model.visual_projection(score.model.vision_model(pixels).pooler_output)
        cosines.append((text * image).sum() / text.norm() / image.norm())
    expected = 100 * torch.stack(cosines).clamp(min=0).mean().item()
    for batch_size in (1, 2, 3):
        metric = score(pictures, prompts, batch_size)
        assert metric.value == pytest.approx(expected, rel=1e-4) and metric.samples == 3
    assert f"by {folder.name}:" in metric.definition and str(folder) not in metric.definition


def test_one_prompt_a_picture(folder):
    score = CLIPScore(str(folder))
    for pictures, prompts in (([], []), ([Image.new("RGB", (4, 4))], ["a", "b"])):
        with pytest.raises(ValueError, match="give one prompt a picture"):
            score(pictures, prompts)
