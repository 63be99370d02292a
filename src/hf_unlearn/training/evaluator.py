"""Evaluation during training: losses on fixed draws, how much is still known, how far retained data drifted."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from ..common.losses import global_sum
from .fsdp import ShardedTrainer


class ForgetRetainEvaluation(ShardedTrainer):
    """The evaluating half of UnlearnTrainer, which has `profile`, `baseline`, `fast_slow` and `early_stop`."""

    original_retain: float | None = None  # the original model's retain evaluation loss

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ):
        """Losses on fixed draws: eval_forget_loss, eval_retain_loss, eval_forget_score and eval_retain_drift.

        forget_score: share of forget samples whose loss is still below what the original model gives them under
        another label. retain_drift: (retain loss - the original's) / the original's.
        """
        if not isinstance(self.eval_dataset if eval_dataset is None else eval_dataset, dict):
            self._eval_batches, self._known, self._seen = 0, 0, 0
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        with self._averaged():
            metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
            retain_loss = metrics.get(f"{metric_key_prefix}_retain_loss")
            if retain_loss is not None:
                if self.original_retain is None:
                    self.original_retain = retain_loss
                metrics[f"{metric_key_prefix}_retain_drift"] = retain_loss / self.original_retain - 1
            scores = {k: metrics[k] for k in metrics if k.endswith(("_forget_score", "_retain_drift"))}
            if len(scores) == 2 and self.is_in_train:
                self.log(dict(scores))
                if self.early_stop.active and self.early_stop.update(*scores.values()):
                    self.control.should_training_stop = True
        return metrics

    def _averaged(self) -> Any:
        """Context in which the model holds the weights to evaluate and save."""
        return self.fast_slow.averaged() if self.fast_slow is not None else nullcontext()

    def evaluation_loop(self, *args: Any, **kwargs: Any):
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        if self.profile is not None and prefix.endswith("forget"):
            known, seen = (
                global_sum(torch.as_tensor(float(n), device=self.args.device)) for n in (self._known, self._seen)
            )
            output.metrics[f"{prefix}_score"] = (known / seen).item()
        return output

    def prediction_step(self, model: nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None):
        batch = self.step.with_draws(inputs, self.step.generator("eval", self._eval_batches), forget=True)
        self._eval_batches += 1
        with torch.no_grad():
            losses = model(**batch)
        if self.profile is not None:
            self._known += int((losses < self.step.baseline(batch).other).sum())
            self._seen += len(losses)
        return losses.mean(), None, None
