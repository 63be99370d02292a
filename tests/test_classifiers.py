"""Classifiers of five families from a local folder, through the loop and back; labelled images and what is wrong."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
from conftest import config, pil_processor
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Pillow
from torch.nn import functional as F
from transformers import (
    AutoModelForImageClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from hf_unlearn import SFRon, UnlearnTrainer
from hf_unlearn.data.class_names import class_ids
from hf_unlearn.data.images import digits
from hf_unlearn.data.pairs import ForgetRetainDataset, collate, labels_of, split_by_label
from hf_unlearn.data.sources import held_out_split, load_rows, split_names
from hf_unlearn.families import Classification
from hf_unlearn.families.classifier.load import (
    ProcessedImages,
    check_same_build,
    load_image_classifier,
    load_image_processor,
    load_labelled_images,
)
from hf_unlearn.saliency.fisher import fisher

ViTImageProcessorPil = pil_processor("ViTImageProcessor")

NAMES = ["zero", "one", "two", "three"]  # in another order than a folder sorts them
LABELS = dict(num_labels=4, id2label=dict(enumerate(NAMES)), label2id={n: i for i, n in enumerate(NAMES)})
WIDTHS = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
SWIN = dict(embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=2)
STAGES = dict(hidden_sizes=[8, 16], depths=[1, 1])
FAMILIES = {
    "vit": lambda **k: ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **WIDTHS, **k)),
    "deit": lambda **k: DeiTForImageClassification(DeiTConfig(image_size=8, patch_size=4, **WIDTHS, **k)),
    "swin": lambda **k: SwinForImageClassification(SwinConfig(image_size=8, patch_size=2, **SWIN, **k)),
    "convnext": lambda **k: ConvNextForImageClassification(
        ConvNextConfig(image_size=8, patch_size=2, num_stages=2, **STAGES, **k)
    ),
    "resnet": lambda **k: ResNetForImageClassification(
        ResNetConfig(embedding_size=8, layer_type="basic", **STAGES, **k)
    ),
}


def tiny(family: str, channels: int = 1, **options) -> PreTrainedModel:
    """Four classes; no weight starts at exactly 0 (DeiT's all-zero tokens have gradients of 1e8)."""
    torch.manual_seed(0)
    model = FAMILIES[family](num_channels=channels, **{**LABELS, **options}).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.02)
    return model


def save(model: PreTrainedModel, folder: Path, processor: bool = True) -> str:
    model.save_pretrained(folder)
    if processor:
        mean = [0.5] * model.config.num_channels
        ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=mean, image_std=mean).save_pretrained(folder)
    return str(folder)


