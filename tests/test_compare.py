"""Comparisons on two-second models: caching by content, resume, budgets, tables, and one line for a bad recipe."""

import json
from dataclasses import replace

import pytest
import torch
import yaml

from hf_unlearn.compare import Cells, Recipe, compare, load_recipe, method_of
from hf_unlearn.compare.models import forget_and_retain, splits_of
from hf_unlearn.compare.ranking import GAP_NAMES, gap_of_means, ordered
from hf_unlearn.compare.recipe import SHIPPED
from hf_unlearn.compare.repeat import repeats
from hf_unlearn.compare.rows import AGAIN, PUBLISHED, fixed_of, row_with
from hf_unlearn.compare.search import search
from hf_unlearn.compare.spaces import SPACES, inside, space_of
from hf_unlearn.compare.tables import table
from hf_unlearn.evaluation import interval, share_of_runs
from hf_unlearn.evaluation.classification import predictions
from hf_unlearn.evaluation.iam import unlearning_score
from hf_unlearn.evaluation.metric import Metric
from hf_unlearn.methods import METHODS, SFRon
from hf_unlearn.training.config import CLASSIFIER_RATE

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


def measured(gap: float, lost: float = 0.0) -> dict:
    """A cell with this average gap, whose retained and test accuracy lie `lost` points below the retrained 0.95."""
    kept = {name: {"value": 0.95 - lost / 100} for name in ("retain_accuracy", "test_accuracy")}
    details = {f"retrained_{name}": 0.95 for name in kept}
    return {"diverged": None, "metrics": {**kept, "average_gap": {"value": gap, "details": details}}}


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
    assert {row: len(found["trials"]) for row, found in results["search"].items()} == {
        row: 1 if row == "sfron" else 2 for row in TINY.methods
    }
    header, *rows = (folder / "results.csv").read_text().splitlines()
    assert header.startswith("method,seed,average_gap,retain_accuracy,test_accuracy") and len(rows) == 2 * (3 + 3)
    assert results["stamp"] in text and "± " in text


def test_iam_has_the_model_retrained_from_another_start_as_its_shadow(finished):
    """Never the retrained model that the row is compared with, and no score for the shadow itself."""
    folder, text = finished
    cells, (forget, _) = Cells(TINY, folder), forget_and_retain(TINY, 1)
    models = {"original": ("original", 1), "retrained": ("retrained", 1), AGAIN: ("retrained", 501)}
    outputs = {row: predictions(cells.trained(*m, forget_seed=1)[0], forget) for row, m in models.items()}
    results = json.loads((folder / "results.json").read_text())["results"]
    for row in ("original", "retrained"):
        others = (outputs[name].logits for name in ("original", AGAIN))
        expected = unlearning_score(outputs[row].logits, *others, outputs[row].labels).value
        assert results[row][1]["metrics"]["iam_score"]["value"] == pytest.approx(expected, abs=1e-9)
    assert all("iam_score" not in cell["metrics"] for cell in results[AGAIN])
    assert all("iam_score" in cell["metrics"] for cell in results["sfron"])
    line = next(line for line in text.splitlines() if line.startswith(f"| {AGAIN}"))
    assert line.split("|")[7].strip() == "-"


def test_search_uses_neither_the_test_split_nor_the_seeds_of_the_table(tmp_path, monkeypatch):
    asked = []

    def result(self, row, seed, split, options=None):
        asked.append((row, seed, split))
        error = 0.1 * abs(torch.tensor(options["learning_rate"]).log10().item() + 2.5)
        return measured(error)

    monkeypatch.setattr(Cells, "result", result)
    recipe = replace(TINY, trials=15, search_seeds=[1000, 1001, 1002])
    found = search(Cells(recipe, tmp_path), "finetune")
    assert set(asked) == {("finetune", s, "validation") for s in recipe.search_seeds} and len(asked) == 45
    assert 1.5e-3 < found["options"]["learning_rate"] < 6e-3  # the best is 10^-2.5
    assert found["trials"][0]["options"] == {"learning_rate": CLASSIFIER_RATE} and not found["default"]
    assert not set(recipe.search_seeds) & set(recipe.seeds)


