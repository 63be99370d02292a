"""The one training loop: transformers' Trainer, in which a global step is an outer step.

An outer step is the method's fast steps, the stock final step, and the merge into the slow weights. Everything
random in it is drawn from (seed, step), so that workers, processes and resumed runs see the same numbers.
"""

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import Dataset
from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import TrainOutput

from .callbacks import DivergenceGuard, MergeSlowWeights, TwoSidedStop, UnlearnProgress
from .config import UnlearnConfig
from .data import ForgetRetainDataset, collate, labels_of
from .losses import spread
from .methods import Method, SFRon
from .objectives import Baseline, Objective, objective_for
from .optim import FastSlow
from .saliency import Masks, fingerprint, masks_from
from .scoring import ForgetRetainEvaluation
from .storage import check_reload, load_checkpoint, save_checkpoint, weights_digest

PROFILE_SAMPLES = 512


class UnlearnTrainer(ForgetRetainEvaluation):
    """Make a model forget one dataset while another one is retained.

    Args:
        model: an Objective, a pipeline around a UNet2DModel (becomes `NoisePrediction(pipeline)`) or a transformers
            image classifier (`Classification(model)`).
        args: an UnlearnConfig.
        method: a Method; default `SFRon()`.
        forget_dataset, retain_dataset: items of `pixel_values` (and `labels`). The retain set must not hold the
            forget samples.
        masks: weight masks (Masks, dict or path); default what the method computes before the first step.
        eval_forget_dataset, eval_retain_dataset: what `evaluate` measures; default the training sets.

    Raises:
        ValueError: at construction, with what to set, for data or options that do not fit the model.
    """

    def __init__(
        self,
        model: Objective | Any,
        args: UnlearnConfig | None = None,
        method: Method | None = None,
        forget_dataset: Dataset | None = None,
        retain_dataset: Dataset | None = None,
        masks: Masks | dict[str, Tensor] | str | None = None,
        eval_forget_dataset: Dataset | None = None,
        eval_retain_dataset: Dataset | None = None,
        callbacks: list[TrainerCallback] | None = None,
        **kwargs: Any,
    ):
        args = args or UnlearnConfig()
        self.objective = objective_for(model)
        self.method = method or SFRon()
        if self.method.fast_steps and args.gradient_accumulation_steps != 1:
            raise ValueError(
                f"{self.method.name} takes optimizer steps of its own: set gradient_accumulation_steps=1 "
                "and per_device_train_batch_size to the batch you want"
            )
        self.method.prepare(self.objective)
        streams = {"forget": forget_dataset, "retain": retain_dataset}
        for name in self.method.streams:
            if streams[name] is None:
                raise ValueError(f"{self.method.name} needs {name} data: pass {name}_dataset")
        self.forget_dataset, self.retain_dataset = forget_dataset, retain_dataset
        for part in (forget_dataset, retain_dataset):
            if part is not None and len(part):
                self.objective.check(part[0], labels_of(part))
        if forget_dataset is not None and self.objective.conditional:
            kept = labels_of(retain_dataset) if retain_dataset is not None else []
            forgotten = set(labels_of(forget_dataset)) - set(kept or [])
            self.objective.choose_anchors(forgotten, len(forget_dataset), _seed_of(args))
        used = {name: streams[name] if name in self.method.streams else None for name in streams}
        ForgetRetainDataset(forget_dataset, retain_dataset)  # empty or overlapping sets, whatever the method uses
        train = ForgetRetainDataset(
            used["forget"],
            used["retain"],
            self.method.retain_batches,
            multiple=args.train_batch_size * args.world_size * args.gradient_accumulation_steps,
        )
        evaluated = {
            "forget": forget_dataset if eval_forget_dataset is None else eval_forget_dataset,
            "retain": retain_dataset if eval_retain_dataset is None else eval_retain_dataset,
        }
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
        self.loss_is_scaled_for_ga = False
        self.masks = masks_from(masks, self.objective.network)
        self.profile: Tensor | None = None  # the original model's losses, see Objective.baseline_profile
        self.original: nn.Module | None = None  # frozen copy of the original network, if the method needs it
        self.fast_slow: FastSlow | None = None
        self._step_masks: list[Tensor] | None = None
        self._recorded: dict[str, list[Tensor]] = {}
        self._micro_step = (-1, 0)  # (outer step, micro-batch) last drawn for
        self._wrapped: nn.Module = self.objective

    # ---- preparation -----------------------------------------------------------------------------
    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any):
        """Unlearn. `resume_from_checkpoint` is a folder, or True for the newest one in output_dir.

        Raises:
            ValueError: the named checkpoint does not exist (it never starts afresh instead).
            DivergenceError: a loss exploded; the last good weights are in output_dir/last_good.
        """
        checkpoint = self._checkpoint(resume_from_checkpoint)
        if checkpoint is None:
            self._prepare()
            self.method.edit(self.objective, self.forget_dataset, self.retain_dataset, self._seed)
            if not self.method.trains:
                return TrainOutput(0, 0.0, {})
        else:
            self._resume(Path(checkpoint))
        self._micro_step = (-1, 0)
        output = super().train(resume_from_checkpoint=checkpoint, **kwargs)
        self.fast_slow.finish()
        self.early_stop.restore()
        return output

    def _checkpoint(self, resume: str | bool | None) -> str | None:
        if not resume:
            return None
        if resume is True or resume == "latest":
            found = sorted(Path(self.args.output_dir).glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
            if not found:
                raise ValueError(f"no checkpoint in {self.args.output_dir}: leave resume_from_checkpoint out to start")
            return str(found[-1])
        if not (Path(resume) / "trainer_state.json").is_file():
            raise ValueError(f"checkpoint {resume} does not exist or is not one (no trainer_state.json in it)")
        return str(resume)

    def _prepare(self) -> None:
        """Masks, the table of original losses and the original retain loss, before any weight has moved.

        What is there already is kept: a second `train()` goes on from the unlearned model, which is no original.
        """
        self._keep_original()
        both = self.forget_dataset is not None and self.retain_dataset is not None
        if self.masks is None and both:
            self.masks = self.method.masks(self.objective, self.forget_dataset, self.retain_dataset, self._seed)
        if self._wants_profile and self.profile is None:
            self.profile = self.objective.baseline_profile(self._profile_batches())
        if self.args.eval_strategy != "no" and self.retain_dataset is not None:
            self.evaluate()

    def _keep_original(self) -> None:
        if self.method.needs_original and self.original is None:
            self.original = copy.deepcopy(self.objective.network).eval().requires_grad_(False)

    def _described(self) -> dict[str, Any]:
        """What a resumed run must share with the interrupted one."""
        parts = {"forget": self.forget_dataset, "retain": self.retain_dataset}
        data = {name: fingerprint(part) for name, part in parts.items() if part is not None}
        described = {"method": self.method.name, "options": asdict(self.method), "data": data}
        if self.original is not None:
            described["model"] = weights_digest(self.original)
        return described

    def _resume(self, folder: Path) -> None:
        self.masks, self.profile, state = load_checkpoint(folder)
        self._keep_original()  # the checkpoint's weights are loaded after this
        for key, ours in self._described().items():
            if state[key] != ours:
                raise ValueError(f"{folder} was written with {key} {state[key]}, this run has {ours}")
        self.original_retain, self.early_stop.best = state["original_retain"], state["best"]
        self.guard.first_retain = state["first_retain"]
        self.early_stop.copy_from(folder)

    @property
    def _wants_profile(self) -> bool:
        evaluates = self.args.eval_strategy != "no" and self.forget_dataset is not None
        return self.method.needs_baseline or evaluates

    @property
    def _seed(self) -> int:
        return _seed_of(self.args)

    def _profile_batches(self) -> list[dict[str, Tensor]]:
        """Forget samples, met several times with fresh draws until there are PROFILE_SAMPLES."""
        size = self.args.per_device_eval_batch_size
        chosen = spread(len(self.forget_dataset), PROFILE_SAMPLES)
        chosen = (chosen * -(-PROFILE_SAMPLES // len(chosen)))[:PROFILE_SAMPLES]
        batches = []
        for number, start in enumerate(range(0, len(chosen), size)):
            batch = collate([self.forget_dataset[i] for i in chosen[start : start + size]])
            batches.append(self._with_draws(batch, self._generator("profile", number), forget=True, split=False))
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
        if wishes["forget_optim"] == "separate":
            rate = wishes["forget_learning_rate"] or self.args.learning_rate
            groups = [{"params": group["params"]} for group in base.param_groups]
            adam = {"betas": (self.args.adam_beta1, self.args.adam_beta2), "eps": self.args.adam_epsilon}
            fused = base.defaults.get("fused") or None
            forget = torch.optim.AdamW(groups, lr=rate, weight_decay=0.0, fused=fused, **adam)
        buffers = [b for b in self.objective.network.buffers() if b.is_floating_point()]
        self.optimizer = self.fast_slow = FastSlow(base, forget, wishes["slow_rate"], wishes["slow_form"], buffers)
        if self.masks is not None:
            aligned = zip(self._trainable(), self.masks.aligned(self.objective.network))
            by_parameter = {id(p): mask for p, mask in aligned}
            self._step_masks = [by_parameter[id(p)] for p in self.fast_slow.parameters]
            if self.method.masks_every_step:
                self.fast_slow.masks = self._step_masks
        return self.optimizer

    def _trainable(self) -> list[nn.Parameter]:
        return [p for p in self.objective.network.parameters() if p.requires_grad]

    # ---- one outer step --------------------------------------------------------------------------
    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Draws for every part of the batch, the method's fast steps, then the stock step (forward and backward)."""
        self._wrapped = model
        model.train()
        step, micro = self._micro_step
        micro = micro + 1 if step == self.state.global_step and self.args.gradient_accumulation_steps > 1 else 0
        self._micro_step = (self.state.global_step, micro)
        number = self.state.global_step * self.args.gradient_accumulation_steps + micro
        generator = self._generator("train", number)
        inputs = self._prepare_inputs(inputs)
        batch: dict[str, Any] = {}
        if "forget" in inputs:
            batch["forget"] = self._with_draws(inputs["forget"], generator, forget=True)
        if "retain" in inputs:
            batch["retain"] = [self._with_draws(part, generator, forget=False) for part in inputs["retain"]]
        if "retain" in batch:
            self.guard.expect(batch["retain"][0])
        self.fast_slow.begin()
        self.method.before_step(self, batch)
        loss = super().training_step(model, batch, num_items_in_batch)
        self.guard.check("loss", loss)
        if "retain_loss" in self._recorded:
            self.guard.check_retain(self._recorded["retain_loss"][-1])
        return loss

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any):
        loss = self.method.loss(self, inputs)
        return (loss, None) if return_outputs else loss

    def _generator(self, purpose: str, number: int) -> torch.Generator:
        salt = {"train": 1, "eval": 2, "profile": 3}[purpose]
        return torch.Generator().manual_seed((self._seed * 4 + salt) * 1_000_003 + number)

    def _with_draws(
        self, batch: dict[str, Tensor], generator: torch.Generator, forget: bool, split: bool = True
    ) -> dict[str, Tensor]:
        rank, world = (self.args.process_index, self.args.world_size) if split else (0, 1)
        draws = self.objective.draw(batch, generator, rank, world)
        draws = self.objective.forget_draw(draws) if forget else draws
        return self._prepare_input({**batch, **draws})

    # ---- what a method may use (methods.base.Loop) -----------------------------------------------
    @property
    def progress(self) -> float:
        return self.state.global_step / max(self.state.max_steps, 1)

    @property
    def parameters(self) -> list[Tensor]:
        return self.fast_slow.parameters

    def losses(self, batch: dict[str, Tensor], shift: list[Tensor] | None = None) -> Tensor:
        if shift is None:
            return self._forward(batch)
        names = {id(p): name for name, p in self.objective.named_parameters()}
        weights = {names[id(p)]: p - s for p, s in zip(self.parameters, shift, strict=True)}
        inputs = {k: v for k, v in batch.items() if k != "index"}
        return functional_call(self.objective, weights, kwargs=inputs)

    def matching_losses(self, batch: dict[str, Tensor], to: str, **options: Any) -> Tensor:
        with self.accelerator.autocast():
            match = self.objective.match(to, batch, self.original)
        return self._forward(batch, **match, **options)

    def _forward(self, batch: dict[str, Tensor], **extra: Any) -> Tensor:
        """`index`, the position of a forget sample, is for `match`; no loss depends on it."""
        return self._wrapped(**{k: v for k, v in batch.items() if k != "index"}, **extra)

    def baseline(self, batch: dict[str, Tensor]) -> Baseline:
        return self.objective.baseline(self.profile, batch)

    def fast_step(self, loss: Tensor, forget: bool, max_norm: float | None = None, scale: float = 1.0) -> None:
        if forget:
            self.guard.check("forget_loss", loss)
        self.accelerator.backward(loss)
        self.accelerator.unscale_gradients()
        parameters = self.fast_slow.parameters
        masks, hard = (self._step_masks, self.method.optimizer["hard_mask"]) if forget else (None, False)
        if masks is not None and not hard:  # as released code: the mask acts on the gradient that is then clipped
            _mask_gradients(parameters, masks)
        norm = max_norm if forget else (self.args.max_grad_norm or None)
        if norm is not None:
            nn.utils.clip_grad_norm_(parameters, norm)
        if masks is not None and hard:
            _mask_gradients(parameters, masks)
        if forget:
            every = self.args.verify_mask_steps
            verify = bool(every) and self.state.global_step % every == 0
            with self.fast_slow.forget_phase(masks, scale, hard, verify):
                self.optimizer.step()
        else:
            self.optimizer.step()
        self.fast_slow.zero_grad()

    def record(self, name: str, value: Tensor) -> None:
        self._recorded.setdefault(name, []).append(value.detach())

    # ---- logs ---------------------------------------------------------------------
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            for name, values in self._recorded.items():
                logs[name] = self.accelerator.gather(torch.stack(values).mean()).mean().item()
            self._recorded = {}
        super().log(logs, start_time)

    # ---- saving ----------------------------------------------------------------------------------
    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Export the whole pipeline and check that it reloads; checkpoints keep the layout that resumes."""
        folder = Path(output_dir or self.args.output_dir)
        if _internal_call:
            if self.args.should_save:
                state = {
                    **self._described(),
                    "original_retain": self.original_retain,
                    "best": self.early_stop.best,
                    "first_retain": self.guard.first_retain,
                }
                save_checkpoint(folder, self.objective, self.masks, self.profile, state)
                self.early_stop.copy_to(folder)
            return
        if self.args.should_save:
            with self._averaged():
                self.objective.save_pretrained(str(folder))
                check_reload(self.objective, str(folder))
        self.accelerator.wait_for_everyone()  # a process that ends first may have the launcher end the one that writes

    def verify_mask(self) -> float:
        """Largest drift of a masked-out weight seen in a verified forget step; exactly 0 with mask_mode="update"."""
        return self.fast_slow.mask_drift if self.fast_slow is not None else 0.0


def _seed_of(args: UnlearnConfig) -> int:
    return args.data_seed if args.data_seed is not None else args.seed


def _mask_gradients(parameters: list[Tensor], masks: list[Tensor]) -> None:
    pairs = [(p.grad, m) for p, m in zip(parameters, masks) if p.grad is not None]
    torch._foreach_mul_([g for g, _ in pairs], [m for _, m in pairs])
