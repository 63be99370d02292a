"""From data sets to forget/retain batches: splits, pairing and collation."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from .images import LabelledDataset
from .streaming import RetainStream, StreamedPairs


def labels_of(dataset: Dataset) -> list[int] | None:
    """Labels of a dataset or Subset without loading its images, or None if it has none; the first of a stream."""
    if isinstance(dataset, Subset):
        labels = labels_of(dataset.dataset)
        return None if labels is None else [labels[i] for i in dataset.indices]
    if isinstance(dataset, LabelledDataset | RetainStream):
        return dataset.labels
    if len(dataset) == 0 or "labels" not in dataset[0]:
        return None
    return [int(dataset[i]["labels"]) for i in range(len(dataset))]


def example_of(dataset: Any) -> dict[str, Any] | None:
    """The first item of a dataset or stream; None if there is none."""
    if isinstance(dataset, RetainStream):
        return dataset.example
    return dataset[0] if dataset is not None and len(dataset) else None


def paired(forget: Any, retain: Any, method: Any, args: Any) -> "ForgetRetainDataset | StreamedPairs":
    """What the loop reads: forget and retain samples of each outer step, as `method` and the arguments ask for.

    Raises:
        ValueError: what the two classes raise, or workers are asked to read a stream.
    """
    if not isinstance(retain, RetainStream):
        multiple = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
        return ForgetRetainDataset(forget, retain, method.retain_batches, multiple, method.streams)
    if "retain" not in method.streams:
        raise ValueError(f"{method.name} trains on no retain data, so it can stream none: give a set that fits")
    if args.dataloader_num_workers:
        raise ValueError("a stream keeps its place in the training process: set dataloader_num_workers=0")
    args.ignore_data_skip = True  # a resumed run goes on where the stream was: nothing is to be read again
    rank, world = args.process_index, args.world_size
    return StreamedPairs(forget, retain, method.retain_batches, args.train_batch_size, rank, world, method.streams)


def split_by_index(dataset: Dataset, forget: Sequence[int]) -> tuple[Subset, Subset]:
    """(forget, retain) subsets; `forget` lists positions in `dataset`.

    Raises:
        ValueError: an index out of range, an empty forget set, or nothing left to retain.
    """
    outside = [i for i in forget if not 0 <= i < len(dataset)]
    if outside:
        raise ValueError(f"forget indices {outside[:5]} are out of range: the data has {len(dataset)} samples")
    chosen = set(forget)
    if not chosen:
        raise ValueError("the forget set is empty: name at least one sample to forget")
    if len(chosen) == len(dataset):
        raise ValueError("the retain set is empty: every sample is to be forgotten")
    return Subset(dataset, sorted(chosen)), Subset(dataset, [i for i in range(len(dataset)) if i not in chosen])


def split_by_label(dataset: Dataset, labels: int | Sequence[int]) -> tuple[Subset, Subset]:
    """(forget, retain) subsets; forget holds every sample of the given class or classes.

    Raises:
        ValueError: the data has no labels, or a class has no sample (the message lists those there are).
    """
    wanted = {labels} if isinstance(labels, int) else set(labels)
    present = labels_of(dataset)
    if present is None:
        raise ValueError("the data has no labels, so a class cannot be forgotten: give a forget set of images instead")
    unknown = sorted(wanted - set(present))
    if unknown:
        raise ValueError(f"class {unknown[0]} is not in the data, whose classes are {sorted(set(present))}")
    return split_by_index(dataset, [i for i, label in enumerate(present) if label in wanted])


class ForgetRetainDataset(Dataset):
    """Pairs for one outer step. Item i holds forget[i % F], with its position as `index`, and `retain_batches` retain
    samples.

    The k-th retain sample is retain[(i + k * stride) % R] with stride = R // retain_batches, so that every retain
    sample is met in each of the K places. Nothing is drawn here: workers, processes and resumed runs agree.

    Args:
        forget, retain: or None for methods that take no such data.
        multiple: the length is rounded up to a multiple of this (the global batch); positions wrap around, so
            that every batch is whole and small sets are legal.
        streams: which of the two the items hold.

    Raises:
        ValueError: a set is empty, or the two are the same data (overlap).
    """

    def __init__(
        self,
        forget: Dataset | None,
        retain: Dataset | None,
        retain_batches: int = 1,
        multiple: int = 1,
        streams: Sequence[str] = ("forget", "retain"),
    ):
        for name, part in (("forget", forget), ("retain", retain)):
            if part is not None and len(part) == 0:
                raise ValueError(f"the {name} set is empty: give at least one sample")
        if forget is None and retain is None:
            raise ValueError("neither a forget nor a retain set was given")
        overlap = _overlap(forget, retain)
        if overlap:
            raise ValueError(f"{overlap} samples are in both the forget and the retain set: remove them from retain")
        self.forget, self.retain = (
            part if name in streams else None for name, part in (("forget", forget), ("retain", retain))
        )
        self.retain_batches = retain_batches
        longest = max(len(part) for part in (self.forget, self.retain) if part is not None)
        self.length = -(-longest // multiple) * multiple

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> dict[str, Any]:
        item: dict[str, Any] = {}
        if self.forget is not None:
            position = i % len(self.forget)
            item["forget"] = {**self.forget[position], "index": position}
        if self.retain is not None:
            size, stride = len(self.retain), max(1, len(self.retain) // self.retain_batches)
            item["retain"] = [self.retain[(i + k * stride) % size] for k in range(self.retain_batches)]
        return item


def _overlap(forget: Dataset | None, retain: Dataset | None) -> int:
    """Number of forget samples that are in the retain set too.

    By position where both are Subsets of one dataset, by content where both can be read without decoding.
    """
    if forget is None or retain is None:
        return 0
    if forget is retain:
        return len(forget)
    if isinstance(forget, Subset) and isinstance(retain, Subset) and forget.dataset is retain.dataset:
        return len(set(forget.indices) & set(retain.indices))
    ours, theirs = _contents(forget), _contents(retain)
    return len(ours & theirs) if ours is not None and theirs is not None else 0


def _contents(dataset: Dataset) -> set[bytes] | None:
    """Hashes of the stored images, or None for data that this module did not make."""
    positions: Sequence[int] = range(len(dataset))
    if isinstance(dataset, Subset):
        dataset, positions = dataset.dataset, dataset.indices
    if not isinstance(dataset, LabelledDataset):
        return None
    return {hashlib.sha256(content).digest() for content in dataset.stored_bytes(positions)}


def collate(items: list[Any]) -> Any:
    """Stack dicts of tensors or numbers; nested dicts and lists keep their shape."""
    first = items[0]
    if isinstance(first, dict):
        return {key: collate([item[key] for item in items]) for key in first}
    if isinstance(first, (list, tuple)):
        return [collate([item[k] for item in items]) for k in range(len(first))]
    return torch.stack([torch.as_tensor(item) for item in items])


def mixed_batch(forget: dict[str, Tensor], retain: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """One batch of both, and the sample mask (B,) that is True on forget rows."""
    mixed = {key: torch.cat([forget[key], retain[key]]) for key in forget if key in retain}
    sizes = [len(next(iter(part.values()))) for part in (forget, retain)]
    mask = torch.arange(sum(sizes), device=next(iter(mixed.values())).device) < sizes[0]
    return mixed, mask


def forget_and_retain(
    everything: Dataset,
    classes: Sequence[int] | None = None,
    indices: Sequence[int] | None = None,
    images: Dataset | None = None,
) -> tuple[Dataset, Dataset]:
    """(forget, retain) from exactly one of: classes of `everything`, positions in it, or a set of images.

    With `images`, `everything` is the retain set and must not hold them: compared by content.

    Raises:
        ValueError: none or several of the three are given, or what the splits raise.
    """
    given = [name for name, value in (("class", classes), ("indices", indices), ("data_dir", images)) if value]
    if len(given) != 1:
        raise ValueError("say what to forget with one of --forget_class, --forget_indices or --forget_data_dir")
    if classes:
        return split_by_label(everything, list(classes))
    if indices:
        return split_by_index(everything, list(indices))
    return images, everything


def random_subset(length: int, fraction: float, seed: int) -> list[int]:
    """round(fraction * length) positions in [0, length), sorted, drawn by `seed`.

    Raises:
        ValueError: the fraction is not in (0, 1), or it rounds to no sample or to all.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"forget_fraction must lie in (0, 1), got {fraction}")
    count = round(fraction * length)
    if not 0 < count < length:
        raise ValueError(f"forget_fraction {fraction} of {length} samples is {count}: change the fraction")
    order = torch.randperm(length, generator=torch.Generator().manual_seed(seed))
    return sorted(order[:count].tolist())
