import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

from hf_unlearn.data.images import ArrayDataset, FlippedAndCropped, ImageDataset, digits, to_pixels
from hf_unlearn.data.pairs import (
    ForgetRetainDataset,
    collate,
    forget_and_retain,
    labels_of,
    mixed_batch,
    split_by_index,
    split_by_label,
)
from hf_unlearn.data.sources import load_images


def numbered(count: int, start: int = 0) -> ArrayDataset:
    numbers = torch.arange(start, start + count)
    return ArrayDataset(numbers.float().view(count, 1, 1, 1), numbers)


def value(item) -> int:
    return int(item["pixel_values"])


def test_split_by_label(images):
    forget, retain = split_by_label(images, [1, 3])
    assert set(labels_of(forget)) == {1, 3} and set(labels_of(retain)) == {0, 2}
    assert len(forget) + len(retain) == len(images)
    with pytest.raises(ValueError, match=r"class 9 is not in the data, whose classes are \[0, 1, 2, 3\]"):
        split_by_label(images, 9)
    with pytest.raises(ValueError, match="no labels"):
        split_by_label(ArrayDataset(images.pixel_values), 0)


def test_split_by_index(images):
    forget, retain = split_by_index(images, [5, 2, 5])
    assert forget.indices == [2, 5] and 2 not in retain.indices and len(retain) == 18
    for wrong, message in (([20], "out of range"), ([], "forget set is empty"), (range(20), "retain set is empty")):
        with pytest.raises(ValueError, match=message):
            split_by_index(images, list(wrong))


def test_partner_is_forget_i_modulo_its_size():
    data = ForgetRetainDataset(numbered(3, 100), numbered(10))
    assert [value(data[i]["forget"]) for i in range(7)] == [100, 101, 102, 100, 101, 102, 100]
    assert [value(data[i]["retain"][0]) for i in range(10)] == list(range(10))


def test_retain_places_hold_different_samples_and_each_covers_the_set():
    data = ForgetRetainDataset(numbered(3, 100), numbered(10), retain_batches=3)
    rows = [[value(part) for part in data[i]["retain"]] for i in range(10)]
    assert all(len(set(row)) == 3 for row in rows)
    assert rows[0] == [0, 3, 6] and rows[8] == [8, 1, 4]
    assert all(sorted(row[k] for row in rows) == list(range(10)) for k in range(3))


@pytest.mark.parametrize(("forget", "retain"), [(3, 10), (10, 3)])
def test_length_is_a_whole_number_of_batches(forget, retain):
    data = ForgetRetainDataset(numbered(forget, 100), numbered(retain), multiple=8)
    assert len(data) == 16
    assert value(data[15]["forget"]) == 100 + 15 % forget and value(data[15]["retain"][0]) == 15 % retain


def test_a_stream_may_be_missing_but_not_both():
    assert set(ForgetRetainDataset(None, numbered(4))[0]) == {"retain"}
    assert set(ForgetRetainDataset(numbered(4), None)[0]) == {"forget"}
    with pytest.raises(ValueError, match="neither"):
        ForgetRetainDataset(None, None)
    with pytest.raises(ValueError, match="forget set is empty"):
        ForgetRetainDataset(Subset(numbered(4), []), numbered(4))


def test_overlap_is_refused_by_position_and_by_content(images):
    everything = numbered(4)
    with pytest.raises(ValueError, match="4 samples are in both"):
        ForgetRetainDataset(everything, everything)
    with pytest.raises(ValueError, match="2 samples are in both"):
        ForgetRetainDataset(Subset(images, [0, 1, 2]), Subset(images, [1, 2, 3]))
    copied = ArrayDataset(images.pixel_values[4:6].clone(), images.label_tensor[4:6])
    with pytest.raises(ValueError, match="2 samples are in both"):
        ForgetRetainDataset(copied, images)


def folder(path, size=(8, 8)):
    generator = np.random.default_rng(0)
    for label in ("a", "b"):
        (path / label).mkdir()
        for i in range(3):
            Image.fromarray(generator.integers(0, 256, size, dtype=np.uint8)).save(path / label / f"{i}.png")
    return path


