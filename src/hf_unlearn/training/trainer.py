"""The one training loop: transformers' Trainer, in which a global step is an outer step.

An outer step (`loop`) is the method's fast steps, the stock final step, and the merge into the slow weights.
"""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import TrainOutput

from ..common.errors import spare_memory
from ..common.losses import spread
from ..common.weights import weights_digest
from ..data.numerics import bad_samples, bad_weight, in_memory, say_samples
from ..data.pairs import collate, example_of, labels_of, paired
from ..data.streaming import RetainStream, StreamedPairs
from ..families import Objective, objective_for
from ..methods import Method, SFRon
from ..saliency.masks import Masks, load_masks, masks_from
from ..saving.adapters import base_copy
from ..saving.checkpoints import find_checkpoint
from ..saving.history import read_history, write_history
from .callbacks import MergeSlowWeights, TwoSidedStop, UnlearnProgress
from .checkpointer import KeptRun
from .config import UnlearnConfig
from .guard import DivergenceGuard
from .offload import offload
from .optim import FastSlow
from .step import OuterStep

PROFILE_SAMPLES = 512


class UnlearnTrainer(KeptRun):
    """Make a model forget one dataset while another one is retained.

    Args:
        model: an Objective, a pipeline around a UNet2DModel (becomes `NoisePrediction(pipeline)`) or a transformers
            image classifier (`Classification(model)`).
        args: an UnlearnConfig.
        method: a Method; default `SFRon()`.
        forget_dataset, retain_dataset: items of `pixel_values` (and `labels`). The retain set must not hold the
            forget samples; it may be a `datasets.IterableDataset`, which is read as it comes (see streams).
        masks: weight masks (Masks, dict or path); default what the method computes before the first step.
        eval_forget_dataset, eval_retain_dataset: what `evaluate` measures; default the training sets.
        forgotten: what is forgotten, in words, for `unlearning_history` in the saved config and for the card.

    Raises:
        ValueError: at construction, with what to set, for data or options that do not fit the model.
    """

    def __init__(
        self,
        model: Objective | Any,
        args: UnlearnConfig | None = None,
        method: Method | None = None,
        forget_dataset: Dataset | None = None,
        retain_dataset: Dataset | IterableDataset | None = None,
        masks: Masks | dict[str, Tensor] | str | None = None,
        eval_forget_dataset: Dataset | None = None,
        eval_retain_dataset: Dataset | None = None,
        callbacks: list[TrainerCallback] | None = None,
        forgotten: str = "",
        **kwargs: Any,
    ):
        args = args or UnlearnConfig()
        self.objective = objective_for(model)
        self.forgotten = forgotten or f"{len(forget_dataset or [])} samples"
        self._forgotten_before = read_history(self.objective.network)
        self.method = method or SFRon()
        if self.method.fast_steps and args.gradient_accumulation_steps != 1:
            raise ValueError(
                f"{self.method.name} takes optimizer steps of its own: set gradient_accumulation_steps=1 "
                "and per_device_train_batch_size to the batch you want"
            )
        self.step = OuterStep(self, self.method.resolved(self.objective))
        if self.objective.adapter is not None and (self.method.masks_every_step or not self.method.trains):
            raise ValueError(f"{self.method.name} works on weights, which an adapter leaves alone: do without LoRA")
        streams = {"forget": forget_dataset, "retain": retain_dataset}
        for name in self.method.streams:
            if streams[name] is None:
                raise ValueError(f"{self.method.name} needs {name} data: pass {name}_dataset")
        if isinstance(retain_dataset, IterableDataset):
            retain_dataset = RetainStream(retain_dataset)
        self.forget_dataset, self.retain_dataset = forget_dataset, retain_dataset
        for part in (forget_dataset, retain_dataset):
            example = example_of(part)
            if example is not None:
                self.objective.check(example, labels_of(part))
        self._check_finite()
        if forget_dataset is not None and self.objective.conditional:
            kept = labels_of(retain_dataset) if retain_dataset is not None else []
            lost = set(labels_of(forget_dataset)) - set(kept or [])
            self.objective.choose_anchors(lost, len(forget_dataset), args.draws_seed)
        train = paired(forget_dataset, retain_dataset, self.method, args)
        if isinstance(retain_dataset, RetainStream) and eval_retain_dataset is None and args.eval_strategy != "no":
            raise ValueError("a retain stream has no end to evaluate to: pass eval_retain_dataset")
        evaluated = {
            "forget": forget_dataset if eval_forget_dataset is None else eval_forget_dataset,
            "retain": retain_dataset if eval_retain_dataset is None else eval_retain_dataset,
        }
        if isinstance(evaluated["retain"], RetainStream):
            evaluated["retain"] = None
        self.guard, self.early_stop = DivergenceGuard(self), TwoSidedStop(self)
        super().__init__(
            model=self.objective,
            args=args,
            data_collator=collate,
            train_dataset=train,
            eval_dataset={name: part for name, part in evaluated.items() if part is not None} or None,
            callbacks=[MergeSlowWeights(self), *(callbacks or []), self.guard],
            **kwargs,
        )
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(UnlearnProgress)
        if args.logging_strategy == "no":  # then the closing summary is not wanted either
            self.remove_callback(PrinterCallback)
        self.loss_is_scaled_for_ga = False
        self.check_launch()
        self.masks = masks_from(masks, self.objective.network)
        self.profile: Tensor | None = None  # the original model's losses, see Objective.baseline_losses
        self.original: nn.Module | None = None  # frozen copy of the original network, if the method needs it
        self._original_digest = ""
        self.fast_slow: FastSlow | None = None

    def _check_finite(self) -> None:
        broken = bad_weight(self.objective.network)
        if broken is not None:
            raise ValueError(f"weight {broken} of the model is not finite: load whole weights, in float32 or bfloat16")
        for name, part in (("forget", self.forget_dataset), ("retain", self.retain_dataset)):
            positions = bad_samples(part) if part is not None and in_memory(part) else []
            if positions:
                raise ValueError(f"{say_samples(name, positions)}: leave them out or mend them")

    # ---- preparation -----------------------------------------------------------------------------
    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any):
        """Unlearn. `resume_from_checkpoint` is a folder, True for the newest whole one in output_dir, or "auto" for
        that one where there is one, and a start where there is none.

        Raises:
            ValueError: the named checkpoint does not exist or is torn (it never starts afresh instead).
            OSError: a checkpoint could not be written; earlier ones are whole.
            DivergenceError: a loss exploded; the last good weights are in output_dir/last_good.
        """
        checkpoint = find_checkpoint(self.args.output_dir, resume_from_checkpoint)
        self._place_whole()
        if checkpoint is None:
            with spare_memory("before the first step"):
                self._prepare()
            self.method.edit(self.objective, self.forget_dataset, self.retain_dataset, self.args.draws_seed)
            if not self.method.trains:
                write_history(self.objective.network, self.history)
                return TrainOutput(0, 0.0, {})
        else:
            self._resume(Path(checkpoint))
        self.step.restart()
        self._forget_evaluation()
        self._described()  # what it says of the original is computed once, while that is whole
        if self.args.offload and self.original is not None:
            offload(self.original, self.objective.network, self.args.device)
        self._before_cutting()
        with spare_memory("while training"):
            output = super().train(resume_from_checkpoint=checkpoint, **kwargs)
        self.fast_slow.finish()
        self._make_whole()
        self.early_stop.restore()
        write_history(self.objective.network, self.history)
        return output

    def _forget_evaluation(self) -> None:
        """accelerate takes a model that was only evaluated so far for one that is wrapped, and several processes would
        then train it without a word to each other."""
        if self.args.world_size > 1 and self.model_wrapped is self.model:
            self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
            self.accelerator._models.clear()
            self.model._is_accelerate_prepared = False

    def prepare_masks(self, folder: str | Path) -> None:
        """Compute now the masks that `train` would, or find them in `folder` by all that they depend on.

        Changes nothing where masks were given or the method has none.
        """
        if not self._lacks_masks:
            return
        content = {**self._described(), "model": weights_digest(self.objective.network), "seed": self.args.draws_seed}
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
        path = Path(folder) / f"{key}.safetensors"
        if path.exists():
            self.masks = load_masks(path, self.objective.network)
            return
        self._compute_masks()
        if self.masks is not None and self.args.should_save:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.masks.save(path)
        self.accelerator.wait_for_everyone()

    @property
    def _lacks_masks(self) -> bool:
        if self.objective.adapter is not None:  # which layers have factors was chosen instead (see lora)
            return False
        return self.masks is None and self.forget_dataset is not None and self.retain_dataset is not None

    def _compute_masks(self) -> None:
        method, seed = self.step.method, self.args.draws_seed
        self.masks = method.compute_masks(self.objective, self.forget_dataset, self.retain_dataset, seed)

    def _prepare(self) -> None:
        """Masks, the table of original losses and the original retain loss, before any weight has moved.

        What is there already is kept: a second `train()` goes on from the unlearned model, which is no original.
        """
        self._keep_original()
        self._begin_method()
        if self._lacks_masks:
            self._compute_masks()
        if self._wants_profile and self.profile is None:
            self.profile = self.objective.baseline_losses(self._profile_batches())
            if self.profile.isnan().any():
                raise ValueError("the original model's losses are not finite: load it in float32 or bfloat16")
        if self.args.eval_strategy != "no" and self.retain_dataset is not None:
            self.evaluate()

    def _begin_method(self) -> None:
        self.step.begin_run(self.forget_dataset, self.retain_dataset)
        if self.step.state is not None and self.original is None:  # what it kept is of this original
            self._original_digest = self._original_digest or weights_digest(self.objective.network)

    def _keep_original(self) -> None:
        if self.method.needs_original and self.original is None:
            network = self.objective.network
            if self.objective.adapter is not None:  # the original is the network without it
                self.original = base_copy(network).eval()
                return
            # Weights that are not trained need no second copy.
            shared = {id(p): p for p in network.parameters() if not p.requires_grad}
            self.original = copy.deepcopy(network, shared).eval().requires_grad_(False)

    @property
    def _wants_profile(self) -> bool:
        evaluates = self.args.eval_strategy != "no" and self.forget_dataset is not None
        return self.step.method.needs_baseline or evaluates

    def _profile_batches(self) -> list[dict[str, Tensor]]:
        """Forget samples, met several times with fresh draws until there are PROFILE_SAMPLES."""
        size = self.args.per_device_eval_batch_size
        chosen = spread(len(self.forget_dataset), PROFILE_SAMPLES)
        chosen = (chosen * -(-PROFILE_SAMPLES // len(chosen)))[:PROFILE_SAMPLES]
        batches = []
        for number, start in enumerate(range(0, len(chosen), size)):
            batch = collate([self.forget_dataset[i] for i in chosen[start : start + size]])
            batches.append(
                self.step.with_draws(batch, self.step.generator("profile", number), forget=True, split=False)
            )
        return batches

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The stock optimizer for retain steps, inside FastSlow with the forget optimizer that the method asks for."""
        if self.fast_slow is not None:  # a second train() goes on with the same state, as stock Trainer does
            self.optimizer = self.fast_slow
            return self.optimizer
        wishes = self.method.optimizer
        base = super().create_optimizer(model)
        base.param_groups[:] = [group for group in base.param_groups if group["params"]]
        forget = None
        if wishes.forget_optim == "separate":
            rate = wishes.forget_learning_rate or self.args.learning_rate
            groups = [{"params": group["params"]} for group in base.param_groups]
            adam = {"betas": (self.args.adam_beta1, self.args.adam_beta2), "eps": self.args.adam_epsilon}
            fused = base.defaults.get("fused") or None
            forget = torch.optim.AdamW(groups, lr=rate, weight_decay=0.0, fused=fused, **adam)
        buffers = [b for b in self.objective.network.buffers() if b.is_floating_point()]
        slow = wishes.slow_rate, wishes.slow_form, buffers, self.args.offload
        self.optimizer = self.fast_slow = FastSlow(base, forget, *slow)
        if not self.is_fsdp_enabled:  # else once the weights are cut
            self._bind_masks()
        return self.optimizer

    def _bind_masks(self) -> None:
        if self.masks is not None:
            aligned = zip(self._trainable(), self.masks.aligned(self.objective.network))
            by_parameter = {id(p): mask for p, mask in aligned}
            self.step.masks = [by_parameter[id(p)] for p in self.fast_slow.parameters]
            if self.method.masks_every_step:
                self.fast_slow.masks = self.step.masks

    def _trainable(self) -> list[nn.Parameter]:
        return [p for p in self.objective.network.parameters() if p.requires_grad]

    # ---- streams ---------------------------------------------------------------------------------
    def get_train_dataloader(self) -> DataLoader:
        """Each process reads its own part of a stream; accelerate would have the first one read for all."""
        if not isinstance(self.train_dataset, StreamedPairs):
            return super().get_train_dataloader()
        return DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            collate_fn=collate,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def verify_mask(self) -> float | None:
        """Largest drift of a masked-out weight seen in a verified forget step; exactly 0 with mask_mode="update".

        None if nobody looked: no mask, no training yet, or verify_mask_steps=0.
        """
        looked = self.masks is not None and self.fast_slow is not None and self.args.verify_mask_steps
        return self.fast_slow.mask_drift if looked else None
