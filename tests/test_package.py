"""What the installed package carries: the digits without scikit-learn, the launch files, and a wheel of all of it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from hf_unlearn.data.images import digits

ROOT = Path(__file__).parents[1]
WITHOUT = """
import sys
sys.modules["sklearn"] = None
from hf_unlearn import digits
assert len(digits()) == 1797
"""


def test_the_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    ours, theirs = digits(), load_digits()
    pixels = torch.tensor(theirs.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    assert torch.equal(ours.pixel_values, pixels) and ours.pixel_values.dtype == torch.float32
    assert torch.equal(ours.label_tensor, torch.tensor(theirs.target, dtype=torch.int64))


def test_the_digits_need_no_scikit_learn():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_the_wheel_holds_every_file_of_the_package(tmp_path):
    check = [str(ROOT / "tools/check_package.sh"), str(tmp_path)]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(check, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("cli/accelerate/fsdp2.yaml", "assets/digits/digits.npz", "report/templates/report.html", "py.typed"):
        assert f"hf_unlearn/{name}" in names
