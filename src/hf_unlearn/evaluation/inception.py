"""The Inception network of FID: 2,048 features of the 2015 TensorFlow model, with torch-fidelity's file of weights.

Every published FID is a distance in these features, so this network follows TensorFlow's release in detail (arXiv
1512.00567): images are resized as in TensorFlow 1, without antialiasing; average pools do not count padding; the last
block uses max pooling. torch-fidelity has the same network but does not import everywhere. The weights have the names
of torch-fidelity's and pytorch-fid's files.
"""

import hashlib
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .extras import weights_file

URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
PUBLISHED = "6726825d"  # the first digits of that file's SHA-256
INSTEAD = "name a feature_model, whose Frechet distance is not an FID"

# One convolution is (name, output channels, kernel). Kernel -3 means 3 with stride 2 and no padding.
Kernel = int | tuple[int, int]
Step = tuple[str, int, Kernel]
Branch = list[Step | list[Step]]


class _Convolution(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: Kernel, same: bool = True):
        super().__init__()
        stride = 2 if kernel == -3 else 1
        height, width = kernel if isinstance(kernel, tuple) else (abs(kernel), abs(kernel))
        padding = (height // 2, width // 2) if same and stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Parallel branches and a pool. A branch may end in a fork of two convolutions.

    Args:
        branches: lists of steps. A list in the place of a step is a fork.
        pool: "average" and "maximum" keep the size and are followed by a 1x1 convolution to `pooled` channels. "halve"
            is not.
    """

    def __init__(self, inputs: int, branches: Sequence[Branch], pool: str, pooled: int = 0):
        super().__init__()
        self.branches: list[list[list[str]]] = []
        self.pool = pool
        self.outputs = pooled or inputs
        for branch in branches:
            width = inputs
            names: list[list[str]] = []
            for place in branch:
                steps = place if isinstance(place, list) else [place]
                for name, outputs, kernel in steps:
                    self.add_module(name, _Convolution(width, outputs, kernel))
                names.append([name for name, _, _ in steps])
                width = sum(outputs for _, outputs, _ in steps)
            self.branches.append(names)
            self.outputs += width
        if pooled:
            self.branch_pool = _Convolution(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for branch in self.branches:
            y = x
            for names in branch:
                y = torch.cat([self.get_submodule(name)(y) for name in names], dim=1)
            outputs.append(y)
        if self.pool == "halve":
            return torch.cat([*outputs, F.max_pool2d(x, 3, stride=2)], dim=1)
        if self.pool == "average":
            pooled = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        else:
            pooled = F.max_pool2d(x, 3, stride=1, padding=1)
        return torch.cat([*outputs, self.branch_pool(pooled)], dim=1)


def _block_a(inputs: int, pooled: int) -> _Mixed:
    double: Branch = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]
    return _Mixed(
        inputs, ([("branch1x1", 64, 1)], [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)], double), "average", pooled
    )


def _block_b(inputs: int) -> _Mixed:
    double: Branch = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, -3)]
    return _Mixed(inputs, ([("branch3x3", 384, -3)], double), "halve")


def _block_c(inputs: int, width: int) -> _Mixed:
    wide, tall = (1, 7), (7, 1)
    single: Branch = [("branch7x7_1", width, 1), ("branch7x7_2", width, wide), ("branch7x7_3", 192, tall)]
    kernels: list[tuple[int, Kernel]] = [(width, 1), (width, tall), (width, wide), (width, tall), (192, wide)]
    double: Branch = [(f"branch7x7dbl_{k}", outputs, kernel) for k, (outputs, kernel) in enumerate(kernels, 1)]
    return _Mixed(inputs, ([("branch1x1", 192, 1)], single, double), "average", 192)


def _block_d(inputs: int) -> _Mixed:
    kernels: list[Kernel] = [1, (1, 7), (7, 1), -3]
    double: Branch = [(f"branch7x7x3_{k}", 192, kernel) for k, kernel in enumerate(kernels, 1)]
    return _Mixed(inputs, ([("branch3x3_1", 192, 1), ("branch3x3_2", 320, -3)], double), "halve")


def _block_e(inputs: int, pool: str) -> _Mixed:
    def fork(name: str) -> list[Step]:
        return [(f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1))]

    single: Branch = [("branch3x3_1", 384, 1), fork("branch3x3_2")]
    double: Branch = [("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3), fork("branch3x3dbl_3")]
    return _Mixed(inputs, ([("branch1x1", 320, 1)], single, double), pool, 192)


class InceptionV3(nn.Module):
    """The network of FID, KID, precision and recall. It never trains.

    Args:
        weights: torch-fidelity's or pytorch-fid's file (.pth, or its tensors as .safetensors), or "download".

    Raises:
        OSError: the file does not exist or cannot be downloaded. The message says where to get it and what to use
            instead.
        ValueError: the file holds other weights.
    """

    num_features = 2048
    name = "Inception-v3"

    def __init__(self, weights: str | Path):
        super().__init__()
        path = weights_file(weights, URL, "FID", INSTEAD)
        self.Conv2d_1a_3x3 = _Convolution(3, 32, -3)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3, same=False)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3, same=False)
        blocks: dict[str, Callable[[int], _Mixed]] = {
            "5b": lambda width: _block_a(width, 32),
            "5c": lambda width: _block_a(width, 64),
            "5d": lambda width: _block_a(width, 64),
            "6a": _block_b,
            "6b": lambda width: _block_c(width, 128),
            "6c": lambda width: _block_c(width, 160),
            "6d": lambda width: _block_c(width, 160),
            "6e": lambda width: _block_c(width, 192),
            "7a": _block_d,
            "7b": lambda width: _block_e(width, "average"),
            "7c": lambda width: _block_e(width, "maximum"),
        }
        self.mixed, width = [f"Mixed_{name}" for name in blocks], 192
        for name, make in blocks.items():
            block = make(width)
            self.add_module(f"Mixed_{name}", block)
            width = block.outputs
        self.fc = nn.Linear(2048, 1008)  # in the file, not used
        load_published(self, path, "the Inception weights of FID")
        self.weights_digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "InceptionV3":
        return super().train(False)

    @property
    def label(self) -> str:
        """The name of the network and its weights, for a metric's definition."""
        known = "published" if self.weights_digest == PUBLISHED else f"file {self.weights_digest}, not the published"
        return f"{self.name} ({known} weights)"

    def features(self, images: Tensor) -> Tensor:
        """Return features (B, 2048) of images (B, 3, H, W) in [-1, 1], which are rounded to 8 bits."""
        pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255)
        x = (resize_as_tensorflow1(pixels, 299) - 128) / 128
        x = F.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, stride=2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, stride=2)
        for name in self.mixed:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))


def load_published(network: nn.Module, path: Path, what: str, prefix: str = "") -> None:
    """Load the file's weights under `prefix` into `network`. Raises ValueError if the file does not hold them."""
    from safetensors.torch import load_file

    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        network.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, AttributeError) as error:
        first = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} does not hold {what}: {first}") from error


def resize_as_tensorflow1(images: Tensor, size: int) -> Tensor:
    """Resize to (B, C, size, size), bilinearly and with output pixel i at i * input / size."""
    for axis in (2, 3):
        length = images.shape[axis]
        places = torch.arange(size, dtype=torch.float32, device=images.device) * (length / size)
        low = places.long()
        high = (low + 1).clamp(max=length - 1)
        weight = (places - low).view((-1, 1) if axis == 2 else (-1,))
        images = images.index_select(axis, low) * (1 - weight) + images.index_select(axis, high) * weight
    return images
