"""A folder that a Hugging Face Space runs: the demo of a run, or of the emoji model on a CPU."""

import json
import shutil
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__
from ..common.files import write_text
from ..evaluation.judge import ASSETS
from ..hub.contents import read_contents
from ..report.escaping import markdown
from ..report.reading import read_record
from ..report.record import RECORD_FILE
from .side_by_side import original_of

RUN, ORIGINAL = "run", "original"
GRADIO = "6.0.0"  # the floor of the extra `app`, where gradio is not installed
EMOJI = (
    "--concept",
    "a rocket",
    "--anchor_concept",
    "a sailboat",
    "--guidance_scale",
    "3",
    "--num_inference_steps",
    "20",
)
EMOJI_LICENCE = "cc-by-4.0"
APP = '''"""Original and unlearned model side by side. `hf-unlearn demo --space` wrote this file."""

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from hf_unlearn.cli.commands.demo import app, theme
from hf_unlearn.cli.side_by_side import side_by_side

HERE = Path(__file__).resolve().parent
RUN, ORIGINAL = HERE / {run!r}, {original}
COMMAND = {command}  # makes the run when the Space starts for the first time; empty where the run is here

if COMMAND and not (RUN / {record!r}).is_file():
    words = [str(ORIGINAL) if word == "ORIGINAL" else word for word in COMMAND]
    subprocess.run([sys.executable, "-m", "hf_unlearn", *words, "--output_dir", str(RUN)], check=True)

blocks = app(side_by_side(RUN, str(ORIGINAL)))

if __name__ == "__main__":
    blocks.launch(theme=theme())
'''
CARD = """---
title: {title}
emoji: 🧽
colorFrom: blue
colorTo: gray
sdk: gradio
sdk_version: {gradio}
app_file: app.py
pinned: false
{licence}---

# {heading}

The original and the unlearned model answer side by side, from the same seeds. {about}
Made with [hf_unlearn](https://github.com/hf-unlearn/hf_unlearn) {version}. To run it here:
`pip install -r requirements.txt`, then `python app.py`.
"""


def write_space(out: str | Path, run_dir: str | Path | None = None, original: str | None = None) -> Path:
    """Write app.py, requirements.txt and README.md to `out`, and the models that they need.

    Args:
        run_dir: folder of a finished run, which is copied without what only training needs; None for the emoji model,
            which forgets the rocket when the Space starts.
        original: folder or Hub id of the run's original; default what the record names. A folder is copied.

    Raises:
        ValueError: `out` is not empty, or the run or its original is not whole.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--space {out} is there already and not empty: name another folder")
    if run_dir is None:
        if original is not None:
            raise ValueError("--original is that of a run: name the run's folder too")
        source, forgotten, licence = str(ASSETS / "emoji_sd"), "a rocket", EMOJI_LICENCE
        command = ["sd", "--pretrained_model_name_or_path", "ORIGINAL", *EMOJI]
    else:
        record = read_record(run_dir)
        source = original or original_of(record, run_dir)[0]
        forgotten, command = record.forgotten, []
        licence = str(record.base_model.licence.get("license", ""))
        files = read_contents(run_dir).files
        _copied(Path(run_dir), [*files, RECORD_FILE], out / RUN)
    if Path(source).is_dir():
        _copied(Path(source), read_contents(source).files, out / ORIGINAL)
        where = f"HERE / {ORIGINAL!r}"
    else:
        where = repr(source)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "app.py", APP.format(run=RUN, original=where, command=command, record=RECORD_FILE))
    write_text(out / "requirements.txt", f"hf-unlearn[app]>={__version__}\n")
    title = " ".join(f"Without {forgotten}".split())
    about = (
        "The small emoji model forgets the rocket when this Space starts, which takes minutes on a CPU."
        if command
        else "The outcome of the run stands above the pictures."
    )
    said = dict(title=json.dumps(title, ensure_ascii=False), heading=markdown(title), gradio=_gradio(), about=about)
    text = CARD.format(licence=f"license: {licence}\n" if licence else "", version=__version__, **said)
    write_text(out / "README.md", text)
    return out


def _copied(source: Path, files: Iterable[str], target: Path) -> None:
    for name in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def _gradio() -> str:
    try:
        return version("gradio")
    except PackageNotFoundError:
        return GRADIO
