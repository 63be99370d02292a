"""Forget/retain batches from data sets: split, pair and collate."""

import hashlib
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from .images import LabelledDataset
from .protocols import SizedDataset
from .streaming import RetainStream, StreamedPairs, places


def subset(dataset: SizedDataset, positions: Sequence[int]) -> Subset:
    """Return the samples of `dataset` at `positions`."""
    return Subset(cast(Dataset, dataset), positions)


def labels_of(dataset: SizedDataset | RetainStream) -> list[int] | None:
    """Return the label of each sample without loading images, or None if the data has none.

    Of a stream these are the labels of its first samples.
    """
    if isinstance(dataset, Subset):
        labels = labels_of(cast(SizedDataset, dataset.dataset))
        return None if labels is None else [labels[i] for i in dataset.indices]
    if isinstance(dataset, LabelledDataset | RetainStream):
        return dataset.labels
    if isinstance(getattr(dataset, "column_names", None), list) and "labels" in dataset.column_names:  # type: ignore[attr-defined]
        return list(dataset.with_format(None)["labels"])  # type: ignore[attr-defined]
    if len(dataset) == 0 or "labels" not in dataset[0]:
        return None
    return [int(dataset[i]["labels"]) for i in range(len(dataset))]


def example_of(dataset: Any) -> dict[str, Any] | None:
    """Return the first item of a data set or stream, or None if it has none."""
    if isinstance(dataset, RetainStream):
        return dataset.example
    return dataset[0] if dataset is not None and len(dataset) else None


def paired(
    forget: Any, retain: Any, method: Any, args: Any, learn: Any = None
) -> "ForgetRetainDataset | StreamedPairs":
    """Pair forget, retain and learn samples for each outer step, as `method` and the training arguments require.

    Raises:
        ValueError: a set is empty, the sets overlap, or the method or the arguments do not allow a stream.
    """
    if not isinstance(retain, RetainStream):
        multiple = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
        learning = (learn, method.learn_batches)
        return ForgetRetainDataset(forget, retain, method.retain_batches, multiple, method.streams, *learning)
    if "retain" not in method.streams:
        raise ValueError(f"{method.name} trains on no retain data, so it can stream none: give a set that fits")
    if args.dataloader_num_workers:
        raise ValueError("a stream keeps its place in the training process: set dataloader_num_workers=0")
    args.ignore_data_skip = True  # a resumed run continues where the stream stopped
    check_overlap({"forget": forget, "retain": None, "learn": learn})
    place = (args.train_batch_size, args.process_index, args.world_size)
    learning = (learn, method.learn_batches)
    return StreamedPairs(forget, retain, method.retain_batches, *place, method.streams, *learning)


def halves(dataset: SizedDataset) -> tuple[Subset, Subset]:
    """Two random halves, the same ones in every run."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
    middle = len(order) // 2
    return subset(dataset, order[:middle]), subset(dataset, order[middle:])


def split_by_index(dataset: SizedDataset, forget: Sequence[int]) -> tuple[Subset, Subset]:
    """Return (forget, retain) subsets of `dataset`, where `forget` lists the positions to forget.

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
    return subset(dataset, sorted(chosen)), subset(dataset, [i for i in range(len(dataset)) if i not in chosen])


