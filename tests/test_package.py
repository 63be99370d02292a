"""What the installed package carries: the digits without scikit-learn, the launch files, and a wheel of all of it."""

import subprocess
import sys

import torch

from hf_unlearn.data.images import digits

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
