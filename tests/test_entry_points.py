"""A method of another package, found by its entry point: run by the command, compared, named on the card."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

METHOD = '''
"""A method that its own package registers."""

from dataclasses import dataclass
from typing import ClassVar

from hf_unlearn import FineTune


@dataclass(frozen=FineTune.__dataclass_params__.frozen)
class Drift(FineTune):
    """Fine-tuning under another name."""

    name: ClassVar[str] = "outside_drift"
    paper: ClassVar[str] = "0000.00000"
    drift: float = 0.5
'''
QUICK = ["--max_train_steps", "2", "--train_batch_size", "4", "--use_cpu", "True", "--disable_tqdm", "True"]


@pytest.fixture(scope="module")
def outside(tmp_path_factory) -> Path:
    """A folder with an installed package: its module, and the metadata with its entry point."""
    root = tmp_path_factory.mktemp("outside")
    (root / "outside_methods.py").write_text(METHOD)
    about = root / "outside_methods-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-methods\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[hf_unlearn.methods]\noutside_drift = outside_methods:Drift\n")
    return root


@pytest.fixture(scope="module")
def run(outside):
    def call(*arguments) -> str:
        path = os.pathsep.join([str(outside), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-m", "hf_unlearn", *map(str, arguments)]
        env = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A classifier and images of its four classes."""
    import numpy as np
    from conftest import save_classifier, tiny_vit
    from PIL import Image

    root = tmp_path_factory.mktemp("model")
    save_classifier(tiny_vit(), root / "vit")
    generator = np.random.default_rng(0)
    for label in ("0", "1", "2", "3"):
        (root / "images" / label).mkdir(parents=True)
        for i in range(4):
            pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / label / f"{i}.png")
    return root


def test_the_command_runs_it_and_the_card_names_it(run, model, tmp_path):
    data = ["--pretrained_model_name_or_path", model / "vit", "--train_data_dir", model / "images"]
    method = ["--method", "outside_drift", "--drift", "0.25"]
    run("classify", *data, "--forget_class", "1", *method, *QUICK, "--output_dir", tmp_path)
    record = json.loads((tmp_path / "unlearning_report.json").read_text())
    assert record["method"]["name"] == "outside_drift" and record["method"]["options"]["drift"] == 0.25
    assert "method:outside_drift" in (tmp_path / "README.md").read_text()


@pytest.mark.long
def test_compare_takes_it(run, tmp_path):
    recipe = dict(name="tiny", data="digits", model="digits_vit", forget={"fraction": 0.1}, seeds=[0])
    small = dict(methods=["outside_drift"], budget=4, trials=1, shadows=0, train={"max_steps": 2})
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**recipe, **small}))
    text = run("compare", tmp_path / "tiny.yaml", "--output_dir", tmp_path / "out", "--jobs", "0")
    assert "| outside_drift" in text
