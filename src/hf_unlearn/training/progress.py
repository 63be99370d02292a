"""How far a model has gone from what it was to what it should become, on fixed draws: a figure with a scale.

progress: 0 as the original, 1 as the anchor. Of a denoiser f, for forget samples x under their condition c and their
anchor a:

    p = Σ <f(x|c) - f_0(x|c), f_0(x|a) - f_0(x|c)> / Σ ‖f_0(x|a) - f_0(x|c)‖²

in parts of the schedule, of which the least counts: a mean over all timesteps may be 1 while the noisiest ones, which
decide what is drawn, are not. Without conditions: how far the loss has come on its way to twice the original's. Of a
classifier, for a class: 1 - p(class) / the original's; for samples of classes that are retained, with the log odds φ
of their label and φ_1 those of held-out samples of the same rank: Σ (φ - φ_0)(φ_1 - φ_0) / Σ (φ_1 - φ_0)².

retain_drift: the mean distance of the retained outputs from the original's, in units of the way that the forgotten
ones have to go. A classifier's distance is KL(original || model), and its unit that of the forget samples; for samples
of classes that are retained, ½ (φ - φ_0)².
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..common.losses import log_odds, log_rest, spread
from ..data.pairs import collate
from ..families.base import Objective
from .draws import Draws

SAMPLES, PARTS = 64, 4
BATCH = 16
TINY = 1e-12


@dataclass
class Progress:
    """What was measured.

    value: the least of `parts`; parts: by equal parts of the schedule, the least noisy first, or the only one.
    off_axis: distance of the forgotten outputs from the line between original and anchor, in the same unit as `drift`;
        None where there is no anchor. drift: of the retained outputs; None without a retain set. draws: the number of
        forget samples.
    """

    value: float
    drift: float | None
    draws: int
    parts: list[float] = field(default_factory=list)
    off_axis: float | None = None


class Probe:
    """Measures progress, against what it keeps of the original: predictions on at most 64 samples of each set.

    Args:
        forget, retain: what is measured on; `retain` may be None.
        targets: (F,) the losses that forget samples should come to, for a classifier that knows them.
    """

    def __init__(self, objective: Objective, draws: Draws, forget: Any, retain: Any, targets: Tensor | None = None):
        self.objective, self.targets = objective, targets
        self.chosen = spread(len(forget), SAMPLES)
        if not objective.labels_are_targets:  # a sample may be met again, with other draws
            self.chosen = (self.chosen * -(-SAMPLES // len(self.chosen)))[:SAMPLES]
        self.forget = self._batches(draws, forget, self.chosen, forgotten=True)
        given = [] if retain is None else spread(len(retain), SAMPLES)
        self.retain = self._batches(draws, retain, given, forgotten=False)
        with objective.measuring():
            self.before = [self._own(batch) for batch in self.forget]
            self.kept = [self._own(batch) for batch in self.retain]
            self.end = self._ends()

    def _batches(self, draws: Draws, data: Any, chosen: list[int], forgotten: bool) -> list[dict[str, Tensor]]:
        found = []
        for number, start in enumerate(range(0, len(chosen), BATCH)):
            batch = collate(
                [{**data[i], **({"index": i} if forgotten else {})} for i in chosen[start : start + BATCH]]
            )
            generator = draws.generator("progress", 2 * number + forgotten)
            found.append(draws.add(batch, generator, forget=True, split=False))
        return found

    def _own(self, batch: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():  # through `forward`, which alone may hold whole weights
            return self.objective(**{k: v for k, v in batch.items() if k != "index"}, predict=True).float()

    def _ends(self) -> list[Tensor] | None:
        """What the forget samples should become: the original's predictions under their anchors; None without any."""
        if self.objective.labels_are_targets or not self.objective.conditional:
            return None
        named = [{**b, "labels": self.objective.other_labels(b)} for b in self.forget]
        return [self._own(batch) for batch in named]

    def measure(self) -> Progress:
        """Measure the model as it is."""
        with self.objective.measuring():
            now = [self._own(batch) for batch in self.forget]
            kept = [self._own(batch) for batch in self.retain]
        if self.objective.labels_are_targets:
            return self._classifier(torch.cat(now), torch.cat(kept) if kept else None)
        return self._denoiser(now, kept)

    # ---- denoisers -----------------------------------------------------------------------------------
    def _denoiser(self, now: list[Tensor], kept: list[Tensor]) -> Progress:
        objective: Any = self.objective
        sums = torch.zeros(3, PARTS, dtype=torch.float64)  # along the way, across it, the whole way
        for i, batch in enumerate(self.forget):
            moved = (now[i] - self.before[i]).flatten(1)
            if self.end is None:
                rows = self._losses(batch, self.before[i], now[i])
            else:
                way = (self.end[i] - self.before[i]).flatten(1)
                along, whole = (moved * way).sum(1), way.square().sum(1)
                across = (moved.square().sum(1) - along.square() / whole.clamp(min=TINY)).clamp(min=0)
                rows = (along, across, whole)
            bins = objective.schedule.bins(batch["timesteps"], PARTS).cpu()
            for row, values in enumerate(rows):
                sums[row].index_add_(0, bins, values.double().cpu())
        along, across, whole = sums
        parts = [float(a / w) for a, w in zip(along, whole) if w > TINY]
        unit = float(whole.sum()) / sum(len(b["timesteps"]) for b in self.forget)
        off = None if self.end is None else float(across.sum() / whole.sum().clamp(min=TINY))
        drift = None
        if kept:
            far = sum(float((k - old).square().sum()) for k, old in zip(kept, self.kept))
            drift = far / sum(map(len, kept)) / max(unit, TINY)
        return Progress(min(parts, default=0.0), drift, len(self.chosen), parts, off)

    def _losses(self, batch: dict[str, Tensor], before: Tensor, now: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Without conditions: the rise of the loss, nothing, and the original's loss, which is the rise to come to."""
        objective: Any = self.objective
        noise = objective.schedule.target(batch["pixel_values"], batch["noise"], batch["timesteps"]).float()
        noise = noise[:, : now.shape[1]]
        old, new = ((p - noise).square().flatten(1).sum(1) for p in (before, now))
        return new - old, torch.zeros_like(old), old

    # ---- classifiers ---------------------------------------------------------------------------------
    def _classifier(self, now: Tensor, kept: Tensor | None) -> Progress:
        labels = torch.cat([batch["labels"] for batch in self.forget])
        both = [p.log_softmax(1) for p in (torch.cat(self.before), now)]
        old, new = (p.gather(1, labels[:, None])[:, 0].cpu().double() for p in both)
        targets = None if self.targets is None else self.targets[self.chosen].double()
        parts, unit = [], 0.0
        known = torch.zeros(len(old), dtype=torch.bool) if targets is None else targets.isfinite()
        if not known.all():  # of a class that goes
            share = new[~known].exp().mean() / old[~known].exp().mean().clamp(min=TINY)
            parts.append(float(1 - share))
            unit += float(-(1 - old[~known].exp()).clamp(min=1e-6).log().mean())
        if targets is not None and known.any():
            was, odds = (log_odds(p, labels).cpu().double()[known] for p in both)
            level = targets[known]
            way = -level - log_rest(level) - was
            parts.append(float(((odds - was) * way).sum() / way.square().sum().clamp(min=TINY)))
            unit = float(way.square().mean()) / 2
        drift = None
        if kept is not None:
            was, odds = torch.cat(self.kept).log_softmax(1), kept.log_softmax(1)
            if known.any() and targets is not None:
                theirs = torch.cat([batch["labels"] for batch in self.retain])
                far = (log_odds(odds, theirs) - log_odds(was, theirs)).square().mean() / 2
            else:
                far = (was.exp() * (was - odds)).sum(1).mean()
            drift = float(far) / max(unit, TINY)
        return Progress(min(parts, default=0.0), drift, len(self.chosen), parts)
