"""What a classifier would say of its forget samples, had it never seen them: the end that forgetting has.

A class that the retain set lacks: what the original says without that class. A sample of a class that is retained: the
loss that held-out samples have, by rank, so that the hardest forget sample gets the loss of the hardest held-out one;
all other classes share the rest of the probability as the original has it. The idea of a held-out reference is
ReGUn's (arXiv 2603.11210); its mean over samples would take the samples' differences away.

How far a prediction is from that end is, for a class that goes, the divergence KL(end || prediction). Samples of
classes that stay, forgotten and retained ones, are compared by the log odds φ = log(p_y / (1 - p_y)) of their label:
½ (φ - φ_end)². Most of them have a p_y of nearly 1 before and after. A divergence and its gradient vanish there,
although losses of 0.0005 and 0.005 are what tells a member from a stranger.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...common.losses import log_odds, log_rest
from ...data.pairs import collate, labels_of
from ...data.protocols import SizedDataset

LEAST = -30.0  # log of a probability that stands for 0, so that no loss is infinite
BATCH = 64


@dataclass
class Unseen:
    """What is known before the first step.

    lost: (classes,) bool, the classes that the retain set lacks.
    holdout: samples of the retained classes that the model was never trained on; None if there are none.
    samples: whether some forget samples are of a class that is retained.
    """

    lost: Tensor
    holdout: SizedDataset | None
    samples: bool

    @property
    def known(self) -> bool:
        """Whether every forget sample has an end."""
        return not bool(self.lost.all()) and (not self.samples or self.holdout is not None)


def unseen_of(num_classes: int, forget: Any, retain: Any, holdout: Any, learn: Any = None) -> Unseen | None:
    """What the sets tell; None where they have no labels. A class that is learnt from other samples does not go."""
    ours, theirs = (None if part is None else labels_of(part) for part in (forget, retain))
    if not ours or not theirs:
        return None
    theirs = [*theirs, *((None if learn is None else labels_of(learn)) or ())]
    lost = torch.ones(num_classes, dtype=torch.bool)
    lost[[label for label in set(theirs) if 0 <= label < num_classes]] = False
    kept = not bool(lost[[label for label in set(ours) if 0 <= label < num_classes]].all())
    return Unseen(lost, holdout, kept)


@torch.no_grad()
def losses_of(objective: Any, data: SizedDataset) -> Tensor:
    """(N,) cross entropy of every sample, in eval mode, on the CPU."""
    device = next(objective.network.parameters()).device
    found = []
    with objective.measuring():
        for start in range(0, len(data), BATCH):
            batch = collate([data[i] for i in range(start, min(start + BATCH, len(data)))])
            taken = {name: batch[name].to(device) for name in ("pixel_values", "labels")}
            found.append(objective(**taken).cpu())
    return torch.cat(found)


def levels(objective: Any, unseen: Unseen, forget: SizedDataset) -> Tensor:
    """(F,) the loss of each forget sample as if never seen: infinite where its class is forgotten."""
    labels = torch.tensor(labels_of(forget))
    found = torch.full((len(labels),), torch.inf)
    kept = ~unseen.lost[labels]
    if kept.any():
        if unseen.holdout is None:
            raise ValueError("samples of retained classes need held-out samples: pass holdout_dataset")
        theirs = losses_of(objective, unseen.holdout).sort().values
        ours = losses_of(objective, forget)[kept]
        rank = ours.argsort().argsort().double()
        place = (rank + 0.5) / len(ours) * len(theirs)
        found[kept] = torch.maximum(theirs[place.long().clamp(max=len(theirs) - 1)], ours)
    return found


def target_of(unseen: Unseen, labels: Tensor, original: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """(logits (B, classes) of what the samples are matched to, (B,) how far the original is from it: `distances`).

    Args:
        original: logits (B, classes) of the original.
        levels: (B,) the loss under the own label that they should have.
    """
    was = original.float().log_softmax(1)
    own = F.one_hot(labels, was.shape[1]).bool()
    taken = own | unseen.lost.to(was.device)
    rest = was.masked_fill(taken, -torch.inf).log_softmax(1)
    rest = rest.masked_fill(taken.all(1, keepdim=True), -torch.inf)  # a sample of the only class that is left
    target = torch.where(own, -levels[:, None], rest + log_rest(levels)[:, None]).clamp(min=LEAST).log_softmax(1)
    return target, distances(unseen, was, target, labels)


def distances(unseen: Unseen, logits: Tensor, target: Tensor, labels: Tensor) -> Tensor:
    """(B,) how far predictions are from `target`, both logits (B, classes)."""
    log_p, log_end = logits.log_softmax(1), target.float().log_softmax(1)
    divergence = F.kl_div(log_p, log_end, reduction="none", log_target=True).sum(1)
    if not unseen.samples or len(unseen.lost) - int(unseen.lost.sum()) < 2:  # one class alone has no odds
        return divergence
    apart = 0.5 * (log_odds(log_p, labels) - log_odds(log_end, labels)).square()
    return torch.where(unseen.lost.to(labels.device)[labels], divergence, apart)
