"""A short hash of what a data set holds."""

import hashlib

import torch
from torch.utils.data import Dataset

from ..common.losses import spread
from .streaming import RetainStream


def fingerprint(dataset: Dataset, samples: int = 64) -> str:
    """Short hash of a dataset: its length and `samples` items spread over it; of a stream its first ones."""
    if isinstance(dataset, RetainStream):
        digest, items = hashlib.sha256(b"stream"), dataset.first(samples)
    else:
        digest = hashlib.sha256(str(len(dataset)).encode())
        items = (dataset[i] for i in spread(len(dataset), samples))
    for item in items:
        for key, value in sorted(item.items()):
            digest.update(key.encode())
            digest.update(torch.as_tensor(value).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
