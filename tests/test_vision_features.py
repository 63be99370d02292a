"""Features of transformers' vision models against the models themselves; what is not such a model is refused."""

import numpy as np
import pytest
import torch
from conftest import tiny_clip, tiny_dino, tiny_text_encoder, tiny_vit
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, CLIPModel, ViTModel

from hf_unlearn.data.images import to_pixels
from hf_unlearn.evaluation.vision_features import VisionFeatures


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(3)]


def tensor(pictures: list[Image.Image]) -> torch.Tensor:
    return torch.stack([to_pixels(picture, None, 3) for picture in pictures])


def pixels_of(folder, pictures) -> torch.Tensor:
    return AutoImageProcessor.from_pretrained(folder, backend="pil")(images=pictures, return_tensors="pt").pixel_values


def test_dinov2_gives_its_pooled_output(tmp_path, pictures):
    model = tiny_dino(tmp_path / "dino")
    found = VisionFeatures(str(tmp_path / "dino"))
    with torch.no_grad():
        expected = model(pixel_values=pixels_of(tmp_path / "dino", pictures)).pooler_output
    assert torch.allclose(found.features(tensor(pictures)), expected, atol=1e-6)
    assert (found.name, found.num_features) == ("dino", 16)
    assert found.weights_digest != tiny_other(tmp_path).weights_digest


def tiny_other(tmp_path) -> VisionFeatures:
    tiny_dino(tmp_path / "other", seed=1)
    return VisionFeatures(str(tmp_path / "other"))


def test_clip_gives_its_image_embeddings(tmp_path, pictures):
    tiny_clip(tmp_path)
    model, pixels = CLIPModel.from_pretrained(tmp_path).eval(), pixels_of(tmp_path, pictures)
    with torch.no_grad():
        expected = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    found = VisionFeatures(str(tmp_path))
    assert torch.allclose(found.features(tensor(pictures)), expected, atol=1e-6) and found.num_features == 8


def test_a_classifier_gives_its_last_hidden_state(tmp_path, pictures):
    """Not the pooler of its bare network, whose weights no classifier's file holds."""
    tiny_vit().save_pretrained(tmp_path / "vit")
    found = VisionFeatures(str(tmp_path / "vit"))
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "vit").eval()
    grey = [picture.convert("L").convert("RGB") for picture in pictures]
    again = VisionFeatures(str(tmp_path / "vit"))
    assert torch.equal(found.features(tensor(grey)), again.features(tensor(grey)))
    assert found.num_features == model.config.hidden_size


def test_a_pooler_without_weights_is_not_read(tmp_path, pictures):
    """Its random weights would make every run's features others."""
    config = tiny_vit().config
    config.num_channels = 3
    torch.manual_seed(0)
    model = ViTModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path / "vit")
    (tmp_path / "vit/preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}'
    )
    found = VisionFeatures(str(tmp_path / "vit"))
    with torch.no_grad():
        expected = model(pixel_values=pixels_of(tmp_path / "vit", pictures)).last_hidden_state.mean(1)
    assert torch.allclose(found.features(tensor(pictures)), expected, atol=1e-6)


def test_what_sees_no_images_is_refused_in_one_line(tmp_path):
    tiny_text_encoder().save_pretrained(tmp_path / "text")
    with pytest.raises(ValueError, match="text sees no images .CLIPTextModel.: name a vision model"):
        VisionFeatures(str(tmp_path / "text"))
    tiny_dino(tmp_path / "dino")
    (tmp_path / "dino/preprocessor_config.json").unlink()
    with pytest.raises((ValueError, OSError), match="dino"):
        VisionFeatures(str(tmp_path / "dino"))
    with pytest.raises((ValueError, OSError), match="nowhere"):
        VisionFeatures(str(tmp_path / "nowhere"))
