"""What tests of bad input spoil: good models, images and a finished run, and small functions that break them.

A spoiler takes the folder in which the copies lie. `Payload` pickles to a call that would leave a file behind.
"""

import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from conftest import tiny_dit, tiny_pipeline, tiny_sd, tiny_vit
from PIL import Image
from records import run_record

Spoiler = Callable[[Path], None]
CARD = "---\nlicense: mit\n---\nA card that somebody wrote.\n"


class Payload:
    """Unpickling it makes `path`: the proof that code ran."""

    def __init__(self, path: str | Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def make_given(root: Path) -> None:
    """Models of four families, images of four classes (grey and in colour), a finished run, a tokenizer."""
    from transformers import ViTImageProcessorPil

    for name, build in {"ddpm": tiny_pipeline, "dit": tiny_dit, "sd": tiny_sd}.items():
        build().save_pretrained(root / name)
    vit = tiny_vit()
    vit.config.id2label = {i: str(i) for i in range(4)}
    vit.config.label2id = {str(i): i for i in range(4)}
    vit.save_pretrained(root / "vit")
    ViTImageProcessorPil(
        size={"height": 8, "width": 8}, do_convert_rgb=False, image_mean=[0.5], image_std=[0.5]
    ).save_pretrained(root / "vit")
    generator = np.random.default_rng(0)
    for name, shape in (("grey", (8, 8)), ("colour", (8, 8, 3))):
        for label in range(4):
            (root / name / str(label)).mkdir(parents=True)
            for i in range(3):
                pixels = generator.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(root / name / str(label) / f"{i}.png")
    (root / "run").mkdir()
    run_record().write(root / "run")
    (root / "run/README.md").write_text(CARD)
    vit.save_pretrained(root / "run")
    (root / "empty").mkdir()


def write(name: str, content: str | bytes) -> Spoiler:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def remove(name: str) -> Spoiler:
    return lambda folder: (folder / name).unlink()


def cut(name: str, share: float = 0.5) -> Spoiler:
    """Leave the first part of a file."""
    return lambda folder: os.truncate(folder / name, int(share * (folder / name).stat().st_size))


def edit(name: str, **values) -> Spoiler:
    """Other values in a JSON file."""

    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return spoil


def evil(name: str, instead_of: str | None = None) -> Spoiler:
    """A pickle with a payload, as torch writes it for .bin and .pt; `instead_of` is removed."""

    def spoil(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        payload = {"weight": Payload(folder / "RAN")}
        if path.suffix == ".pkl":
            path.write_bytes(pickle.dumps(payload))
        else:
            torch.save(payload, path)
        if instead_of:
            (folder / instead_of).unlink()

    return spoil


def tensors(name: str, values: dict) -> Spoiler:
    def spoil(folder: Path) -> None:
        from safetensors.torch import save_file

        save_file(values, folder / name)

    return spoil


def huge_header(name: str) -> Spoiler:
    """A safetensors file that says its header has 2^60 bytes."""
    return write(name, struct.pack("<Q", 2**60) + b"{}")


def bomb(name: str, side: int = 60_000) -> Spoiler:
    """A PNG of a few bytes that says it is `side` x `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return write(name, b"\x89PNG\r\n\x1a\n" + header + body)


def parquet(name: str, **columns) -> Spoiler:
    def spoil(folder: Path) -> None:
        import datasets

        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(columns).to_parquet(folder / name)

    return spoil


def link(name: str, target: str) -> Spoiler:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target if Path(target).is_absolute() else folder / target)

    return spoil


def many(*spoilers: Spoiler) -> Spoiler:
    def spoil(folder: Path) -> None:
        for one in spoilers:
            one(folder)

    return spoil


def with_record(**changes) -> Spoiler:
    """The record of the finished run, changed."""
    return lambda folder: edit("run/unlearning_report.json", **changes)(folder)
