"""Picture grids: whole labels, samples large enough to see, and a layout from which a page shows each cell."""

import json

import numpy as np
import pytest
import torch
from conftest import tiny_pipeline
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hf_unlearn import NoisePrediction
from hf_unlearn.evaluation import SamplingConfig
from hf_unlearn.evaluation.class_pictures import picture
from hf_unlearn.evaluation.concept_pictures import picture_columns
from hf_unlearn.evaluation.grids import LAYOUT, SEAM, cell_picture, label_font, read_layout, save_grid, wrap
from hf_unlearn.evaluation.prompt_files import contact_sheet
from hf_unlearn.families.concepts import Concept

LONG = "an oil painting of a starry night over the river, in the style of the nineteenth century, " * 3 + "z" * 90


def grid(size: int, columns: int, each: int = 4, channels: int = 3) -> torch.Tensor:
    return torch.rand(columns, each, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def saved(tmp_path, size: int, names: list[str], **options):
    cells = grid(size, len(names))
    marked = [k == 0 for k in range(len(names))]
    layout = save_grid({"before": cells, "after": -cells}, names, marked, tmp_path / "grid.png", **options)
    return Image.open(tmp_path / "grid.png"), layout, cells


@pytest.mark.parametrize("name", ["a rocket", LONG], ids=["short", "long"])
def test_large_samples_are_large_and_labels_whole(tmp_path, name):
    image, layout, _ = saved(tmp_path, 512, [name, "a cat", "a dog"])
    for row in layout.cells:
        for left, top, right, bottom in row:
            assert (right - left - SEAM) // 2 >= 256 and (bottom - top - SEAM) // 2 >= 256
    paper = np.asarray(image.convert("L"))
    edges = (paper[:4], paper[-4:], paper[:, :4], paper[:, -4:])
    assert all((edge == 255).all() for edge in edges)  # a label that is cut leaves ink at an edge
    left, top, right, _ = layout.cells[0][0]
    head = np.flatnonzero((paper[: top - 10, left:right] < 128).any(axis=1))
    assert len(head) > 0 and head[0] >= 4
    beside = paper[: top - 10, right + 10 : layout.cells[0][1][0]]
    assert (beside > 128).all()  # nor does it run into the next column


def test_small_samples_are_enlarged_pixel_by_pixel(tmp_path):
    image, layout, cells = saved(tmp_path, 8, list("0123456789"))
    assert len({box[1] for box in layout.cells[0]}) == 2  # two bands of five
    left, top, right, bottom = layout.cells[0][7]
    cell = np.asarray(image.crop((left, top, right, bottom)))
    times = (right - left - SEAM) // 2 // 8
    assert times * 16 >= 256
    found = cell[: 8 * times : times, : 8 * times : times]
    expected = ((cells[7, 0] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(found, expected)


def test_the_layout_says_where_the_cells_are(tmp_path):
    image, layout, cells = saved(tmp_path, 32, ["a rocket", "a boat"], notes=["", "anchor"], title="strength")
    assert read_layout(image) == layout and layout.rows == ["before", "after"]
    assert layout.columns == ["a rocket", "a boat"] and layout.marked == [True, False]
    for number in (0, 1):
        assert image.crop(layout.cells[1][number]).tobytes() == cell_picture(-cells[number]).tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"cells": [[[0, 0, 9, 9]], [[0, 0, 9, 10_000]]]},
        {"cells": [[[0, 0, 9, 9]]]},
        {"cells": [[[5, 0, 5, 9]], [[0, 0, 9, 9]]]},
        {"cells": [[[0, 0, 9]], [[0, 0, 9, 9]]]},
        {"cells": [[["a", 0, 9, 9]], [[0, 0, 9, 9]]]},
        {"columns": ["a", "b"]},
        {"marked": None},
        {"columns": [], "marked": [], "cells": [[], []]},
    ],
)
def test_a_layout_that_does_not_fit_is_none(tmp_path, change):
    good = {"rows": ["x", "y"], "columns": ["a"], "marked": [True], "cells": [[[0, 0, 9, 9]], [[0, 0, 9, 9]]]}

    def reread(said) -> object:
        info = PngInfo()
        info.add_itxt(LAYOUT, json.dumps(said))
        Image.new("RGB", (20, 20)).save(tmp_path / "p.png", pnginfo=info)
        with Image.open(tmp_path / "p.png") as image:
            return read_layout(image)

    assert reread(good) is not None and reread({**good, **change}) is None and reread([1]) is None
    assert read_layout(Image.new("RGB", (4, 4))) is None


def test_wrapping_keeps_every_letter_and_every_line_fits():
    font = label_font(20)
    for text in (LONG, "one\ntwo words", "", "W" * 50):
        lines = wrap(text, font, 120)
        assert "".join("".join(lines).split()) == "".join(text.split())
        assert all(font.getlength(line) <= 120 for line in lines)
    assert wrap("one\ntwo words", font, 1000) == ["one", "two words"]


def test_a_contact_sheet_has_whole_labels(tmp_path):
    paths = []
    for k in range(3):
        paths.append(tmp_path / f"{k}.png")
        Image.new("RGB", (512, 512), "gray").save(paths[-1])
    contact_sheet(paths, tmp_path / "sheet.png", 256, labels=[LONG, "a cat", "a dog"], marked=[True, False, False])
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    lines = wrap(LONG, label_font(256 / 13), 250)
    assert (
        sheet.shape[0] >= 2 * 256 + len(lines) * 20 and (sheet[-1] == 255).all() and (sheet[:256, :256] == 128).all()
    )
    first, second = sheet[256 : 256 + len(lines) * 18, :256], sheet[256 : 256 + len(lines) * 18, 256:]
    red = (first[..., 0].astype(int) - first[..., 1] > 60).sum()
    assert red > 500 and (second.max(-1).astype(int) - second.min(-1)).max() < 30  # black on white, smoothed


def test_a_picture_shows_prompts_that_fit_with_anchors_from_the_same_noise():
    rocket = Concept("rocket", tuple(f"rocket {k}" for k in range(5)), ("boat", "Boat ", "", "x", "y"))
    nude = Concept("nude", ("nude",), ("dressed",), unsafe=True)
    columns = picture_columns([rocket], ["boat", "cat", "dog", "cow", "pig"])
    assert [(c.prompt, c.note, c.noise) for c in columns] == [
        *((f"rocket {k}", "forget", k) for k in range(3)),
        ("boat", "anchor", 0),
        ("cat", "", 4),
        ("dog", "", 5),
    ]
    both = picture_columns([rocket, nude], ["cat", "dog", "cow"], quick=True)
    assert [(c.prompt, c.noise, c.unsafe) for c in both] == [
        *(("rocket 0", 0, False), ("nude", 1, True), ("boat", 0, False), ("dressed", 1, False)),
        *(("cat", 4, False), ("dog", 5, False)),
    ]


def test_columns_of_classes_have_the_names_of_the_record(tmp_path):
    """By them the page finds the picture of a class's anchor."""
    objective, names = NoisePrediction(tiny_pipeline()), {0: "cat", 1: "dog"}
    objective.class_names = names
    draw = SamplingConfig(4, num_inference_steps=1)
    picture({"before": tiny_pipeline()}, tmp_path / "a.png", [1], draw, names)
    columns = read_layout(Image.open(tmp_path / "a.png")).columns
    assert columns == [objective.label_name(c) for c in range(len(columns))]
    assert columns[:3] == ["cat (number 0)", "dog (number 1)", "2"]