def test_a_diverged_trial_is_the_worst_and_a_diverged_cell_is_named(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(Cells, "result", lambda *args: {"diverged": "loss is not finite"})
    assert search(Cells(TINY, tmp_path), "finetune")["gap"] == 100
    results = json.loads((finished[0] / "results.json").read_text())["results"]
    results["finetune"][1]["diverged"] = "loss is not finite"
    line = next(line for line in table(results, 1.5).splitlines() if line.startswith("| finetune"))
    assert line.count("1 of 2 diverged") == 11 and ordered(results, 100)[-1] == "finetune"


@pytest.mark.parametrize("row", sorted(SPACES))
def test_every_row_has_a_space_of_its_own_options(row):
    method = method_of(row, {})
    assert all(name == "learning_rate" or hasattr(method, name) for name in SPACES[row])
    assert all(len(space) >= 2 for space in SPACES[row].values())


# ---- rows ----------------------------------------------------------------------------------------
def test_a_row_without_options_is_the_method_as_shipped():
    """Only what the papers do on classifiers is fixed besides, and the table says so."""
    from hf_unlearn.cli.commands.classify import ClassifierFlags

    for row in SPACES:
        name, _, preset = row.partition(":")
        shipped = METHODS[name](**({"preset": preset} if preset else {}))
        assert method_of(row, {}) == replace(shipped, **PUBLISHED.get(row, {})), row
    assert method_of("sfron", {}) == SFRon() and fixed_of("sfron") == {}
    assert ClassifierFlags().learning_rate is None and ClassifierFlags.own_rate == CLASSIFIER_RATE


def test_a_row_names_the_options_that_it_fixes():
    row = "sfron:paper,slow_rate=0.25,retain_steps=3,use_mask=false,learning_rate=2e-3,bound_margin=1"
    method = method_of(row, {})
    assert method == SFRon(preset="paper", slow_rate=0.25, retain_steps=3, use_mask=False, bound_margin=1)
    assert fixed_of(row)["learning_rate"] == 2e-3
    assert method_of("sfron:retain_loss=data", {}) == SFRon(retain_loss="data")
    assert not method_of("salun:proportional_passes=False", {}).proportional_passes
    assert method_of("salun", {}).proportional_passes
    space = space_of("sfron:retain_loss=data,bound_margin=1", 0.1)
    assert space == {k: v for k, v in SPACES["sfron"].items() if k != "bound_margin"}
    options = {"learning_rate": 0.1234567890123, "mask_density": 0.3}
    again = row_with("salun", options)
    assert fixed_of(again) == {**options, "proportional_passes": True}
    assert space_of(again, 0.1) == {}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("sfron:papers", "has no preset 'papers'"),
        ("sfron:preset=paper", "sfron has no option 'preset', only learning_rate, strength, forget_loss"),
        ("ssd:selektion=3", "ssd has no option 'selektion', only learning_rate, selection"),
        ("ssd:selection=high", "row 'ssd:selection=high': selection=high is a str"),
        ("sfron:retain_steps=1.5", "retain_steps=1.5 is a float"),
        ("sfron:retain_loss=dato", "retain_loss must be one of match, data, got 'dato'"),
        ("sfron:learning_rate=", "learning_rate= is a str"),
    ],
)
def test_a_bad_row_is_one_line(row, message):
    with pytest.raises(ValueError, match=message) as caught:
        replace(TINY, methods=[row])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("row", sorted(SPACES))
def test_every_space_holds_the_default(row, share):
    """So that the search knows what its first trial was; ssd's threshold stays below what can select a weight."""
    row = f"{row}:strength=rate" if row in ("sfron", "clu") else row  # by itself it searches nothing
    space, method = space_of(row, share), method_of(row, {}).sized(round(1000 * share), 1000 - round(1000 * share))
    values = {name: getattr(method, name, None) for name in space}
    values = {n: CLASSIFIER_RATE if n.endswith("learning_rate") else v for n, v in values.items()}
    values |= (
        {"forget_loss": "ascent", "bound_margin": 1.0} if row.startswith(("sfron:s", "clu:s")) else {}
    )  # what `auto` decides
    values |= {"reinit_share": 0.03} if row == "lur" else {}  # what it decides for a classifier
    assert inside(values, space), (values, space)
    if row == "ssd":
        assert space["selection"][1] * share < 1


