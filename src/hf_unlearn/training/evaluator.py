"""Evaluation during training: losses on fixed draws, how far forgetting has come, how far retained data drifted."""

from typing import Any

import torch
from torch import Tensor, nn

from .draws import Draws
from .progress import Probe, Progress
from .reference import Reference


class Evaluator:
    """The part of the trainer that turns evaluations into scores.

    forget_score: the part of the way from the original to the anchor that is left: 1 as the original, 0 as the anchor.
    retain_drift: how far retained outputs are from the original's, in units of that way (`progress`).
    """

    def __init__(self, draws: Draws, reference: Reference):
        self.draws, self.reference = draws, reference
        self.probe: Probe | None = None  # from `prepare` on
        self._batches = 0

    def restart(self) -> None:
        """Begin another data set: its batches are counted, and drawn, from 0."""
        self._batches = 0

    def prepare(self, sets: Any, original: bool = True) -> None:
        """Keep what the original predicts; what is there already is kept.

        Args:
            sets: {"forget": ..., "retain": ...} that are measured.
            original: whether the weights are the original's still, and are to be measured.
        """
        objective = self.reference.objective
        if not original or self.probe is not None or not isinstance(sets, dict) or "forget" not in sets:
            return
        forget = sets["forget"]
        targets = objective.unseen_levels(forget) if objective.knows_unseen else None
        if objective.measurable:
            self.probe = Probe(objective, self.draws, forget, sets.get("retain"), targets)

    def predict(
        self, model: nn.Module, inputs: dict[str, Tensor], loss_only: bool
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The next batch on its fixed draws, as `Trainer.prediction_step` gives it.

        Returns:
            The mean loss; and unless `loss_only` what the network predicts (a classifier's logits (B, classes), a
            denoiser's output (B, C, H, W)) and the labels (B,). Of a classifier's samples without labels there is a
            prediction alone.

        Raises:
            ValueError: the labels that the loss or the network needs are missing.
        """
        batch = self.draws.add(inputs, self.draws.generator("eval", self._batches), forget=True)
        self._batches += 1
        labels, objective = batch.get("labels"), self.draws.objective
        loss = None
        if labels is not None or not objective.conditional:
            with torch.no_grad():
                loss = model(**batch).mean()
        elif loss_only or not objective.labels_are_targets:
            raise ValueError("the data has no labels, which the model's loss is taken from: name a label column")
        else:
            batch["labels"] = torch.zeros(len(batch["pixel_values"]), dtype=torch.int64, device=self.draws.args.device)
        if loss_only:
            return loss, None, None
        with torch.no_grad():
            return loss, model(**batch, predict=True).float(), labels

    def progress(self) -> Progress | None:
        """How far the model has come now; None where the original was not measured. Every process must call it."""
        return None if self.probe is None else self.probe.measure()

    def add_scores(self, metrics: dict[str, float], prefix: str) -> dict[str, float]:
        """Put the forget score and the retain drift into `metrics`.

        Returns:
            {name: forget score, name: retain drift}, or nothing where one of the two was not measured.
        """
        found = self.progress()
        if found is None or found.drift is None:
            return {}
        scores = {f"{prefix}_forget_score": min(max(1 - found.value, 0.0), 1.0), f"{prefix}_retain_drift": found.drift}
        metrics.update(scores)
        return scores