def test_imagefolder_gets_its_labels_from_the_folders(tmp_path):
    data = load_images(folder(tmp_path), size=4, channels=1)
    assert data.labels == [0, 0, 0, 1, 1, 1] and data[0]["pixel_values"].shape == (1, 4, 4)
    forget, retain = split_by_label(data, 1)
    assert len(forget) == len(retain) == 3
    with pytest.raises(ValueError, match="3 samples are in both"):
        ForgetRetainDataset(load_images(tmp_path / "a", 4, 1), data)


def test_missing_images_and_columns_are_named(tmp_path):
    with pytest.raises(ValueError, match="no image and no parquet file in"):
        load_images(tmp_path, 8, 1)
    rows = datasets.Dataset.from_dict({"img": [0], "label": [1]})
    with pytest.raises(ValueError, match="column 'image' is not in the data, which has img, label"):
        load_images(rows, 8, 1)
    with pytest.raises(ValueError, match="column 'class' is not in the data"):
        load_images(rows, 8, 1, image_column="img", label_column="class")


def test_datasets_object_with_other_columns():
    picture = Image.new("RGB", (6, 6), (255, 0, 0))
    rows = datasets.Dataset.from_dict({"img": [picture] * 2, "y": [1, 0]})
    rows = rows.cast_column("img", datasets.Image())
    data = ImageDataset(rows, 3, 3, image_column="img", label_column="y")
    assert data[0]["pixel_values"][:, 0, 0].tolist() == [1.0, -1.0, -1.0]
    assert data.labels == [1, 0] and int(data[0]["labels"]) == 1


def test_pixels_are_exact_where_nothing_is_resized():
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    ours = to_pixels(Image.fromarray(pixels), 8, 1)
    assert torch.allclose(ours[0], torch.from_numpy(pixels.astype(np.float32)) / 127.5 - 1)


def test_center_crop_keeps_the_middle():
    wide = np.zeros((4, 12), dtype=np.uint8)
    wide[:, 4:8] = 255
    assert to_pixels(Image.fromarray(wide), 4, 1, center_crop=True).min() > 0.9
    assert to_pixels(Image.fromarray(wide), 4, 1).min() < 0


def test_digits_are_all_there():
    data = digits()
    assert len(data) == 1797 and data.pixel_values.shape[1:] == (1, 8, 8)
    assert data.pixel_values.min() == -1 and data.pixel_values.max() == 1
    assert sorted(set(data.labels)) == list(range(10))


def test_mixed_batch_and_collate(images):
    forget, retain = collate([images[0], images[1]]), collate([images[2], images[3], images[4]])
    mixed, mask = mixed_batch(forget, retain)
    assert mask.tolist() == [True, True, False, False, False]
    assert torch.equal(mixed["pixel_values"], images.pixel_values[:5])
    nested = collate([{"a": [{"x": 1}, {"x": 2}]}, {"a": [{"x": 3}, {"x": 4}]}])
    assert [part["x"].tolist() for part in nested["a"]] == [[1, 3], [2, 4]]


def test_exactly_one_way_to_say_what_to_forget(images):
    assert len(forget_and_retain(images, classes=[0])[0]) == 5
    assert len(forget_and_retain(images, indices=[0, 1])[0]) == 2
    with pytest.raises(ValueError, match="one of"):
        forget_and_retain(images)
    with pytest.raises(ValueError, match="one of"):
        forget_and_retain(images, classes=[0], indices=[1])


def test_flipped_and_cropped_images_are_mirrored_or_moved(images):
    moved = FlippedAndCropped(images, shift=1)
    assert labels_of(moved) == images.labels and len(moved) == len(images)
    pixels = images.pixel_values[0]
    padded = torch.nn.functional.pad(pixels[None], (1, 1, 1, 1), mode="replicate")[0]
    height, width = pixels.shape[1:]
    crops = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    expected = [*crops, *(crop.flip(-1) for crop in crops)]
    torch.manual_seed(0)
    drawn = [moved[0]["pixel_values"] for _ in range(300)]
    found = {next(i for i, crop in enumerate(expected) if torch.equal(crop, item)) for item in drawn}
    assert len(found) == len(expected) and torch.equal(images[0]["pixel_values"], pixels)
