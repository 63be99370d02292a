"""What the installed package carries: the digits without scikit-learn, the launch files, and a wheel of all of it."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from packaging.requirements import Requirement
from safetensors.torch import load_file

from hf_unlearn.data.images import digits
from hf_unlearn.evaluation import class_pictures
from hf_unlearn.evaluation.emoji import EMOJI_SD

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


def test_links_of_the_readme_are_absolute():
    """The README is the page of the package index too, where a path leads nowhere. tests/test_docs.py follows them."""
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text())
    assert len(links) > 15 and not [link for link in links if not link.startswith("https://")]


def test_the_metadata_is_whole():
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"license", "license-files", "authors", "urls", "keywords", "classifiers", "readme"} <= set(project)
    assert all((ROOT / name).is_file() for name in project["license-files"])
    assert not [c for c in project["classifiers"] if c.startswith("License")]  # an SPDX expression takes their place
    needed = {Requirement(line).name for line in project["dependencies"]}
    assert not {n for n in needed if re.match("efficientnet|xformers|scikit|scipy", n)}
    extras = {n: {Requirement(line).name for line in lines} for n, lines in project["optional-dependencies"].items()}
    assert "features" not in extras and [n for n in extras if "xformers" in extras[n]] == ["xformers"]


def test_the_emoji_weights_have_their_notice():
    notice = " ".join((ROOT / "NOTICE").read_text().split())
    for said in ("hf_unlearn/assets/emoji_sd", "CC BY 4.0", "Twemoji", "Noto Emoji", "Fluent Emoji"):
        assert said in notice


def test_a_retrained_model_that_a_wheel_leaves_out_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(class_pictures, "RETRAINED", tmp_path)
    with pytest.raises(OSError, match="without the 7 is not in this installation.*--exclude_class 7"):
        class_pictures.retrained_digits_ddpm(7)


def test_untrained_words_of_the_emoji_model_are_signs():
    """Their embeddings were random; so the wheel is 3 MB smaller. Words of the captions keep theirs."""
    table = load_file(EMOJI_SD / "text_encoder/model.safetensors")["embeddings.token_embedding.weight"]
    plain = (table.abs() == 5 / 256).all(1)
    assert (~plain).sum() == 44 and len(table) == 49408
    assert len(torch.unique(table[plain][:200], dim=0)) == 200  # words still differ


@pytest.mark.long
def test_the_wheel_holds_every_file_of_the_package(tmp_path):
    check = [str(ROOT / "tools/check_package.sh"), str(tmp_path)]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(check, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.stat().st_size <= 12_000_000 and any(name.endswith("licenses/NOTICE") for name in names)
    assert [n for n in names if "retrained" in n] == ["hf_unlearn/assets/digits_ddpm_retrained/without_3.safetensors"]
    for name in ("cli/accelerate/fsdp2.yaml", "assets/digits/digits.npz", "report/templates/report.html", "py.typed"):
        assert f"hf_unlearn/{name}" in names


def test_the_version_is_one(tmp_path):
    """Package, CITATION.cff, change log and the page on citing agree; tools/check_release.sh compares a tag."""
    version = re.search(r'^__version__ = "(.+)"$', (ROOT / "src/hf_unlearn/__init__.py").read_text(), re.M)[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"version = {{{version}}}" in (ROOT / "docs/platforms.md").read_text()
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == version
    check = ["bash", str(ROOT / "tools/check_release.sh")]
    right = subprocess.run([*check, f"v{version}"], capture_output=True, text=True)
    assert right.returncode == 0 and "### Added" in right.stdout
    wrong = subprocess.run([*check, "v0.0.9"], capture_output=True, text=True)
    assert wrong.returncode == 1 and "not version 0.0.9" in wrong.stderr


def test_workflows_and_templates_are_read():
    """YAML that GitHub could not read would only fail there."""
    for path in sorted((ROOT / ".github").rglob("*.yml")):
        read = yaml.safe_load(path.read_text())
        if path.parent.name == "workflows":
            used = [step["uses"] for job in read["jobs"].values() for step in job["steps"] if "uses" in step]
            assert used and all("@" in name for name in used) and read["permissions"] == {"contents": "read"}
            for line in re.findall(r"bash (tools/\w+\.sh)|(\.ci/run)$", path.read_text(), re.M):
                assert (ROOT / (line[0] or line[1])).is_file()
