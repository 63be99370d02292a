"""A classifier that gets further classes: the old ones say what they said, and the file is an ordinary one."""

import copy

import pytest
import torch
from conftest import config, random_images, tiny_vit
from test_every_classifier import TINY, build
from transformers import AutoModelForImageClassification

from hf_unlearn import CLU, UnlearnTrainer, grow_classes
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.families.classifier.inputs import input_channels, input_sides

NO_LINEAR_HEAD = {"perceiver"}


@pytest.mark.parametrize("name", sorted(set(TINY) - NO_LINEAR_HEAD))
def test_every_classifier_grows(name, tmp_path):
    model = build(name).eval()
    sides = input_sides(model.config) or (32, 32)
    images = torch.randn(2, input_channels(model.config), *sides)
    with torch.no_grad():
        before = model(pixel_values=images).logits
        grown = grow_classes(model, ["a", "b"])
        after = grown(pixel_values=images).logits
    assert grown is model and after.shape == (2, 6)
    assert torch.allclose(after[:, :4], before, rtol=1e-5, atol=1e-6)
    assert torch.allclose(after[:, 4:], before.mean(1, keepdim=True).expand(2, 2), rtol=1e-3, atol=1e-4)
    assert model.config.num_labels == 6 and model.config.id2label[5] == "b" and model.config.label2id["a"] == 4
    model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.allclose(again(pixel_values=images).logits, after, rtol=1e-5, atol=1e-6)
    assert again.config.id2label == model.config.id2label


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "name a new class"), (["LABEL_1"], "class 'LABEL_1' is there already"), (["a", "a"], "class 'a' is there")],
)
def test_names_that_do_not_fit_are_refused(names, message):
    model = tiny_vit()
    start = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        grow_classes(model, names)
    assert all(torch.equal(p, start[n]) for n, p in model.state_dict().items())


def test_a_model_without_a_linear_head_is_refused():
    with pytest.raises(ValueError, match="Perceiver.* has no linear head of 4 classes: it cannot grow"):
        grow_classes(build("perceiver"), ["a"])
    with pytest.raises(ValueError, match="ViTForImageClassification has no linear head of 4 classes"):
        model = tiny_vit()
        model.classifier = torch.nn.Identity()
        grow_classes(model, ["a"])


def test_new_classes_are_learnt_while_an_old_one_goes(tmp_path):
    """Two classes more, forget class 1: saved, loaded again, and the new ones are recognised."""
    generator = torch.Generator().manual_seed(0)
    model = grow_classes(tiny_vit(), ["4", "5"])
    images = random_images()
    pictures = torch.rand(12, 1, 8, 8, generator=generator) * 2 - 1
    learn = ArrayDataset(pictures, torch.arange(12) % 2 + 4)
    old = [[i for i in range(20) if (i % 4 == 1) == gone] for gone in (True, False)]
    forget, retain = (torch.utils.data.Subset(images, part) for part in old)
    values = config(tmp_path, max_steps=60, learning_rate=3e-3, per_device_train_batch_size=12)
    trainer = UnlearnTrainer(model, values, CLU(retain_steps=1), forget, retain, learn_dataset=learn)
    trainer.train()
    trainer.save_model()
    again = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        found = again(pixel_values=pictures).logits.argmax(1)
    assert again.config.num_labels == 6 and (found == learn.label_tensor).float().mean() > 0.9
