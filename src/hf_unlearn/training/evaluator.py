"""Evaluation during training: losses on fixed draws, how much is still known, how far retained data drifted."""

from typing import Any

import torch
from torch import Tensor, nn

from ..common.losses import global_sum
from .draws import Draws
from .reference import Reference


class Evaluator:
    """The part of the trainer that turns evaluation losses into scores.

    forget_score: share of forget samples whose loss is still below what the original model gives them under another
    label. retain_drift: (retain loss - the original's) / the original's.
    """

    def __init__(self, draws: Draws, reference: Reference):
        self.draws, self.reference = draws, reference
        self.original_retain: float | None = None  # the original model's retain evaluation loss
        self._batches, self._known, self._seen = 0, 0, 0

    def restart(self) -> None:
        """Begin another data set: its batches are counted, and drawn, from 0."""
        self._batches, self._known, self._seen = 0, 0, 0

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
            loss = self._losses(model, batch).mean()
        elif loss_only or not objective.labels_are_targets:
            raise ValueError("the data has no labels, which the model's loss is taken from: name a label column")
        else:
            batch["labels"] = torch.zeros(len(batch["pixel_values"]), dtype=torch.int64, device=self.draws.args.device)
        if loss_only:
            return loss, None, None
        with torch.no_grad():
            return loss, model(**batch, predict=True).float(), labels

    def _losses(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Per-sample losses (B,), counting the samples still known."""
        with torch.no_grad():
            losses: Tensor = model(**batch)
        if self.reference.baseline_losses is not None:
            self._known += int((losses < self.reference.baseline(batch).other).sum())
            self._seen += len(losses)
        return losses

    def add_score(self, metrics: dict[str, float], prefix: str, device: torch.device) -> None:
        """Put the forget score of the data set just evaluated into `metrics`. Every process must call it."""
        if self.reference.baseline_losses is None or not prefix.endswith("forget"):
            return
        known, seen = (global_sum(torch.as_tensor(float(n), device=device)) for n in (self._known, self._seen))
        metrics[f"{prefix}_score"] = (known / seen).item()

    def add_drift(self, metrics: dict[str, float], prefix: str) -> dict[str, float]:
        """Put the retain drift into `metrics`; the first evaluation is the original's.

        Returns:
            {name: forget score, name: retain drift}, or nothing where one of the two was not measured.
        """
        retain_loss = metrics.get(f"{prefix}_retain_loss")
        if retain_loss is None:
            return {}
        if self.original_retain is None:
            self.original_retain = retain_loss
        drift = f"{prefix}_retain_drift"
        metrics[drift] = retain_loss / self.original_retain - 1
        score = f"{prefix}_forget_score"
        return {name: metrics[name] for name in (score, drift)} if score in metrics else {}

    def state_dict(self) -> dict[str, Any]:
        return {"original_retain": self.original_retain}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.original_retain = state["original_retain"]
