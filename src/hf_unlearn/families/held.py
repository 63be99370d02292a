"""What a denoiser is held to over several requests: the first model, asked under other labels for what is forgotten.

A run that matches retained samples to the model as it found it passes its own drift on to the next run, and what an
earlier run made the model forget is in neither of its sets. So a sequence of requests keeps the first model:

    target of a retained sample x under a label c:
        first(x | a)    where c is forgotten and a is its anchor
        latest(x | c)   where c was learnt since, which the first model does not know
        first(x | c)    for everything else
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Held:
    """The targets of retained samples.

    first: the network as it was before the first request, frozen.
    anchors: {forgotten label: the label that it draws now}.
    latest: the network before this request, frozen, for the labels `since`; None where there are none.
    """

    first: nn.Module
    anchors: dict[int, int] = field(default_factory=dict)
    latest: nn.Module | None = None
    since: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if self.since and self.latest is None:
            raise ValueError("labels were learnt since, but the network that knows them is not given: pass latest")

    @torch.no_grad()
    def predict(self, objective: Any, batch: dict[str, Tensor]) -> Tensor:
        """(B, C, H, W), the targets of a batch of `objective`, a Denoising."""
        labels = batch["labels"]
        asked = labels.clone()
        for label, anchor in self.anchors.items():
            asked[labels == label] = anchor
        batch = {**batch, "labels": asked}
        if self.latest is None:
            return objective.predict(self.first, batch)
        newer = torch.isin(labels, torch.tensor(sorted(self.since), dtype=labels.dtype, device=labels.device))
        found = None
        for rows, network in ((~newer, self.first), (newer, self.latest)):
            if rows.any():
                part = {name: value[rows] for name, value in batch.items()}
                predicted = objective.predict(network, part)
                found = predicted.new_zeros(len(labels), *predicted.shape[1:]) if found is None else found
                found[rows] = predicted
        assert found is not None  # a batch has rows
        return found
