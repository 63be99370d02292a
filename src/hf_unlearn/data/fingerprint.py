"""A short hash of a data set's content."""

import hashlib

import torch

from ..common.identity import tensor_digest
from ..common.losses import spread
from .protocols import SizedDataset
from .streaming import RetainStream


def fingerprint(dataset: SizedDataset | RetainStream, samples: int = 64) -> str:
    """Return a short hash of a data set: of its length and `samples` evenly spread items, or a stream's first ones."""
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


def whole_fingerprint(dataset: SizedDataset | RetainStream, first: int = 512) -> str:
    """Return a short hash of every item of a data set, as a model gets it; of a stream, of its `first` items."""
    stream = isinstance(dataset, RetainStream)
    items = dataset.first(first) if isinstance(dataset, RetainStream) else (dataset[i] for i in range(len(dataset)))
    digest = hashlib.sha256(f"stream {first}".encode() if stream else b"set")
    for item in items:
        named = {key: tensor_digest(torch.as_tensor(value)) for key, value in item.items()}
        digest.update(f"{sorted(named.items())}".encode())
    return digest.hexdigest()[:16]
