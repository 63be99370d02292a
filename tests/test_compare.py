"""Comparisons on two-second models: caching by content, resume, budgets, tables, and one line for a bad recipe."""

import json
from dataclasses import replace

import pytest
import torch
import yaml

from hf_unlearn.compare import Cells, Recipe, compare, load_recipe, method_of
from hf_unlearn.compare.models import splits_of
from hf_unlearn.compare.recipe import SHIPPED
from hf_unlearn.compare.search import search
from hf_unlearn.compare.spaces import SPACES
from hf_unlearn.compare.tables import GAP_NAMES, gap_of_means, ordered, table
from hf_unlearn.evaluation import interval
from hf_unlearn.methods import METHODS

TINY = Recipe(
    name="tiny",
    data="digits",
    model="digits_resnet",
    forget={"fraction": 0.1},
    methods=["finetune", "ssd", "sfron"],
    seeds=[0, 1],
    budget=6,
    train={"max_steps": 30},
    trials=2,
    search_seeds=[1000],
    max_retain_samples=300,
)
pytestmark = pytest.mark.xdist_group("compare")
TIMES = ("seconds", "time_ratio")


def timeless(folder) -> dict:
    """results.json without what a clock decides."""
    results = json.loads((folder / "results.json").read_text())["results"]
    return {
        row: [{k: v for k, v in cell.items() if k not in TIMES} for cell in cells] for row, cells in results.items()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    return folder, compare(TINY, folder, jobs=0, progress=False)


def test_a_killed_comparison_goes_on_to_the_same_table(finished, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    whole, calls = Cells.result, []

    def dies(self, *args):
        calls.append(args)
        if len(calls) in (2, 11):  # in the first search, and amid the cells of the table
            raise Killed
        return whole(self, *args)

    monkeypatch.setattr(Cells, "result", dies)
    for already in (1, 8):
        with pytest.raises(Killed):
            compare(TINY, tmp_path, jobs=0, progress=False, models_dir=finished[0] / "models")
        assert len(list((tmp_path / "cells").iterdir())) == already
    compare(TINY, tmp_path, jobs=0, progress=False, models_dir=finished[0] / "models")
    assert timeless(tmp_path) == timeless(finished[0])


def test_finished_cells_are_read_and_stale_ones_are_not(finished, tmp_path, monkeypatch):
    folder, text = finished
    monkeypatch.setattr("hf_unlearn.compare.cells.unlearn", None)  # a cell that is computed again would fail
    assert compare(TINY, folder, jobs=0, progress=False) == text
    cells, options = Cells(TINY, folder), {"learning_rate": 1e-3}
    paths = {cells.cell_path("finetune", s, "test", o) for s in (0, 1) for o in ({}, options)}
    paths |= {Cells(replace(TINY, train={"max_steps": 31}), folder).cell_path("finetune", 0, "test", {})}
    monkeypatch.setattr("hf_unlearn.compare.cells.source_of", lambda *of, **start: "another version of the code")
    paths |= {Cells(TINY, folder).cell_path("finetune", 0, "test", {})}
    assert len(paths) == 6


def test_what_a_cell_depends_on_is_another_cell(tmp_path, monkeypatch):
    """Other forget sets, budgets, batches and measured samples; the original model is the same for all of them."""
    monkeypatch.setattr("hf_unlearn.compare.cells.unlearn", lambda *args: (args[1], 1.0, "not run"))
    changes = (
        {},
        {"forget": {"fraction": 0.2}},
        {"forget": {"classes": [3]}},
        {"budget": 7},
        {"batch_size": 32},
        {"max_retain_samples": 0},
        {"fisher_samples": 16},
    )
    for change in changes:
        Cells(replace(TINY, **change), tmp_path).result("finetune", 0, "test")
    assert len(list((tmp_path / "cells").iterdir())) == len(changes)
    assert len(list((tmp_path / "models").iterdir())) == 1 + 3


def test_max_retain_samples_are_spread_over_the_retain_set(tmp_path):
    sets = Cells(replace(TINY, max_retain_samples=100), tmp_path).measured_on(0, "validation")
    whole = Cells(replace(TINY, max_retain_samples=0), tmp_path).measured_on(0, "validation")
    assert len(sets["retain"]) == 100 and len(whole["retain"]) > 1000
    assert len(sets["forget"]) == len(whole["forget"]) and len(sets["test"]) == len(whole["test"])


def test_files_and_definitions(finished):
    folder, text = finished
    assert (folder / "tradeoff.png").stat().st_size > 10_000
    results = json.loads((folder / "results.json").read_text())
    for cells in results["results"].values():
        for cell in cells:
            assert all(m["definition"] and m["library"] and m["samples"] > 0 for m in cell["metrics"].values())
    gaps = {row: [c["metrics"]["average_gap"]["value"] for c in cells] for row, cells in results["results"].items()}
    assert gaps["retrained"] == [0, 0] and max(gaps["retrained, other start"]) > 0
    assert all(len(found["trials"]) == 2 for found in results["search"].values())
    header, *rows = (folder / "results.csv").read_text().splitlines()
    assert header.startswith("method,seed,forget_accuracy") and len(rows) == 2 * (3 + 3)
    assert results["stamp"] in text and "± " in text


def test_search_uses_neither_the_test_split_nor_the_seeds_of_the_table(tmp_path, monkeypatch):
    asked = []

    def result(self, row, seed, split, options=None):
        asked.append((row, seed, split))
        error = 0.1 * abs(torch.tensor(options["learning_rate"]).log10().item() + 2.5)
        return {"diverged": None, "metrics": {"average_gap": {"value": error}}}

    monkeypatch.setattr(Cells, "result", result)
    recipe = replace(TINY, trials=15, search_seeds=[1000, 1001, 1002])
    found = search(Cells(recipe, tmp_path), "finetune")
    assert set(asked) == {("finetune", s, "validation") for s in recipe.search_seeds} and len(asked) == 45
    assert 1.5e-3 < found["options"]["learning_rate"] < 6e-3  # the best is 10^-2.5
    assert not set(recipe.search_seeds) & set(recipe.seeds)


def test_a_diverged_trial_is_the_worst_and_a_diverged_cell_is_named(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(Cells, "result", lambda *args: {"diverged": "loss is not finite"})
    assert search(Cells(TINY, tmp_path), "finetune")["gap"] == 100
    results = json.loads((finished[0] / "results.json").read_text())["results"]
    results["finetune"][1]["diverged"] = "loss is not finite"
    line = next(line for line in table(results).splitlines() if line.startswith("| finetune"))
    assert line.count("1 of 2 diverged") == 9 and ordered(results)[-1] == "finetune"


@pytest.mark.parametrize("row", sorted(SPACES))
def test_every_row_has_a_space_of_its_own_options(row):
    method = method_of(row, {})
    assert all(name == "learning_rate" or hasattr(method, name) for name in SPACES[row])
    assert all(len(space) >= 2 for space in SPACES[row].values())


def test_every_method_can_be_compared():
    classify = {name for name, method in METHODS.items() if method.family in ("", "classifier")}
    assert {row.partition(":")[0] for row in SPACES} == classify
    costs = {name: METHODS[name]().batch_gradients for name in METHODS}
    assert costs["finetune"] == 1 and costs["neg_grad_plus"] == 2 and costs["sfron"] == 3 and costs["lur"] == 3


def test_gap_of_means_by_hand():
    """Errors of opposite sign in two runs cancel in the mean; the same run's average gap would be 1 point."""
    details = {f"retrained_{name}": 0.9 for name in GAP_NAMES}

    def run(error):
        metrics = {name: {"value": 0.9 + error} for name in GAP_NAMES}
        return {"metrics": {**metrics, "average_gap": {"details": details}}}

    assert gap_of_means([run(0.01), run(-0.01)]) == pytest.approx(0, abs=1e-9)
    assert gap_of_means([run(0.01), run(0.03)]) == pytest.approx(2)


def test_interval_by_hand():
    """t(0.975, 2) = 4.3027; the standard deviation of 1, 2, 3 is 1."""
    assert interval([1.0, 2.0, 3.0], 3) == "2.000 ± 2.484"
    assert interval([1.25], 1) == "1.2"


def test_parquet_folder_as_data(tmp_path):
    """Train and test by the files' names; a tenth of train is validation; pixels in [-1, 1]."""
    import datasets
    from PIL import Image

    images = [Image.new("RGB", (32, 32), (5 * i, 0, 255)) for i in range(40)]
    rows = {"img": images, "label": [i % 10 for i in range(40)]}
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=[f"c{i}" for i in range(10)])}
    )
    for split in ("train", "test"):
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{split}-00000.parquet")
    parts, digests = splits_of(replace(TINY, data=str(tmp_path), model="cifar_resnet", image_column="img"))
    assert {name: len(part) for name, part in parts.items()} == {"train": 36, "validation": 4, "test": 40}
    assert parts["test"].labels == rows["label"] and len(set(digests.values())) == 3
    assert parts["test"][3]["pixel_values"][:, 0, 0].tolist() == pytest.approx([15 / 127.5 - 1, -1, 1])


