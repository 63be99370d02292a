"""Nothing of a run stays behind on the host: every family and method, without a GPU at hand (see worker)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

from hf_unlearn import METHODS

WORKER = Path(__file__).with_name("worker.py")
VARIANTS = ["slow", "ema", "reference", "evaluated", "lora"]
DIFFUSION = [name for name in METHODS if name not in ("bad_teacher", "boundary_shrink", "uce")]
CLASSIFIER = [name for name in METHODS if name not in ("esd", "concept_ablation", "selective_amnesia", "uce")]
CASES = {
    "unet": [*DIFFUSION, *VARIANTS],
    "vit": [*CLASSIFIER, *VARIANTS],
    "resnet": ["sfron", "slow"],
    "dit": ["sfron", "esd", "lora"],
    "sd": ["sfron", "esd", "uce", "lora"],
    "sdxl": ["sfron", "lora"],
    "text_encoder": ["sfron", "esd", "evaluated"],
}
pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no backends in Python",
)


def outcomes(family: str, names: list[str]) -> dict[str, str]:
    command = [sys.executable, "-W", "ignore", str(WORKER), family, *names]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    return {line[0]: line[1] for line in lines if line[0] in names} or {"worker": done.stderr}


@pytest.mark.parametrize(
    ("family", "names"), [("unet", ["sfron", "slow"]), ("vit", ["salun"]), ("sd", ["sfron", "uce"])]
)
def test_nothing_stays_on_the_host(family, names):
    assert outcomes(family, names) == dict.fromkeys(names, "ok")


@pytest.mark.long
@pytest.mark.parametrize("family", CASES)
def test_nothing_stays_on_the_host_whatever_the_method(family):
    assert outcomes(family, CASES[family]) == dict.fromkeys(CASES[family], "ok")


def test_what_stays_there_is_found():
    assert "same device" in outcomes("left_behind", ["sfron"])["sfron"]
