"""The demo opens on what was forgotten; the folder of a Space holds all that it runs on."""

import ast
import runpy
import subprocess
import sys

import numpy as np
import pytest
from conftest import save_base_and_adapter, tiny_pipeline, tiny_sd, tiny_vit
from huggingface_hub import metadata_load
from records import run_record

from hf_unlearn.cli.commands.demo import demo_command
from hf_unlearn.cli.side_by_side import Drawing, side_by_side
from hf_unlearn.saliency.ranks import NAME
from hf_unlearn.saving.adapters import set_strengths

QUICK = Drawing(num_inference_steps=2, guidance_scale=1.0)
BASE = {"name": "base", "revision": None, "on_hub": False, "licence": {"license": "mit"}}


def saved(tmp_path, make, **changes):
    make(0).save_pretrained(tmp_path / "base")
    make(1).save_pretrained(tmp_path / "run")
    run_record(base_model=BASE, **changes).write(tmp_path / "run")
    return tmp_path / "run"


def adapted(tmp_path):
    """A run that trained an adapter, whose original lies beside it."""
    save_base_and_adapter(tmp_path)
    run_record(base_model=BASE, library_name="peft").write(tmp_path / "run")
    return tmp_path / "run"


def same(first, second) -> bool:
    return np.array_equal(np.asarray(first), np.asarray(second))


def test_it_opens_on_what_was_forgotten(tmp_path):
    pair = side_by_side(saved(tmp_path / "a", tiny_pipeline), drawing=QUICK)
    assert pair.first == 3 and not pair.has_strength  # the class that the record marks
    asked = dict(pipeline_tag="text-to-image", objective={"anchors": [["a cat", "a dog"]]}, per_class=[])
    assert side_by_side(saved(tmp_path / "b", tiny_sd, forgotten="cat", **asked), drawing=QUICK).first == "a cat"
    unsafe = saved(tmp_path / "c", tiny_sd, forgotten="nudity", **asked)
    assert side_by_side(unsafe, drawing=QUICK).first == ""


def test_four_samples_of_each_model_start_from_four_seeds(tmp_path):
    pair = side_by_side(saved(tmp_path, tiny_pipeline), drawing=QUICK)
    originals, unlearned = pair.draw_many(2, 7)
    assert len(originals) == len(unlearned) == 4
    for k in range(4):
        first, second = pair.draw(2, 7 + k)
        assert same(originals[k], first) and same(unlearned[k], second)
    with pytest.raises(ValueError, match="no adapter"):
        pair.draw_many(2, 7, strength=0.5)
    with pytest.raises(ValueError, match="from 0"):
        pair.draw_many(2, None)


def test_the_strength_of_an_adapter(tmp_path):
    pair = side_by_side(adapted(tmp_path), drawing=QUICK)
    assert pair.has_strength
    originals, off = pair.draw_many(1, 0, count=1, strength=0.0)
    _, half = pair.draw_many(1, 0, count=1, strength=0.5)
    _, whole = pair.draw_many(1, 0, count=1)
    assert same(originals[0], off[0]) and not same(half[0], off[0]) and not same(half[0], whole[0])
    assert same(pair.draw(1, 0)[1], whole[0])  # afterwards it is as trained
    set_strengths(pair.models["unlearned"], {NAME: 0.5})
    assert same(pair.draw(1, 0)[1], half[0])


def built(folder, monkeypatch):
    """The names of app.py after it was imported."""
    monkeypatch.syspath_prepend(str(folder))
    return runpy.run_path(str(folder / "app.py"), run_name="app")


@pytest.mark.parametrize("make", [tiny_pipeline, tiny_vit, adapted], ids=["class", "image", "adapter"])
def test_a_space_of_a_run_builds_its_interface(tmp_path, monkeypatch, capsys, make):
    run = make(tmp_path) if make is adapted else saved(tmp_path, make)
    demo_command([str(run), "--space", str(tmp_path / "space")])
    space = tmp_path / "space"
    assert f"{space} is ready" in capsys.readouterr().out
    data = metadata_load(space / "README.md")
    assert data["sdk"] == "gradio" and data["app_file"] == "app.py" and data["title"] == "Without class 3"
    assert data["license"] == "mit" and (space / "requirements.txt").read_text().startswith("hf-unlearn[app]>=")
    assert (space / "run/unlearning_report.json").is_file() and (space / "original").is_dir()
    assert str(tmp_path) not in (space / "app.py").read_text()  # it runs elsewhere too
    pytest.importorskip("gradio", reason="no demo: pip install hf_unlearn[app]")
    (tmp_path / "base").rename(tmp_path / "gone")
    blocks = built(space, monkeypatch)["blocks"]
    labels = {getattr(block, "label", None) for block in blocks.blocks.values()}
    assert {"Forgotten", "Original", "Unlearned"} <= labels
    assert ("Strength of the adapter" in labels) == (make is adapted)
    if make is not tiny_vit:
        (chosen,) = [block for block in blocks.blocks.values() if getattr(block, "label", None) == "Class"]
        assert chosen.value == 3


def test_a_space_of_the_emoji_model_makes_its_run_when_it_starts(tmp_path):
    from hf_unlearn.cli.space import write_space

    space = write_space(tmp_path / "space")
    tree = ast.parse((space / "app.py").read_text())
    command = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "COMMAND"
    )
    assert command[0] == "sd" and "a rocket" in command and "ORIGINAL" in command
    assert (space / "original/model_index.json").is_file() and not (space / "run").exists()
    assert metadata_load(space / "README.md")["license"] == "cc-by-4.0"
    words = [str(space / "original") if word == "ORIGINAL" else word for word in command]
    told = subprocess.run(
        [sys.executable, "-m", "hf_unlearn", *words, "--output_dir", str(tmp_path / "run"), "--dry_run"],
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0 and "# plan: sfron trains" in told.stdout, told.stderr


def test_what_cannot_become_a_space(tmp_path):
    run = saved(tmp_path, tiny_pipeline)
    for words, problem in (
        ([str(run), "--space", str(tmp_path)], "is there already and not empty"),
        ([str(tmp_path / "none"), "--space", str(tmp_path / "x")], "holds no unlearning_report.json"),
        (["--space", str(tmp_path / "x"), "--original", "y"], "name the run's folder too"),
    ):
        with pytest.raises(ValueError, match=problem):
            demo_command(words)
    with pytest.raises(SystemExit):
        demo_command([])
