"""The one training loop: transformers' Trainer, in which a global step is an outer step.

The trainer's parts are its attributes: step, reference, evaluator, checkpointer, fsdp, publisher, and the callbacks.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import TrainOutput

from ..common.errors import spare_memory
from ..data.pairs import collate
from ..data.protocols import SizedDataset
from ..data.streaming import StreamedPairs
from ..families import Objective
from ..hub.upload import Published
from ..methods import Method, SFRon
from ..saliency.masks import Masks
from ..saving.checkpoints import find_checkpoint
from ..saving.export import export
from .callbacks import MergeSlowWeights, TwoSidedStop, UntilForgotten, settle_callbacks
from .calls import Calls
from .checkpointer import Checkpointer, Stateful
from .checks import check_network, checked_arguments, checked_sets, method_for, objective_of
from .config import UnlearnConfig
from .draws import Draws, stream_loader
from .evaluator import Evaluator
from .fsdp import Fsdp, check_launch
from .guard import DivergenceGuard
from .interrupts import Interrupt
from .optimizers import fast_slow_around
from .publishing import Publisher, written_report
from .reference import Reference
from .savings import lower_weights
from .step import Step
from .stock import reset_accelerate_wrapping, stock_optimizer, undisturbed
from .strength import extended


class UnlearnTrainer(Trainer):
    """Make a model forget one dataset, or learn one, or both, while another one is retained.

    Args:
        model: an Objective, a pipeline around a UNet2DModel (NoisePrediction) or an image classifier (Classification).
        args, method: an UnlearnConfig and a Method; the defaults are theirs and `SFRon()`.
        forget_dataset, retain_dataset, learn_dataset: items of `pixel_values` (and `labels`), each in one of them. The
            retain set may be a `datasets.IterableDataset`, read as it comes (data/streaming). CLU and FineTune learn.
        masks: weight masks (Masks, dict or path); default what the method computes before the first step.
        eval_forget_dataset, eval_retain_dataset: what `evaluate` measures; default the training sets (`checked_sets`).
        forgotten: what is forgotten, in words, for the saved config and the card.
        holdout_dataset: samples that a classifier was never trained on: what forgotten ones should look like.

    Raises:
        ValueError: at construction, with what to set, for data or options that do not fit the model.
    """

    args: UnlearnConfig
    objective: Objective
    model: Any  # transformers' name for the objective
    hub_model_id: Any
    exported: tuple[str, ...] = ()  # files that the last `save_model` wrote, relative to its folder

    def __init__(
        self,
        model: Objective | Any,
        args: UnlearnConfig | None = None,
        method: Method | None = None,
        forget_dataset: SizedDataset | None = None,
        retain_dataset: SizedDataset | IterableDataset | None = None,
        masks: Masks | dict[str, Tensor] | str | None = None,
        eval_forget_dataset: SizedDataset | None = None,
        eval_retain_dataset: SizedDataset | None = None,
        callbacks: list[TrainerCallback] | None = None,
        forgotten: str = "",
        holdout_dataset: SizedDataset | None = None,
        learn_dataset: SizedDataset | None = None,
        **kwargs: Any,
    ):
        args = checked_arguments(args, kwargs)
        objective, method = objective_of(model, kwargs.get("processing_class")), method_for(method or SFRon(), args)
        check_network(lower_weights(objective, args), args)
        given = (forget_dataset, retain_dataset), (eval_forget_dataset, eval_retain_dataset)
        sets = checked_sets(objective, method, args, *given, holdout_dataset, learn_dataset)
        self.forget_dataset, self.retain_dataset, self.learn_dataset = sets.forget, sets.retain, sets.learn
        self.objective, self.method, runs = objective, method, sets.method  # the latter for these sets on this model
        self.forgotten = forgotten or f"{len(sets.forget or [])} samples"
        self.publisher = Publisher(objective, method, args, self.forgotten, sets.forget is not None)
        self.merge, self.early_stop, self.calls = MergeSlowWeights(), TwoSidedStop(objective, args), Calls()
        self.interrupt = Interrupt(args, lambda: self._save_checkpoint(self.model_wrapped, None), sets.pairs)
        self.guard = DivergenceGuard(objective, args, sets.named, self.merge.averaged, self.gather)
        self.until = UntilForgotten(lambda: self.step.strength)
        all_callbacks = [self.interrupt, self.merge, *(callbacks or []), self.guard, self.until]
        super().__init__(objective, args, collate, sets.pairs, sets.evaluated, callbacks=all_callbacks, **kwargs)
        settle_callbacks(self)
        self.loss_is_scaled_for_ga = False
        launcher = self.guard.accelerator = self.accelerator
        check_launch(objective, runs, args, launcher, self.is_deepspeed_enabled, self.is_fsdp_enabled)
        draws = Draws(objective, args, self._prepare_input)
        self.reference = Reference(objective, runs, args, draws, sets.forget, sets.retain, masks, sets.learn)
        self.step = Step(objective, runs, args, draws, self.reference, self.guard, launcher)
        self.evaluator = Evaluator(draws, self.reference)
        self.fsdp = Fsdp(self.is_fsdp_enabled, objective, args, launcher, self.reference)
        parts: list[Stateful] = [self.guard, self.early_stop, self.calls, *self.step.stateful]
        self.checkpointer = Checkpointer(objective, method, args, self.reference, self.early_stop, parts, sets.pairs)

    # ---- training ----------------------------------------------------------------------------------
    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Unlearn. `resume_from_checkpoint`: a folder, True for the newest whole one, "auto" to resume if any.

        Raises:
            ValueError: the named checkpoint does not exist or is torn (it never starts afresh instead).
            OSError: a checkpoint could not be written; earlier ones are whole.
            DivergenceError: a loss exploded; output_dir/last_good has the last good weights.
            KeyboardInterrupt: Ctrl-C; a checkpoint of the last whole outer step is written, and the message names it.
        """
        with self.interrupt.explained():
            return self._train(resume_from_checkpoint, *args, **kwargs)

    def _train(self, resume_from_checkpoint: str | bool | None, *args: Any, **kwargs: Any) -> TrainOutput:
        checkpoint = find_checkpoint(self.args.output_dir or ".", resume_from_checkpoint)
        self.fsdp.place_whole(trained=self.step.fast_slow is not None)
        self.calls.end(self.state)
        self.early_stop.restart()
        self.step.restart()
        if checkpoint is None:
            with spare_memory("before the first step"):
                self.reference.prepare()
                if self.args.eval_strategy != "no" and self.retain_dataset is not None:
                    self.early_stop.start(self.evaluate())
            self.reference.edit()
            if not self.method.trains:
                self.publisher.write_history(self.outer_steps)
                return TrainOutput(0, 0.0, {})
        else:
            self.evaluator.prepare(self.eval_dataset, self.args.eval_strategy != "no")
            self.checkpointer.resume(Path(checkpoint))
        reset_accelerate_wrapping(self)
        self.reference.digest()  # taken once, while the original is not sharded
        self.reference.place()
        self.fsdp.before_sharding()
        with spare_memory("while training"), self.interrupt.listening():
            output = super().train(checkpoint, *args, **kwargs)
        self.step.weights.finish()
        self.gather()
        self.early_stop.restore()
        self.publisher.write_history(self.outer_steps)
        return output

    def gather(self) -> None:
        """Give every process the whole network back, if it is sharded. Every process must call it."""
        if self.fsdp.gather():
            self.model = self.model_wrapped = self.step.model = self.objective

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Take one outer step: draws, the method's fast steps, then the stock step (forward and backward)."""
        model.train()
        self.interrupt.begin(done := self.state.global_step)
        inputs = self.step.begin(model, self.optimizer, self._prepare_inputs(inputs), done, self.state.max_steps)
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.step.end(loss)
        return loss

    def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return self.step.final_loss(inputs)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list, Any]:
        """Give no batch once all steps are taken; stock Trainer, resumed from the last checkpoint, takes one more."""
        over = self.until.over(self.args, self.state) or self.early_stop.reached
        return ([], None) if over else super().get_batch_samples(epoch_iterator, num_batches, device)

    def set_initial_training_values(self, args: Any, *more: Any, **others: Any) -> Any:
        return super().set_initial_training_values(extended(args, self.step.strengths), *more, **others)

    def get_train_dataloader(self) -> DataLoader:
        """Have each process read its own part of a stream; accelerate would have the first one read for all."""
        if isinstance(self.train_dataset, StreamedPairs):
            return stream_loader(self.train_dataset, self._train_batch_size, self.args)
        return super().get_train_dataloader()

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make FastSlow around the stock optimizer, which takes the retain steps."""
        if self.step.fast_slow is None:  # else a second train() goes on with the same state, as stock Trainer does
            buffers = [b for b in self.objective.network.buffers() if b.is_floating_point()]
            made = fast_slow_around(stock_optimizer(super(), model), self.step.method.optimizer, self.args, buffers)
            for part in (self.step, self.guard, self.merge):
                part.attach(made)
            if not self.fsdp.enabled:  # else once the weights are sharded
                self.step.bind_masks()
        self.optimizer = self.step.weights
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """Called right after the weights were sharded: whatever goes with them is sharded too."""
        if self.fsdp.sharded:
            self.fsdp.relink(self.step.weights)
            self.step.bind_masks()
        self.lr_scheduler = self.step.scheduler(optimizer or self.optimizer)
        return self.lr_scheduler or super().create_scheduler(num_training_steps, optimizer)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs | (self.step.logged() if "loss" in logs else {}), start_time)

    @property
    def masks(self) -> Masks | None:
        """The weight masks: those given, or those computed before the first step."""
        return self.reference.masks

    def prepare_masks(self, folder: str | Path) -> None:
        """Compute now the masks that `train` would, if it would, or find them in `folder`."""
        if self.reference.lacks_masks:
            self.reference.find_masks(Path(folder), self.checkpointer.described())
            self.accelerator.wait_for_everyone()

    def verify_mask(self) -> float | None:
        """The largest drift of a masked-out weight that `verify_mask_steps` saw; None if nobody looked."""
        return self.step.mask_drift

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"):
        """Measure losses on fixed draws, and from them the scores that `Evaluator` defines."""
        if not isinstance(self.eval_dataset if eval_dataset is None else eval_dataset, dict):
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        self.evaluator.prepare(self.eval_dataset, not self.outer_steps and not self.is_in_train)
        with self.merge.averaged():
            metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
            scores = self.evaluator.add_scores(metrics, metric_key_prefix) if eval_dataset is None else {}
            if scores and self.is_in_train:
                self.log(dict(scores))
                forget, drift = scores.values()
                self.control.should_training_stop |= self.early_stop.update(forget, drift, self.state.global_step)
        return metrics

    def evaluation_loop(self, *args: Any, **kwargs: Any):
        """Measure on draws that count from 0, and leave no trace in what is trained afterwards."""
        self.evaluator.restart()
        with self.fsdp.evaluating(self), undisturbed(self):
            return super().evaluation_loop(*args, **kwargs)

    def prediction_step(self, model: nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None):
        return self.evaluator.predict(model, inputs, prediction_loss_only)

    def report(self, **known: Any) -> Any:
        """Measure the run, write metrics, card and page, print the verdict (`report.from_trainer.report_trainer`)."""
        return written_report(self, **known)

    # ---- checkpoints, export, upload ---------------------------------------------------------------
    @property
    def history(self) -> list[dict[str, Any]]:
        """What the model was made to forget, oldest first, by this run too once it has taken a step."""
        return self.publisher.history(self.outer_steps)

    @property
    def outer_steps(self) -> int:
        """The outer steps behind the weights, of all calls of `train`."""
        return self.calls.total(self.state)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        stock = super()._save_checkpoint
        self.checkpointer.write(folder, lambda: stock(model, trial), self.state.best_model_checkpoint)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        self.fsdp.save(super()._save_optimizer_and_scheduler, output_dir, self.step.weights, self.lr_scheduler)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        stock = super()._load_from_checkpoint
        self.fsdp.load_weights(lambda folder: stock(folder, model), resume_from_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        stock = super()._load_optimizer_and_scheduler
        self.fsdp.load_optimizer(stock, checkpoint, self.step.weights, self.lr_scheduler)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Export the pipeline, or its adapter, and check that it reloads; checkpoints keep the layout that resumes."""
        folder = Path(output_dir or self.args.output_dir or ".")
        if _internal_call:
            return self.checkpointer.save(folder)
        self.publisher.write_history(self.outer_steps)
        with self.merge.averaged():
            self.exported = export(self.objective, folder, self.args.should_save)
        self.accelerator.wait_for_everyone()  # a process that ends first may have the launcher end the one that writes
        if self.args.push_to_hub and folder == Path(self.args.output_dir or "."):
            self.push_to_hub(include_masks=self.args.push_masks)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository before training, so that a wrong token costs nothing. Raises what `reserve` does."""
        if self.is_world_process_zero():
            self.hub_model_id = self.publisher.reserve(token, private)

    def push_to_hub(  # type: ignore[override]  # stock uploads whatever lies in output_dir and returns a CommitInfo
        self, commit_message: str = "Unlearned", token: str | None = None, include_masks: bool = False
    ) -> Published | None:
        """Publish what `save_model` exported, as `Publisher.publish` does; None on all processes but the first."""
        if not self.is_world_process_zero():
            return None
        self.hub_model_id = self.hub_model_id or self.publisher.reserve(token)
        return self.publisher.publish(self.hub_model_id, self.masks, include_masks, token, commit_message)