def split_by_label(dataset: SizedDataset, labels: int | Sequence[int]) -> tuple[Subset, Subset]:
    """Return (forget, retain) subsets of `dataset`, where forget holds every sample of the given class or classes.

    Raises:
        ValueError: the data has no labels, or a class has no sample. The message lists the classes in the data.
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
    """Pair forget and retain samples: item i holds forget[i % F], with its position as `index`, `retain_batches`
    retain samples; and samples to learn, if there are any.

    The k-th retain sample is retain[(i + k * stride) % R] with stride = R // retain_batches, so every retain sample
    appears in each of the K places. The pairing is not random: workers, processes and resumed runs agree on it.

    Args:
        forget, retain: the two sets. Pass None where the method reads no such data.
        multiple: the global batch size. The length is rounded up to a multiple of it and positions wrap around, so
            every batch is full and the sets may be smaller than a batch.
        streams: which of "forget" and "retain" the items hold.
        learn: samples to learn, or None; an item holds `learn_batches` of them, placed as the retain samples are.

    Raises:
        ValueError: a set is empty, or two sets overlap.
    """

    def __init__(
        self,
        forget: SizedDataset | None,
        retain: SizedDataset | None,
        retain_batches: int = 1,
        multiple: int = 1,
        streams: Sequence[str] = ("forget", "retain"),
        learn: SizedDataset | None = None,
        learn_batches: int = 1,
    ):
        for name, part in (("forget", forget), ("retain", retain), ("learn", learn)):
            if part is not None and len(part) == 0:
                raise ValueError(f"the {name} set is empty: give at least one sample")
        if forget is None and retain is None:
            raise ValueError("neither a forget nor a retain set was given")
        check_overlap({"forget": forget, "retain": retain, "learn": learn})
        self.learn, self.learn_batches = learn, learn_batches
        self.forget, self.retain = (
            part if name in streams else None for name, part in (("forget", forget), ("retain", retain))
        )
        self.retain_batches = retain_batches
        longest = max(len(part) for part in (self.forget, self.retain, self.learn) if part is not None)
        self.length = -(-longest // multiple) * multiple

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> dict[str, Any]:
        item: dict[str, Any] = {}
        if self.forget is not None:
            position = i % len(self.forget)
            item["forget"] = {**self.forget[position], "index": position}
        if self.retain is not None:
            item["retain"] = [self.retain[p] for p in places(i, len(self.retain), self.retain_batches)]
        if self.learn is not None:
            item["learn"] = [self.learn[p] for p in places(i, len(self.learn), self.learn_batches)]
        return item


def check_overlap(sets: dict[str, SizedDataset | None]) -> None:
    """Raise ValueError if a sample is in two of the forget, the retain and the learn set."""
    for one, other, mend in (
        ("forget", "retain", "remove them from retain"),
        ("learn", "forget", "a sample is to be learnt or to be forgotten"),
        ("learn", "retain", "remove them from retain, which keeps what the model said before"),
    ):
        if overlap := _overlap(sets[one], sets[other]):
            raise ValueError(f"{overlap} samples are in both the {one} and the {other} set: {mend}")


def _overlap(forget: SizedDataset | None, retain: SizedDataset | None) -> int:
    """Count the samples of one set that are also in the other.

    Two Subsets of one data set are compared by position. Other sets are compared by content where both can be read
    without decoding images.
    """
    if forget is None or retain is None:
        return 0
    if forget is retain:
        return len(forget)
    if isinstance(forget, Subset) and isinstance(retain, Subset) and forget.dataset is retain.dataset:
        return len(set(forget.indices) & set(retain.indices))
    ours, theirs = _contents(forget), _contents(retain)
    return len(ours & theirs) if ours is not None and theirs is not None else 0


def _contents(dataset: SizedDataset) -> set[bytes] | None:
    """Return hashes of the stored images, or None if the data is not a `LabelledDataset`."""
    base: Any = dataset
    positions: Sequence[int] = range(len(dataset))
    if isinstance(dataset, Subset):
        base, positions = dataset.dataset, dataset.indices
    if not isinstance(base, LabelledDataset):
        return None
    return {hashlib.sha256(content).digest() for content in base.stored_bytes(positions)}


def collate(items: list[Any]) -> Any:
    """Stack dicts of tensors or numbers into batches, in fp32 at most. Nested dicts and lists keep their structure.

    Raises:
        ValueError: the tensors have several shapes.
    """
    first = items[0]
    if isinstance(first, dict):
        return {key: collate([item[key] for item in items]) for key in first}
    if isinstance(first, (list, tuple)):
        return [collate([item[k] for item in items]) for k in range(len(first))]
    tensors = [torch.as_tensor(item) for item in items]
    shapes = list(dict.fromkeys(tuple(tensor.shape) for tensor in tensors))
    if len(shapes) > 1:
        raise ValueError(
            f"samples of one batch have shapes {shapes[0]} and {shapes[1]}: bring all images to one size, which a "
            "resolution or the model's processor does"
        )
    batch = torch.stack(tensors)
    return batch.float() if batch.dtype == torch.float64 else batch  # as numpy makes them


def mixed_batch(forget: dict[str, Tensor], retain: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """Concatenate two batches; also return the sample mask (B,), which is True on forget rows."""
    mixed = {key: torch.cat([forget[key], retain[key]]) for key in forget if key in retain}
    sizes = [len(next(iter(part.values()))) for part in (forget, retain)]
    mask = torch.arange(sum(sizes), device=next(iter(mixed.values())).device) < sizes[0]
    return mixed, mask


def forget_and_retain(
    everything: SizedDataset,
    classes: Sequence[int] | None = None,
    indices: Sequence[int] | None = None,
    images: SizedDataset | None = None,
) -> tuple[SizedDataset, SizedDataset]:
    """Return (forget, retain) for one of: classes of `everything`, positions in it, or separate forget images.

    With `images`, `everything` is the retain set. It must not contain them; the pairing compares them by content.

    Raises:
        ValueError: none or several of the three are given, or what `split_by_label` and `split_by_index` raise.
    """
    given = [name for name, value in (("class", classes), ("indices", indices), ("data_dir", images)) if value]
    if len(given) != 1:
        raise ValueError("say what to forget with one of --forget_class, --forget_indices or --forget_data_dir")
    if classes:
        return split_by_label(everything, list(classes))
    if indices:
        return split_by_index(everything, list(indices))
    assert images is not None  # the one that was given
    return images, everything


def random_subset(length: int, fraction: float, seed: int) -> list[int]:
    """Draw round(fraction * length) positions in [0, length) with `seed`; return them sorted.

    Raises:
        ValueError: the fraction is not in (0, 1), or rounds to no sample or to all of them.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"forget_fraction must lie in (0, 1), got {fraction}")
    count = round(fraction * length)
    if not 0 < count < length:
        raise ValueError(f"forget_fraction {fraction} of {length} samples is {count}: change the fraction")
    order = torch.randperm(length, generator=torch.Generator().manual_seed(seed))
    return sorted(order[:count].tolist())
