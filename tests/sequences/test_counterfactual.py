"""Histories without what was forgotten, divergences by hand, and the cells of the benchmark."""

import json
import math

import pytest
import torch
from stream import tasks

from hf_unlearn.evaluation.classification import Predictions
from hf_unlearn.sequences import Part, Request, requests_of
from hf_unlearn.sequences.bench import CLPU, SCENARIOS, Bench, Cell, cells, figures_of, scenario, tasks_of
from hf_unlearn.sequences.counterfactual import divergences, without_forgotten
from hf_unlearn.sequences.tables import aims, needed, page, rows_of
from hf_unlearn.sequences.tasks import Standing

pytestmark = pytest.mark.xdist_group("sequences")


def test_the_history_without_a_task():
    found = without_forgotten(tasks(), requests_of("0R 1T 1R"), 3)
    assert [request.word for request in found] == ["0R", "1T", "1R"]
    assert [request.word for request in without_forgotten(tasks(), requests_of("0R 1T 1F"), 3)] == ["0R"]
    again = requests_of("0R 1T 1F 1R")
    assert [request.word for request in without_forgotten(tasks(), again, 4)] == ["0R", "1T", "1F", "1R"]


def test_the_history_without_classes_and_samples():
    asked = requests_of(["0R", "1T", {"forget": {"classes": [1], "samples": [2]}}])
    found = without_forgotten(tasks(), asked, 3)
    assert found[0] == Request(learn=Part(classes=(0,)))
    assert found[1] == Request(learn=Part(classes=(3,), samples=(6, 10, 14, 18, 22, 26, 30)), temporary=True)
    (at_once,) = without_forgotten(tasks(), asked, 3, at_once=True)
    assert at_once == Request(learn=Part(classes=(0, 3), samples=(6, 10, 14, 18, 22, 26, 30)))
    ends = [Standing(tasks()) for _ in range(2)]
    for request in asked:
        ends[0] = ends[0].after(request)
    for request in found:
        ends[1] = ends[1].after(request)
    assert ends[0].known == ends[1].known and not ends[1].forgotten


def test_divergences_by_hand():
    def said(*shares: float) -> Predictions:
        return Predictions(torch.tensor([shares]).log(), torch.tensor([0]))

    def js(p: float, q: float) -> float:
        m = (p + q) / 2
        terms = [x * math.log(x / y) for a in (p, q) for x, y in ((a, m), (1 - a, 1 - m))]
        return sum(terms) / 2

    found = divergences(said(0.9, 0.1), [said(0.5, 0.5), said(0.6, 0.4)])
    assert found["AGJS"] == pytest.approx((js(0.9, 0.5) + js(0.9, 0.6)) / 2, rel=1e-5)
    assert found["IGJS"] == pytest.approx(js(0.5, 0.6), rel=1e-5)
    with pytest.raises(ValueError, match="needs two counterfactual models"):
        divergences(said(0.9, 0.1), [said(0.5, 0.5)])


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios_make_sense_and_are_drawn_by_the_seed(name):
    data = tasks_of("digits", "digits_resnet")
    standing = Standing(data)
    for request in scenario(name, data, 0):
        standing = standing.after(request)
    assert scenario(name, data, 0) == scenario(name, data, 0)
    assert (scenario(name, data, 0) == scenario(name, data, 1)) == (name != "samples")
    if name == "samples":
        learnt = [len(data.of_classes(range(n))) for n in (6, 8)]
        assert len(standing.forgotten) == learnt[0] // 10 + (learnt[1] - learnt[0] // 10) // 10
    assert CLPU == "0R 1T 2T 3R 1R 2F 4T 4F"