def test_shipped_recipes_load():
    names = sorted(p.name for p in SHIPPED.iterdir() if p.name.endswith(".yaml"))
    assert len(names) >= 4
    for name in names:
        assert load_recipe(name.removesuffix(".yaml")).name == name.removesuffix(".yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"forget": {"fraction": 1.0}}, "fraction must lie in"),
        ({"forget": {"fraction": 0.1, "classes": [3]}}, "one of fraction or classes"),
        ({"methods": ["sfronn"]}, "method 'sfronn' is not one of"),
        ({"methods": ["finetune:paper"]}, "has no preset 'paper'"),
        ({"budgets": 3}, "unknown key 'budgets'"),
        ({"seeds": None}, "seeds is missing"),
        ({"seeds": [1000]}, "search seed 1000 is one of the table's seeds"),
        ({"shadows": 2}, "3 shadow models"),
    ],
)
def test_bad_recipes_are_one_line(tmp_path, change, message):
    from dataclasses import asdict

    values = {**asdict(TINY), **change}
    values = {k: v for k, v in values.items() if v is not None}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=message) as caught:
        load_recipe(str(tmp_path / "r.yaml"))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="neither a YAML file nor one of"):
        load_recipe("no_such_recipe")


def test_command_line(tmp_path, monkeypatch, capsys):
    from hf_unlearn.__main__ import main

    for argv, code, word in (
        (["compare", "no_such"], 2, "neither a YAML file"),
        (["compare"], 2, "recipe"),
        (["forget"], 2, "invalid choice"),
        (["--version"], 0, "."),
    ):
        monkeypatch.setattr("sys.argv", ["hf-unlearn", *argv])
        with pytest.raises(SystemExit) as caught:
            main()
        text = "".join(capsys.readouterr())
        assert caught.value.code == code and word in text and len(text.strip().splitlines()) == 1
