"""The images of a small style x object benchmark: the same objects in three drawing styles, 64x64 pixels on white.

The styles are Fluent (MIT), Noto (Apache-2.0) and Twemoji (CC BY 4.0). The images come from a folder of
`<style>_64.npz` files, or are rendered by resvg (extra `emoji`) from the npm packages in `PACKAGES`. Beside them stand
controls that no emoji model learns: other objects, and the style OpenMoji (CC BY-SA 4.0: no picture of it is shipped).
"""

import json
import subprocess
import tarfile
import tempfile
import zipfile
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hf_unlearn.common.untrusted import loading, read_json
from hf_unlearn.evaluation.emoji import STYLES

SIZE = 64
LARGEST = 2**29  # bytes of an unpacked file
PACKAGES = {"fluent": "fluent-emoji-flat", "noto": "noto", "twemoji": "twemoji"}  # of @iconify-json
# The name of each object's icon, in the order of `OBJECTS`.
ICONS = {
    "cat": "black-cat",
    "butterfly": "butterfly",
    "elephant": "elephant",
    "mushroom": "mushroom",
    "rose": "rose",
    "banana": "banana",
    "carrot": "carrot",
    "pineapple": "pineapple",
    "box of fries": "french-fries",
    "doughnut": "doughnut",
    "birthday cake": "birthday-cake",
    "rocket": "rocket",
    "sailboat": "sailboat",
    "car": "automobile",
    "castle": "castle",
    "guitar": "guitar",
    "basketball": "basketball",
    "snowman": "snowman",
    "christmas tree": "christmas-tree",
    "gem": "gem-stone",
    "high-heeled shoe": "high-heeled-shoe",
    "bell": "bell",
    "green apple": "green-apple",
    "umbrella": "umbrella-with-rain-drops",
}
# Objects and a style that no model is trained on, so that a classifier of them can say "never learnt".
CONTROLS = {
    "anchor": "anchor",
    "cactus": "cactus",
    "crab": "crab",
    "crown": "crown",
    "hamburger": "hamburger",
    "key": "key",
    "octopus": "octopus",
    "penguin": "penguin",
    "robot": "robot",
    "scissors": "scissors",
    "trophy": "trophy",
    "watermelon": "watermelon",
}
CONTROL_STYLES = {"openmoji": "openmoji"}  # packages of @iconify-json


def load_emoji(
    folder: str | Path | None = None, icons: Mapping[str, str] = ICONS, styles: Sequence[str] = STYLES
) -> tuple[Tensor, Tensor, Tensor]:
    """Load (images (N, 3, 64, 64) in [-1, 1], style numbers, object numbers), style after style.

    By default those that the shipped model learnt, 72.

    Args:
        folder: A folder with `<style>_64.npz` files and `names.json`. None renders the images from npm.
        icons: The icon of each object. styles: which of them; both are numbered in their order here.

    Raises:
        ValueError: a file or an icon is missing.
    """
    wanted = list(icons.values())
    every = {style: _from_folder(Path(folder), style) if folder else render(style, wanted) for style in styles}
    rows, style_numbers, things = [], [], []
    for number, style in enumerate(styles):
        for thing, icon in enumerate(wanted):
            if icon not in every[style]:
                raise ValueError(f"no {style} picture of {icon}")
            rows.append(torch.from_numpy(every[style][icon]).permute(2, 0, 1).float() / 127.5 - 1)
            style_numbers.append(number)
            things.append(thing)
    return torch.stack(rows), torch.tensor(style_numbers), torch.tensor(things)


def check_emoji(parser: ArgumentParser, folder: str) -> None:
    """End the program with one line if `load_emoji(folder)` cannot give the pictures, before anything is trained."""
    try:
        load_emoji(folder or None)
    except (ValueError, OSError) as reason:
        parser.error(str(reason))


def _from_folder(folder: Path, style: str) -> dict[str, np.ndarray]:
    path = folder / f"{style}_64.npz"
    if not path.is_file() or not (folder / "names.json").is_file():
        raise ValueError(f"{folder} has no {style}_64.npz and names.json: leave the folder out to render from npm")
    entries = read_json(folder / "names.json", list)
    with loading(path):
        names = [entry["name"] for entry in entries]
        with zipfile.ZipFile(path) as archive:  # a small file can say that it holds more than any memory
            if sum(member.file_size for member in archive.infolist()) > LARGEST:
                raise ValueError(f"{path} unpacks to more than {LARGEST // 2**20} MB: it is not what was asked for")
        with np.load(path, allow_pickle=False) as file:
            return dict(zip(names, file["x"]))


def render(style: str, wanted: Sequence[str] = tuple(ICONS.values())) -> dict[str, np.ndarray]:
    """Render {icon: (64, 64, 3) uint8} of the icons `wanted` from the npm package of a style."""
    import io

    from PIL import Image

    try:
        import resvg_py
    except ImportError as missing:
        raise ValueError(
            'pictures are rendered by resvg-py: pip install -e ".[emoji]", or give --data_dir'
        ) from missing
    icons, made = _icons({**PACKAGES, **CONTROL_STYLES}[style]), {}
    side = icons.get("width", 36), icons.get("height", 36)
    for icon in wanted:
        if icon in icons["icons"]:
            drawn = icons["icons"][icon]
            wide, high = drawn.get("width", side[0]), drawn.get("height", side[1])
            text = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}">{drawn["body"]}</svg>'
            png = resvg_py.svg_to_bytes(svg_string=text, width=SIZE, height=SIZE, background="#ffffff")
            made[icon] = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))
    return made


def _icons(package: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", f"@iconify-json/{package}", "--silent"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ValueError(f"npm pack @iconify-json/{package} failed: install npm, or give a folder") from error
        with tarfile.open(Path(folder) / done.stdout.strip().splitlines()[-1]) as archive:
            member = archive.getmember("package/icons.json")
            if member.size > LARGEST:
                raise ValueError(f"icons.json of {package} has {member.size:,} bytes: it is not what was asked for")
            return json.load(archive.extractfile(member))


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn each image of a batch (B, 3, H, W) by up to 8 degrees, scale it by 0.85 to 1.05 and move it by up to 6 %.

    What comes in from outside is white.
    """
    count = len(images)
    angle, scale, right, down = (torch.rand(4, count, generator=generator) * 2 - 1).to(images.device)
    angle, scale = angle * torch.pi * 8 / 180, 1 / (0.95 + 0.1 * scale)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack([cosine, -sine, 0.12 * right, sine, cosine, 0.12 * down], dim=1).view(count, 2, 3)
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    return F.grid_sample(images - 1, grid, align_corners=False) + 1