def test_images_of_a_folder_are_in_the_column_that_is_named(tmp_path):
    from datasets import Dataset, Image

    pictures = [{"bytes": png(i), "path": None} for i in range(40)]
    for split in ("train", "test"):
        rows = Dataset.from_dict({"img": pictures, "label": [i % 10 for i in range(40)]}).cast_column("img", Image())
        rows.to_parquet(tmp_path / f"{split}.parquet")
    assert len(tasks_of(str(tmp_path), "cifar_resnet", "img").train) == 36
    with pytest.raises(ValueError, match="column 'image' is not in the data, which has img, label"):
        tasks_of(str(tmp_path), "cifar_resnet")
    plain = Cell("folder", "cifar_resnet", "tasks", "clu", 200, 0)
    assert "image_column" not in plain.spec
    assert Cell(**plain.spec, image_column="img").spec == {**plain.spec, "image_column": "img"}


def png(shade: int) -> bytes:
    from io import BytesIO

    from PIL import Image

    held = BytesIO()
    Image.new("RGB", (32, 32), (shade, 0, 0)).save(held, "png")
    return held.getvalue()


def test_clpu_has_no_cells_where_it_forgets_parts():
    places = [(0, "digits_resnet", name, 200, "clpu") for name in SCENARIOS]
    assert [cell.scenario for cell in cells("digits", places, "reservoir", 80, 32)] == ["tasks"]


def test_a_cell_is_computed_once_and_goes_on_where_it_was(tmp_path, monkeypatch):
    cell = Cell("digits", "digits_vit", "classes", "finetune", 30, 0, steps=1, batch=4)
    bench, runs = Bench(tmp_path), []
    stock = Bench._run

    def run(self, *args):
        if len(runs) == 1:
            runs.append(None)
            raise KeyboardInterrupt
        runs.append(args)
        return stock(self, *args)

    monkeypatch.setattr(Bench, "_run", run)
    with pytest.raises(KeyboardInterrupt):
        bench.result(cell)
    assert not list((tmp_path / "cells").iterdir()) and len(list((tmp_path / "runs").iterdir())) == 1
    result = Bench(tmp_path).result(cell)
    (kept,) = (tmp_path / "cells").iterdir()
    assert json.loads(kept.read_text()) == result
    monkeypatch.setattr(Bench, "_run", None)
    assert Bench(tmp_path).result(cell) == result
    assert set(result["divergences"]) == {"4", "6"}
    found = figures_of(result)
    assert 0 < found["kept"] < 0.2 and found["AGJS"] > 0 and found["IGJS"] > 0 and found["cpu"] > 0
    assert "digits, digits_vit, classes, memory of 30 samples" in page([result])
    assert page([json.loads(json.dumps(needed(result)))]) == page([result])


def test_rows_and_aims_of_cells():
    row = {"AA": [0.9], "FM": [0.05], "FA": [0.01], "counterfactual_FA": [0.0], "relapse": [0.0], "ratio": [1.1]}
    other = {"AA": [0.85], "FM": [0.02]}
    found = {
        aim: met for aim, _, met in aims({"clu": {**row, "time": [0.3]}, "sfron": other, "retrain": {"AA": [1.0]}})
    }
    assert found == {
        "AA no lower than the best baseline's": True,
        "FM no higher than the best baseline's": False,
        "FA within 2 points of the counterfactual": True,
        "AGJS within 1.2 of IGJS": True,
        "relapse at most 2 points": True,
        "at most 1/10 of retraining's time": False,
    }
    assert aims({"sfron": other}) == [] and rows_of([]) == {}
    longer = {"clu": row, "clu extended": {**row, "AA": [0.7]}, "sfron": other}
    said = {aim: value for aim, value, _ in aims(longer)}
    assert said["AA no lower than the best baseline's"] == "70.0 against 85.0 (sfron)"


def test_a_cell_may_be_extended_as_requests_are():
    plain = Cell("digits", "digits_resnet", "tasks", "clu", 200, 0)
    longer = Cell(**plain.spec, extend=4)
    assert (plain.label, longer.label) == ("clu", "clu extended") and "extend" not in plain.spec
    assert longer.spec == {**plain.spec, "extend": 4}