def make_images(folder: Path, each: int = 4) -> Path:
    """`each` grey 8x8 digits of 0-3, a folder a class."""
    data = digits()
    for label, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for k, i in enumerate((data.label_tensor == label).nonzero()[:each, 0]):
            pixels = ((data.pixel_values[i, 0] + 1) * 127.5).byte().numpy()
            Pillow.fromarray(pixels).save(folder / name / f"{k}.png")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_images(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def broken(folder, tmp_path) -> Path:
    """The images, of which `two/1.png` cannot be read."""
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken/two/1.png").write_bytes(b"not an image")
    return tmp_path / "broken"


# ---- families ------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", FAMILIES)
def test_family_goes_through_the_loop_and_back(tmp_path, folder, family):
    model, processor = load_image_classifier(save(tiny(family), tmp_path / "model"))
    images = load_labelled_images(folder, model, processor, "train")
    objective, batch = Classification(model, processor).eval(), collate([images[i] for i in range(16)])
    expected = F.cross_entropy(model(pixel_values=batch["pixel_values"]).logits, batch["labels"], reduction="none")
    assert torch.equal(objective(**batch), expected) and len(expected.unique()) == 16

    forget, retain = split_by_label(images, 2)
    start = copy.deepcopy(model.state_dict())
    method = SFRon(fisher_samples=4, fisher_batch_size=4)
    trainer = UnlearnTrainer(objective, config(tmp_path / "out", max_steps=2), method, forget, retain)
    trainer.train()
    trainer.save_model()
    assert 0 < trainer.masks.density < 1 and trainer.verify_mask() == 0
    assert any(not torch.equal(value, start[name]) for name, value in model.state_dict().items())

    again = AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    pixels = batch["pixel_values"]
    assert torch.equal(again(pixel_values=pixels).logits, model.eval()(pixel_values=pixels).logits)
    assert again.config.id2label == dict(enumerate(NAMES)) and again.config.label2id == LABELS["label2id"]
    loaded = load_image_processor(str(tmp_path / "out"))
    assert loaded.to_json_string() == processor.to_json_string() and list(loaded.image_mean) == [0.5]


@pytest.mark.parametrize("family", FAMILIES)
def test_fisher_is_the_mean_of_squared_gradients_of_single_samples(folder, family):
    model = tiny(family)
    images, objective = load_labelled_images(folder, model, None, "train"), Classification(model).eval()
    images.positions = images.positions[::4]
    found, _ = fisher(objective, images, forget=True, batch_size=3)
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for i in range(4):
        model.zero_grad()
        objective(**collate([images[i]])).sum().backward()
        for name, p in model.named_parameters():
            if p.grad is not None:
                expected[name] += p.grad**2 / 4
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_size_check_says_what_the_network_takes(family):
    for side in range(1, 13):
        pixels = torch.zeros(1, side, side)
        try:
            tiny(family)(pixel_values=pixels[None])  # a fresh one: Swin's windows shrink for good on a small image
            goes = True
        except (ValueError, RuntimeError):
            goes = False
        objective = Classification(tiny(family))
        if goes:
            objective.check({"pixel_values": pixels}, [0])
        else:
            with pytest.raises(ValueError, match=f"images are {side}x{side} but the model takes"):
                objective.check({"pixel_values": pixels}, [0])


def test_fisher_and_teachers_leave_batch_norm_alone(folder):
    model = tiny("resnet")
    objective = Classification(model)
    images = load_labelled_images(folder, model, None, "train")
    batch = collate([images[i] for i in range(16)])
    original = copy.deepcopy(model).eval()
    before = {name: value.clone() for name, value in model.named_buffers()}
    objective.train()
    fisher(objective, images, forget=True, batch_size=4)
    objective.baseline_losses([batch])
    objective.choose_anchors({2}, 16, seed=0)
    for network in (original, objective.fresh_network(0)):
        objective.predict(network, batch)
        objective.input_gradient(network, batch)
    objective.other_labels({**batch, "index": torch.arange(16)})
    assert model.training and before
    for network in (model, original):
        assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    objective(**batch)  # the training forward does update them
    assert any(not torch.equal(value, before[name]) for name, value in model.named_buffers())


# ---- loading -------------------------------------------------------------------------------------
def test_processor_is_none_only_for_a_folder_without_one(tmp_path):
    model = tiny("vit")
    assert load_image_classifier(save(model, tmp_path / "plain", processor=False))[1] is None
    loaded, processor = load_image_classifier(save(model.half(), tmp_path / "both"))
    assert isinstance(processor, ViTImageProcessorPil) and loaded.dtype == torch.float32


def test_what_is_no_classifier_is_refused_in_one_line(tmp_path):
    ViTModel(ViTConfig(image_size=8, patch_size=4, **WIDTHS)).save_pretrained(tmp_path / "headless")
    save(tiny("vit", problem_type="multi_label_classification"), tmp_path / "multi")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert/config.json").write_text('{"model_type": "bert"}')
    cases = {"missing": "does not exist", "empty": "no config.json", "bert": "not an image classifier"}
    cases |= {"headless": "no weights for classifier.bias", "multi": "one of several classes"}
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message) as caught:
            load_image_classifier(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_another_build_is_refused():
    check_same_build(tiny("vit"), tiny("vit"), "other")
    with pytest.raises(ValueError, match="other has 3 classes, the model 4"):
        check_same_build(tiny("vit"), tiny("vit", num_labels=3, id2label=None, label2id=None), "other")
    with pytest.raises(ValueError, match="other is another architecture"):
        check_same_build(tiny("vit"), tiny("resnet"), "other")
    swapped = {"one": 0, "zero": 1, "two": 2, "three": 3}
    with pytest.raises(ValueError, match="'zero' another id"):
        check_same_build(tiny("vit"), tiny("vit", label2id=swapped, id2label={i: n for n, i in swapped.items()}), "x")


def test_class_names_and_ids():
    made = tiny("vit").config
    assert class_ids(["two", "3"], made) == [2, 3]
    for wrong in ("4", "cat"):
        with pytest.raises(ValueError, match=f"class '{wrong}' is not in the model, which has zero, one, two, three"):
            class_ids([wrong], made)


# ---- images --------------------------------------------------------------------------------------
def test_labels_follow_the_model_and_not_the_folder_and_pixels_fit(folder):
    grey, colour = (load_labelled_images(folder, tiny("vit", c), None, "train") for c in (1, 3))
    assert labels_of(grey) == [1] * 4 + [3] * 4 + [2] * 4 + [0] * 4  # one, three, two, zero
    assert [int(grey[i]["labels"]) for i in range(16)] == grey.labels
    data = digits()
    zero = data.pixel_values[(data.label_tensor == 0).nonzero()[0, 0]]
    assert (grey[12]["pixel_values"] - zero).abs().max() < 1 / 127  # files have 256 levels
    assert torch.equal(colour[12]["pixel_values"], grey[12]["pixel_values"].expand(3, 8, 8))
    some = load_labelled_images(folder, tiny("vit"), None, "train", max_samples=4)
    assert (some.labels, some.positions) == ([1, 3, 2, 0], [0, 4, 8, 12])
    assert some.places([8, 0]) == [2, 0]
    with pytest.raises(ValueError, match=r"forget indices \[5\] are not in use"):
        some.places([8, 5])


def test_same_images_in_both_sets_are_seen(folder):
    first, second = (load_labelled_images(folder, tiny("vit"), None, "train") for _ in range(2))
    forget, _ = split_by_label(first, 2)
    with pytest.raises(ValueError, match="4 samples are in both"):
        ForgetRetainDataset(forget, second)
    ForgetRetainDataset(forget, split_by_label(second, 2)[1])


def test_unreadable_images_are_named_or_skipped(broken):
    images = load_labelled_images(broken, tiny("vit"), None, "train")
    assert labels_of(images).count(2) == 4  # reading labels decodes nothing
    with pytest.raises(ValueError, match=r"two/1.png \(position 9\) is not a readable image: pass --skip_unreadable"):
        collate([images[i] for i in range(16)])
    fewer = load_labelled_images(broken, tiny("vit"), None, "train", skip_unreadable=True)
    assert len(fewer) == 15 and len(fewer.skipped) == 1 and fewer.skipped[0].endswith("two/1.png (position 9)")
    assert fewer.labels.count(2) == 3 and fewer.places([10]) == [9]
    assert len(collate([fewer[i] for i in range(15)])["pixel_values"]) == 15


def parquet(folder: Path, name: str, labels: list, kind) -> None:
    """Rows of a white image with the given labels."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    rows = {"img": [Pillow.new("L", (10, 8), 255)] * len(labels), "kind": labels}
    Dataset.from_dict(rows, Features({"img": Image(), "kind": kind})).to_parquet(folder / name)


@pytest.mark.parametrize("kind", [Value("string"), Value("int64"), ClassLabel(names=["three", "two"])])
def test_parquet_with_three_kinds_of_labels(tmp_path, kind):
    stored = {"string": ["three", "two"], "int64": [3, 2]}.get(kind.dtype if isinstance(kind, Value) else "", [0, 1])
    if isinstance(kind, ClassLabel):
        stored = [0, 1]
    parquet(tmp_path, "data/train-00000-of-00001.parquet", stored, kind)
    parquet(tmp_path, "data/test-00000-of-00001.parquet", stored[:1], kind)
    assert sorted(split_names(tmp_path)) == ["test", "train"] and held_out_split(split_names(tmp_path)) == "test"
    read = {s: load_labelled_images(tmp_path, tiny("vit"), None, s, "img", "kind") for s in ("train", "test")}
    assert (read["train"].labels, read["test"].labels) == ([3, 2], [3])
    assert torch.equal(read["test"][0]["pixel_values"], torch.ones(1, 8, 8))
    with pytest.raises(ValueError, match="no validation split: there is test, train"):
        load_rows(tmp_path, "validation")


def test_splits_of_folders(tmp_path, folder):
    assert split_names(folder) == ["train"] and held_out_split(["train"]) is None
    for name in ("train", "val"):
        shutil.copytree(folder / "two", tmp_path / name / "two")
    assert split_names(tmp_path) == ["train", "validation"] and held_out_split(split_names(tmp_path)) == "validation"
    assert len(load_rows(tmp_path, "validation")) == 4
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="no image and no parquet file"):
        load_rows(tmp_path / "nothing", "train")


def rows(labels: list, kind) -> Dataset:
    images = [Pillow.new("L", (8, 8))] * len(labels)
    return Dataset.from_dict({"image": images, "label": labels}, Features({"image": Image(), "label": kind}))


def test_labels_that_say_nothing_certain_are_refused():
    named, nameless = tiny("vit"), tiny("vit", id2label=None, label2id=None)
    cases = [
        (named, ["cat"], Value("string"), "label 'cat' of the data is not in the model, which has zero, one"),
        (named, [1, None], Value("int64"), "1 rows have no label in column 'label', the first at position 1"),
        (named, [0.5], Value("float32"), "not labels"),
        (nameless, [0], ClassLabel(names=["a", "b"]), "the data has 2 classes, the model 4 without names"),
    ]
    for model, labels, kind, message in cases:
        with pytest.raises(ValueError, match=message):
            ProcessedImages(rows(labels, kind), model, None)
    assert ProcessedImages(rows([3, 0], ClassLabel(names=list("abcd"))), nameless, None).labels == [3, 0]


def test_missing_and_mistaken_columns(folder):
    with pytest.raises(ValueError, match="column 'species' is not in the data, which has image, label"):
        load_labelled_images(folder, tiny("vit"), None, "train", label_column="species")
    with pytest.raises(ValueError, match="column 'label' holds .* not images"):
        load_labelled_images(folder, tiny("vit"), None, "train", image_column="label")
