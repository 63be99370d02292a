"""Nothing of a run stays behind on the host: every family and method, without a GPU at hand (see worker)."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import environment
from torch.utils import backend_registration

from hf_unlearn import METHODS

WORKER = Path(__file__).with_name("worker.py")
VARIANTS = ["slow", "ema", "reference", "evaluated", "lora", "found", "found_evaluated"]
DIFFUSION = [name for name in METHODS if name not in ("bad_teacher", "boundary_shrink", "uce")]
CLASSIFIER = [name for name in METHODS if name not in ("esd", "concept_ablation", "selective_amnesia", "uce")]
CASES = {
    "unet": [*DIFFUSION, *VARIANTS],
    "vit": [*CLASSIFIER, *VARIANTS],
    "resnet": ["sfron", "slow", "found"],
    "dit": ["sfron", "esd", "lora", "found"],
    "sd": ["sfron", "esd", "uce", "lora", "found"],
    "sdxl": ["sfron", "lora"],
    "text_encoder": ["sfron", "esd", "evaluated"],
    "attack": [
        *("completion", "noise_probe", "soft_prefix", "discrete", "ring_a_bell", "tina"),
        *("merge_back", "quantised", "weight_noise", "benign_relapse"),
    ],
    "dit_attack": ["embedding", "null", "relearning"],
}
pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no backends in Python",
)


DEFAULT = [
    "unet:sfron",
    "unet:slow",
    "unet:found",
    "vit:found_evaluated",
    "vit:salun",
    "sd:sfron",
    "sd:uce",
    "attack:soft_prefix",
    "dit_attack:embedding",
]


def outcomes(cases: list[str]) -> dict[str, str]:
    """What the worker says of each FAMILY:CASE; it imports once for all of them."""
    command = [sys.executable, "-W", "ignore", str(WORKER), *cases]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    return {line[0]: line[1] for line in lines if line[0] in cases} or {"worker": done.stderr}


def test_nothing_stays_on_the_host_and_what_does_is_found():
    found = outcomes([*DEFAULT, "left_behind:sfron"])
    assert "same device" in found.pop("left_behind:sfron", "")
    assert found == dict.fromkeys(DEFAULT, "ok")


@pytest.mark.long
@pytest.mark.parametrize("family", CASES)
def test_nothing_stays_on_the_host_whatever_the_method(family):
    cases = [f"{family}:{name}" for name in CASES[family]]
    assert outcomes(cases) == dict.fromkeys(cases, "ok")
