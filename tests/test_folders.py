"""What of a folder is read: splits, classes, and captions line by line."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_unlearn.data.folders import folder_files
from hf_unlearn.data.sources import load_captioned_images, load_images, load_rows, split_names

SPLIT = ("train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/dog/4.png")


def tree(folder: Path, *files: str) -> Path:
    """Grey 4x4 images, each of another shade."""
    for i, name in enumerate(files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), i, dtype=np.uint8)).save(folder / name)
    return folder


@pytest.mark.parametrize(
    "extra",
    [
        ".git/cat/5.png",
        ".ipynb_checkpoints/5.png",
        "__MACOSX/train/cat/5.png",
        "train/.ipynb_checkpoints/5.png",
        "train/cat/.ipynb_checkpoints/1-checkpoint.png",
        "train/cat/._1.png",
    ],
)
def test_what_tools_leave_behind_is_no_data(tmp_path, extra, recwarn):
    tree(tmp_path, *SPLIT, extra)
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    assert sorted(split_names(tmp_path)) == ["test", "train"] and not recwarn.list
    rows = load_rows(tmp_path, "train")
    assert len(rows) == 2 and rows.features["label"].names == ["cat", "dog"]


@pytest.mark.parametrize("extra", ["notes/5.png", "extra/cat/5.png", "logo.png"])
def test_an_ordinary_folder_beside_splits_does_not_merge_them(tmp_path, extra):
    tree(tmp_path, *SPLIT, extra)
    with pytest.warns(UserWarning, match="is of no split and is left out"):
        rows = load_rows(tmp_path, "train")
    assert len(rows) == 2
    with pytest.warns(UserWarning):
        assert len(load_rows(tmp_path, "test")) == 2


def test_splits_in_a_folder_around_them_and_by_other_names(tmp_path):
    tree(tmp_path / "zip", *(f"photos/{name}" for name in SPLIT), "__MACOSX/photos/5.png")
    assert sorted(split_names(tmp_path / "zip")) == ["test", "train"]
    tree(tmp_path / "flat", "training/1.png", "dev/2.png", "misc/3.png")
    with pytest.warns(UserWarning, match="misc"):
        assert sorted(split_names(tmp_path / "flat")) == ["train", "validation"]


def test_a_class_may_be_called_train(tmp_path):
    tree(tmp_path / "vehicles", "train/1.png", "bus/2.png")
    assert load_rows(tmp_path / "vehicles", "train").features["label"].names == ["bus", "train"]
    tree(tmp_path / "within", "photos/train/1.png", "photos/bus/2.png")
    assert load_rows(tmp_path / "within", "train").features["label"].names == ["bus", "train"]


def test_brackets_in_a_path_are_no_pattern(tmp_path):
    assert len(load_rows(tree(tmp_path / "set[1]", *SPLIT), "train")) == 2


def test_a_folder_of_one_class_keeps_its_label_and_loose_images_have_none(tmp_path):
    tree(tmp_path / "one", "cat/1.png", "cat/2.png")
    assert load_rows(tmp_path / "one", "train").features["label"].names == ["cat"]
    tree(tmp_path / "flat", "1.png", "2.png")
    assert load_images(tmp_path / "flat", 4, 1).labels is None


def test_shards_without_a_split_are_left_out_beside_those_with_one(tmp_path):
    row = datasets.Dataset.from_dict({"x": [1]})
    for name in ("train-0", "test-0", "notes"):
        row.to_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / ".cache").mkdir()
    row.to_parquet(tmp_path / ".cache/train-1.parquet")
    with pytest.warns(UserWarning, match="notes.parquet"):
        files = folder_files(tmp_path).files
    assert {split: len(paths) for split, paths in files.items()} == {"train": 1, "test": 1}
    (tmp_path / "train-0.parquet").unlink()
    assert [Path(p).name for p in folder_files(tmp_path).files["train"]] == ["notes.parquet"]


# ---- captions
def described(folder: Path, *rows, name: str = "metadata.jsonl") -> Path:
    tree(folder, "0.png", "1.png", "2.png")
    lines = rows if name.endswith("csv") else [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder


def rows_of(*texts, column: str = "text") -> list[dict]:
    return [{"file_name": f"{i}.png", column: text} for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (rows_of("a cat", None, "a dog"), "line 2 of .*metadata.jsonl has null as 'text'"),
        (rows_of("a cat", ["a", "b"], "a dog"), r"line 2 of .*metadata.jsonl has \[\"a\", \"b\"\] as 'text'"),
        (rows_of(*[["a", "b"]] * 3), "line 1 of .*metadata.jsonl has"),
        (rows_of("a cat", 7, "a dog"), "line 2 of .*metadata.jsonl has 7 as 'text'"),
        ([{"file_name": "0.png", "text": "a"}, "", {"file_name": "1.png"}], "line 3 of .*metadata.jsonl has null"),
        (rows_of("a", None, column="caption"), "line 2 of .*has null as 'caption'"),
        ([{"text": "a"}], "line 1 of .*has no file_name"),
        ([{"file_name": "../x.png", "text": "a"}], "row 1: file_name .*x.png. leads out of"),
        ([{"file_name": "9.png", "text": "a"}], "line 1 of .*names 9.png, which is not there"),
        (['{"file_name": "0.png", '], "line 1 of .*is no JSON"),
        (["[1]"], "line 1 of .*is no row"),
    ],
)
def test_a_wrong_caption_is_named_with_its_line(tmp_path, rows, says):
    with pytest.raises(ValueError, match=says):
        load_captioned_images(described(tmp_path, *rows), 4)


def test_a_csv_file_is_read_by_line_too(tmp_path):
    text = ["file_name,text", "0.png,a cat", '1.png,"two', 'lines"', "2.png,"]
    folder = described(tmp_path / "wrong", *text, name="metadata.csv")
    with pytest.raises(ValueError, match="line 5 of .*metadata.csv has null as 'text'"):
        load_captioned_images(folder, 4)
    folder = described(tmp_path / "right", *text[:-1], "2.png,5 dogs", name="metadata.csv")
    assert load_captioned_images(folder, 4)[1] == ["a cat", "two\nlines", "5 dogs"]


@pytest.mark.parametrize("column", ["caption", "prompt", "Caption"])
def test_a_usual_caption_column_is_used_and_said(tmp_path, column):
    folder = described(tmp_path, *rows_of("a", "b", "c", column=column))
    with pytest.warns(UserWarning, match=f"captions are taken from column '{column}'"):
        assert load_captioned_images(folder, 4)[1] == ["a", "b", "c"]


def test_two_usual_columns_need_the_flag_and_none_means_no_captions(tmp_path):
    rows = [{**row, "prompt": "x"} for row in rows_of("a", "b", "c", column="caption")]
    folder = described(tmp_path / "two", *rows)
    with pytest.raises(ValueError, match="caption and prompt.*--caption_column caption"):
        load_captioned_images(folder, 4)
    assert load_captioned_images(folder, 4, caption_column="prompt")[1] == ["x"] * 3
    assert load_captioned_images(described(tmp_path / "none", *rows_of(1, 2, 3, column="id")), 4)[1] is None


def test_captions_of_a_table_are_named_by_position(tmp_path):
    picture = Image.new("RGB", (4, 4))
    for texts, says in ((["a", None], "1 images have no caption.*position 1"), ([["a"], ["b"]], "not texts")):
        rows = datasets.Dataset.from_dict({"image": [picture] * 2, "text": texts})
        folder = tmp_path / str(type(texts[0]).__name__)
        folder.mkdir()
        rows.cast_column("image", datasets.Image()).to_parquet(folder / "train.parquet")
        with pytest.raises(ValueError, match=says):
            load_captioned_images(folder, 4)


def test_images_that_the_metadata_does_not_describe_are_said(tmp_path):
    with pytest.warns(UserWarning, match="2 of 3 images .* are left out"):
        assert load_captioned_images(described(tmp_path, *rows_of("a")), 4)[1] == ["a"]