def test_the_first_trial_is_the_default(tmp_path, monkeypatch):
    asked = []

    def result(self, row, seed, split, options=None):
        asked.append(options)
        return measured(len(asked))

    monkeypatch.setattr(Cells, "result", result)
    cells = Cells(TINY, tmp_path)
    for row, first in (("sfron:strength=rate", {"learning_rate": CLASSIFIER_RATE}), ("ssd", {})):
        asked.clear()
        found = search(cells, row)
        assert found["default"] and found["options"] == asked[0] == first and len(asked) == TINY.trials
        assert found["values"].keys() == SPACES[row.split(":")[0]].keys() and inside(
            found["values"], space_of(row, cells.share)
        )
    for row in ("ssd:selection=3,dampening=1", "sfron"):  # the latter finds in each run what it needs
        assert len(search(cells, row)["trials"]) == 1


def test_a_row_that_cannot_work_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ValueError, match="ssd selects no weight at selection=10: the forget set is 0.1"):
        compare(replace(TINY, methods=["finetune", "ssd:selection=10"]), tmp_path, jobs=0, progress=False)
    assert not list((tmp_path / "models").iterdir())


def test_the_table_names_the_chosen_options_and_the_command(finished):
    folder, text = finished
    found = json.loads((folder / "results.json").read_text())["search"]
    assert all(f"| {row} " in text.partition("the search chose")[2] and found[row]["command"] in text for row in found)
    assert found["ssd"]["command"].startswith("hf-unlearn compare tiny --methods ssd")
    chosen = {"values": {"learning_rate": 1e-3}, "options": {}, "default": True, "gap": 1.0, "excess": 0.0}
    line = "| salun  | proportional_passes=True | learning_rate=0.001 (the defaults) | 1.00"
    for beyond, said in ((0.0, ""), (2.5, " (2.50 over the limit)")):
        searched = {"salun": {**chosen, "excess": beyond}}
        assert f"{line}{said} " in repeats(TINY, searched, (1, 9), "hf-unlearn compare tiny", folder)


@pytest.mark.long
def test_the_command_of_a_row_repeats_it(finished, tmp_path):
    """The command's row, run by itself, is the same cell of the table."""
    folder, _ = finished
    for method in ("ssd", "sfron"):
        words = json.loads((folder / "results.json").read_text())["search"][method]["command"].split()
        row, trials = words[words.index("--methods") + 1], int(words[words.index("--trials") + 1])
        alone = replace(TINY, methods=[row], trials=trials)
        compare(alone, tmp_path, jobs=0, progress=False, models_dir=folder / "models")
        ours, theirs = timeless(tmp_path)[row], timeless(folder)[method]
        assert [cell["metrics"] for cell in ours] == [cell["metrics"] for cell in theirs]


