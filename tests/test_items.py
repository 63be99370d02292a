"""Data as a user gives it to UnlearnTrainer: it works, or one line says what to give."""

import datasets
import pytest
import torch
from conftest import config, random_images, tiny_dit, tiny_pipeline, tiny_vit
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from hf_unlearn import METHODS, Classification, DiTPrediction, UnlearnTrainer, split_by_label
from hf_unlearn.compare.models import in_memory
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.data.pairs import collate

IMAGES = random_images()
PIXELS, LABELS = IMAGES.pixel_values, IMAGES.label_tensor


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield IMAGES[0]


def items(pixels=PIXELS, labels=LABELS, **more) -> Items:
    return Items([{"pixel_values": p, "labels": y, **more} for p, y in zip(pixels, labels)])


def trainer_of(tmp_path, forget=None, retain=None, model=None, **options) -> UnlearnTrainer:
    sets = split_by_label(IMAGES, 1)
    sets = (sets[0] if forget is None else forget, sets[1] if retain is None else retain)
    return UnlearnTrainer(model or tiny_vit(), config(tmp_path), METHODS["neg_grad_plus"](), *sets, **options)


ROWS = datasets.Dataset.from_dict({"image": [1, 2], "label": [0, 1]})
LISTS = datasets.Dataset.from_dict({"pixel_values": PIXELS[:2].tolist(), "labels": [0, 1]})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (TensorDataset(PIXELS, LABELS), "are of type tuple, not dicts: give items"),
        (PIXELS, "are of type Tensor, not dicts"),
        (ROWS, "hold image, label, no pixel_values: load_images makes them"),
        (LISTS, "are lists: give tensors, dataset.with_format"),
        (datasets.DatasetDict(train=ROWS), "is a DatasetDict of train: give one of these"),
        (items(labels=torch.nn.functional.one_hot(LABELS)), r"labels .* have shape \(4,\).*labels.argmax"),
        (ArrayDataset(PIXELS, torch.nn.functional.one_hot(LABELS)), r"have shape \(4,\).*labels.argmax"),
        (items(labels=LABELS[:, None]), r"have shape \(1,\): give plain numbers"),
        (items(labels=LABELS.float()), "labels .* are float32, like 0.0: give integers"),
        (items(labels=["cat"] * 20), "are like 'cat', not class numbers"),
        (items(PIXELS[:, 0]), r"have shape \(8, 8\), not \(C, H, W\)"),
        (items(path="a.png"), "hold 'path', which the model does not take: leave it out"),
        (items((PIXELS * 100).to(torch.uint8)), "pixel_values .* are uint8: give floats, x / 127.5 - 1"),
        (items((PIXELS * 100).to(torch.int64)), "are int64"),
        (Items([{"pixel_values": p, "label": y} for p, y in zip(PIXELS, LABELS)]), "hold label, not labels: rename"),
        (items(["a.png"] * 20), "of type str, not tensors"),
    ],
)
def test_items_that_do_not_fit_are_one_line_for_both_sets(tmp_path, data, says):
    for name in ("forget", "retain"):
        with pytest.raises(ValueError, match=says) as error:
            trainer_of(tmp_path, **{name: data})
        assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("forget", [Endless(), (row for row in []), ROWS.to_iterable_dataset(), iter([IMAGES[0]])])
def test_a_stream_to_forget_is_refused(tmp_path, forget):
    with pytest.raises(ValueError, match="the forget set is a stream .*give a data set with a length"):
        trainer_of(tmp_path, forget)


def test_a_stream_to_retain_is_checked_like_a_set(tmp_path):
    with pytest.raises(ValueError, match="retain stream must be a datasets.IterableDataset"):
        trainer_of(tmp_path, retain=Endless())
    with pytest.raises(ValueError, match="the retain set is a stream .generator"):
        trainer_of(tmp_path, retain=(row for row in []))
    for rows, says in (
        ({"image": [1, 2], "label": [0, 1]}, "no pixel_values"),
        ({"pixel_values": PIXELS[:2].numpy(), "labels": [[0, 1], [1, 0]]}, "argmax"),
    ):
        stream = datasets.Dataset.from_dict(rows).with_format("torch").to_iterable_dataset()
        with pytest.raises(ValueError, match=says):
            trainer_of(tmp_path, retain=stream)


@pytest.mark.parametrize(
    ("name", "says"),
    [("data_collator", "items are stacked as they are"), ("train_dataset", "pass forget_dataset and retain")],
)
def test_arguments_of_the_stock_trainer_are_named(tmp_path, name, says):
    with pytest.raises(ValueError, match=f"takes no {name}: .*{says}"):
        trainer_of(tmp_path, **{name: collate})
    trainer_of(tmp_path, **{name: None})