# ---- the user's own data and models --------------------------------------------------------------
NAMES = ["Bag", "Coat", "Shirt"]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder of images in two sizes, and two ViTs with an image processor that resizes and normalises."""
    import numpy as np
    from PIL import Image
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    root, draw = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 8)):
        for label, name in enumerate(NAMES):
            (root / "images" / split / name).mkdir(parents=True)
            for i in range(count):
                side = 12 if i % 2 else 16
                pixels = draw.integers(0, 80, (side, side, 3)) + 80 * label
                Image.fromarray(pixels.astype("uint8")).save(root / "images" / split / name / f"{i}.png")
    for seed, folder in enumerate(("original", "retrained")):
        torch.manual_seed(seed)
        sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
        ids = {"id2label": dict(enumerate(NAMES)), "label2id": {n: i for i, n in enumerate(NAMES)}}
        model = ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, num_channels=3, **sizes, **ids))
        model.save_pretrained(root / folder)
        processor = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.2] * 3, image_std=[0.3] * 3)
        processor.save_pretrained(root / folder)
    values = dict(name="own", data=str(root / "images"), forget={"classes": ["Shirt"]}, methods=["finetune"])
    values |= dict(seeds=[0], search_seeds=[1000], budget=2, batch_size=4, trials=1)
    values |= dict(original=str(root / "original"), retrained=str(root / "retrained"))
    (root / "own.yaml").write_text(yaml.safe_dump(values))
    return root


def test_own_models_are_compared_with_their_own_processor(own, tmp_path, capsys, monkeypatch):
    from hf_unlearn.cli.commands.compare import compare_command
    from hf_unlearn.evaluation.classification import accuracy, predictions
    from hf_unlearn.families.classifier.load import load_image_classifier, load_labelled_images

    quick = Metric(0.0, "not measured here", 1, "none")
    monkeypatch.setattr("hf_unlearn.compare.cells.relearn_steps", lambda *args, **options: quick)
    compare_command([str(own / "own.yaml"), "--output_dir", str(tmp_path), "--jobs", "0"])
    text = capsys.readouterr().out
    found = json.loads((tmp_path / "own" / "results.json").read_text())
    assert set(found["results"]) == {"original", "retrained", "finetune"}
    assert not list((tmp_path / "models").iterdir())  # nothing was trained
    for kind in ("original", "retrained"):
        model, processor = load_image_classifier(str(own / kind))
        train = load_labelled_images(own / "images", model, processor, "train")
        shirts = [train[i] for i, label in enumerate(train.labels) if NAMES[label] == "Shirt"]
        (cell,) = found["results"][kind]
        assert cell["metrics"]["forget_accuracy"]["value"] == accuracy(predictions(model, shirts)).value
        assert (
            cell["metrics"]["forget_accuracy"]["samples"] == 10 and cell["metrics"]["retain_accuracy"]["samples"] == 20
        )
        assert cell["metrics"]["test_accuracy"]["samples"] == 8  # half of the test part, without shirts
    assert found["results"]["original"][0]["metrics"]["kl_to_retrained"]["value"] > 0
    assert found["results"]["retrained"][0]["metrics"]["kl_to_retrained"]["value"] == 0
    assert "original original, retrained retrained" in text and "retraining" not in text.split("Seconds")[1][:40]
    assert f"--pretrained_model_name_or_path {own / 'original'}" in text and "--forget_class Shirt" in text


@pytest.mark.long
def test_the_classify_command_of_a_row_gives_its_cell(own, tmp_path, capsys):
    """What the comparison found is what `hf-unlearn classify` saves: same seed, steps, rate and options."""
    from hf_unlearn.cli.commands.classify import classify_command

    recipe = load_recipe(str(own / "own.yaml"))
    compare(recipe, tmp_path / "own", jobs=0, progress=False)
    found = json.loads((tmp_path / "own" / "results.json").read_text())
    words = found["search"]["finetune"]["classify"].split()
    classify_command([*words[2:], "--output_dir", str(tmp_path / "run")])
    capsys.readouterr()
    figures = json.loads((tmp_path / "run" / "figures.json").read_text())["unlearned"]
    (cell,) = found["results"]["finetune"]
    for name in ("forget_accuracy", "retain_accuracy", "kl_to_retrained"):
        assert figures[name]["value"] == pytest.approx(cell["metrics"][name]["value"], abs=1e-5)


def test_the_classify_command_names_the_data_and_the_positions(own, tmp_path):
    chosen = {"values": {}, "options": {"learning_rate": 1e-3}, "default": False, "gap": 1.0, "excess": 0.0}
    searched = {"salun": chosen}
    recipe = load_recipe(str(own / "own.yaml"), forget={"indices": [4, 2]}, data="someone/photos", budget=40)
    repeats(recipe, searched, (2, 18), "hf-unlearn compare own.yaml", tmp_path)
    command = searched["salun"]["classify"]
    assert (
        tmp_path / "forget_indices.txt"
    ).read_text() == "4\n2\n" and f"{tmp_path / 'forget_indices.txt'}" in command
    assert "--dataset_name someone/photos" in command and "--max_train_steps 4 " in command  # ten gradients a step
    assert "--proportional_passes True" in command and "--learning_rate 0.001" in command


def test_flags_replace_what_a_recipe_says(own, tmp_path):
    base = yaml.safe_load((own / "own.yaml").read_text())
    models = {name: base.pop(name) for name in ("original", "retrained")}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(base))
    assert load_recipe(str(tmp_path / "r.yaml"), **models) == load_recipe(str(own / "own.yaml"))
    with pytest.raises(ValueError, match="model is missing"):
        load_recipe(str(tmp_path / "r.yaml"))
    with pytest.raises(ValueError, match="original is given alone: give both"):
        load_recipe(str(tmp_path / "r.yaml"), original=models["original"])
    with pytest.raises(ValueError, match="one random subset: say which"):
        load_recipe(str(own / "own.yaml"), forget={"fraction": 0.1})
    with pytest.raises(ValueError, match="set shadows to 0"):
        load_recipe(str(own / "own.yaml"), shadows=3)


def test_images_of_two_sizes_are_resized_by_the_processor_or_end_in_one_line(own):
    """A model folder that is trained anew brings its processor along; a shipped architecture has none."""
    import shutil

    from hf_unlearn.training.recipes import cifar_resnet

    recipe = replace(TINY, data=str(own / "images"), model=str(own / "original"))
    parts, _ = splits_of(recipe)
    assert parts["train"].pixel_values.shape[1:] == (3, 8, 8) and parts["train"].pixel_values.max() > 1.5
    bare = own / "bare"
    model = cifar_resnet()
    model.config.num_labels = 3
    model.save_pretrained(bare)
    with pytest.raises(ValueError, match="the images have 2 sizes, .* preprocessor_config.json") as caught:
        splits_of(replace(recipe, model=str(bare)))
    assert "\n" not in str(caught.value)
    shutil.rmtree(bare)


def test_two_models_with_other_processors_are_refused(own, tmp_path):
    import shutil

    from transformers import ViTImageProcessorPil

    other = shutil.copytree(own / "retrained", tmp_path / "other")
    ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.9] * 3, image_std=[0.3] * 3).save_pretrained(
        other
    )
    recipe = load_recipe(str(own / "own.yaml"), retrained=str(other))
    with pytest.raises(ValueError, match="another image processor than the original: image_mean differs"):
        compare(recipe, tmp_path / "out", jobs=0, progress=False)


def test_classes_by_name_and_number(own):
    recipe = replace(TINY, data=str(own / "images"), model=str(own / "original"))
    for classes in (["Shirt"], [2], ["2"], ["Shirt", 0]):
        forget, _ = forget_and_retain(replace(recipe, forget={"classes": classes}), 0)
        labels = {int(forget[i]["labels"]) for i in range(len(forget))}
        assert labels == ({2} if len(classes) == 1 else {0, 2})
    forget, _ = forget_and_retain(replace(TINY, forget={"classes": ["3"]}), 0)
    assert {int(forget[i]["labels"]) for i in range(len(forget))} == {3}
    with pytest.raises(ValueError, match="class 'Shoe' is not one of Bag, Coat, Shirt"):
        forget_and_retain(replace(recipe, forget={"classes": ["Shoe"]}), 0)
    forget, retain = forget_and_retain(replace(recipe, forget={"indices": [0, 5]}), 0)
    assert list(forget.indices) == [0, 5] and len(retain) == 25


def test_every_method_can_be_compared():
    classify = {name for name, method in METHODS.items() if method.family in ("", "classifier")}
    assert {row.partition(":")[0] for row in SPACES} == classify
    costs = {name: METHODS[name]().batch_gradients for name in METHODS}
    assert [costs[name] for name in ("finetune", "neg_grad_plus", "munba", "sfron", "lur")] == [1, 2, 2, 3, 3]


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


def test_shares_of_runs_are_never_certain():
    """Three runs of nine hits are 27 of 27: Wilson. Runs that differ more than their samples can: Student."""
    assert share_of_runs([1.0, 1.0, 1.0], 9) == "100.0 [87.5, 100.0]"
    assert share_of_runs([1.0], 9) == "100.0 [70.1, 100.0]"
    assert share_of_runs([0.2, 0.4, 0.6], 1000) == "40.0 [0.0, 89.7]"


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
        ({"forget": {"classes": [[3]]}}, "write names or numbers"),
        ({"forget": {"classes": [3], "seed": 0}}, "one of fraction or classes"),
        ({"forget": {"indices": ["a"]}}, "forget.indices.0. is a str"),
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