@pytest.mark.parametrize("kind", ["numpy", "double", "rows"])
def test_what_a_trainer_user_gives_works(tmp_path, kind):
    """numpy arrays, double precision, a datasets.Dataset in torch's format: the losses are those of the tensors."""
    made = {
        "numpy": lambda part: Items([{**x, "pixel_values": x["pixel_values"].numpy()} for x in part]),
        "double": lambda part: Items([{**x, "pixel_values": x["pixel_values"].double()} for x in part]),
        "rows": lambda part: datasets.Dataset.from_list(
            [{"pixel_values": x["pixel_values"].numpy(), "labels": int(x["labels"])} for x in part]
        ).with_format("torch"),
    }[kind]
    sets = [made([part[i] for i in range(len(part))]) for part in split_by_label(IMAGES, 1)]
    given, plain = trainer_of(tmp_path, *sets), trainer_of(tmp_path)
    ours, theirs = given.evaluate(), plain.evaluate()
    for name in ("eval_forget_loss", "eval_retain_loss"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-6)


# ---- ranges
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: (x + 1) / 2, r"pixels lie in \[.*\], but the model takes \[-1, 1\]: give x \* 2 - 1"),
        (lambda x: ((x + 1) * 127.5).round(), r"but the model takes \[-1, 1\]"),
        (lambda x: (x + 1) * 8, "but the model takes"),
        (lambda x: x * 255, "scale them"),
    ],
)
def test_a_range_that_a_pixel_model_does_not_take(tmp_path, change, says):
    parts = split_by_label(ArrayDataset(change(PIXELS), LABELS), 1)
    for given in ({"forget": parts[0]}, {"retain": parts[1]}):
        with pytest.raises(ValueError, match=says):
            trainer_of(tmp_path, model=tiny_pipeline(), **given)


def test_ranges_that_are_right(tmp_path):
    """A constant image, normalised images for a classifier, latents of any range; a classifier with a processor."""
    trainer_of(tmp_path, model=tiny_pipeline(), forget=ArrayDataset(torch.zeros(3, 1, 8, 8), torch.ones(3).long()))
    for change in (lambda x: (x + 1) / 2, lambda x: x * 3, lambda x: (x + 1) * 127.5):
        trainer_of(tmp_path, *split_by_label(ArrayDataset(change(PIXELS), LABELS), 1))
    latents = ArrayDataset(torch.rand(12, 4, 4, 4) * 20, torch.arange(12) % 3)
    trainer_of(tmp_path, *split_by_label(latents, 1), model=DiTPrediction(tiny_dit()))
    from transformers import ViTImageProcessorPil

    model = Classification(tiny_vit(), ViTImageProcessorPil(size={"height": 8, "width": 8}))
    with pytest.raises(ValueError, match="give what the model's image processor returns"):
        trainer_of(tmp_path, *split_by_label(ArrayDataset((PIXELS + 1) * 127.5, LABELS), 1), model=model)


def test_mixed_sizes_are_one_line(tmp_path):
    mixed = [{"pixel_values": torch.rand(1, 8 + i % 2, 8) - 0.5, "labels": 1} for i in range(4)]
    with pytest.raises(ValueError, match=r"forget samples 0 and 1 have shapes \(1, 8, 8\) and \(1, 9, 8\)"):
        trainer_of(tmp_path, Items(mixed))
    for stack, mend in ((collate, "bring all images to one size"), (in_memory, "bring them to one size")):
        with pytest.raises(ValueError, match=r"\(1, 8, 8\) and \(1, 9, 8\).*" + mend):
            stack(mixed)


def test_the_look_at_the_data_draws_nothing(tmp_path):
    """Augmentations of the items go on as if nobody had looked."""

    class Noisy(Items):
        def __getitem__(self, i):
            item = super().__getitem__(i)
            return {**item, "pixel_values": item["pixel_values"] + torch.randn(1) * 0}

    torch.manual_seed(0)
    state = torch.get_rng_state()
    from hf_unlearn.data.items import value_range

    value_range("forget", Noisy(items().items))
    assert torch.equal(torch.get_rng_state(), state)


# ---- anchors
def test_anchors_occur_in_the_retain_set(tmp_path):
    """Label 3 and the unlabelled row 4 of five embeddings have no image: neither is an anchor."""
    from diffusers import DDPMPipeline

    from hf_unlearn import NoisePrediction

    pipeline = DDPMPipeline(tiny_pipeline().unet, tiny_pipeline().scheduler)
    some = [i for i in range(20) if int(LABELS[i]) != 3]
    forget, retain = split_by_label(ArrayDataset(PIXELS[some], LABELS[some]), 2)
    objective = NoisePrediction(pipeline)
    assert objective.null_class is None and objective.class_labels == [0, 1, 2, 3, 4]
    trainer_of(tmp_path, forget, retain, model=objective)
    assert objective.anchors[2] == 0 and set(objective.anchors.values()) <= {0, 1}
    classifier = Classification(tiny_vit())
    trainer_of(tmp_path, forget, retain, model=classifier)
    assert classifier.kept == [0, 1] and "never 2 or 3" in classifier.describe([2]).anchor_rule
