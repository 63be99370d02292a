"""What is kept of the original model, taken before any weight moves: a frozen copy, masks, its losses."""

import copy
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..common.identity import identity_of
from ..common.keys import class_code, code_key, content_key
from ..common.losses import spread
from ..common.weights import weights_digest
from ..data.fingerprint import whole_fingerprint
from ..data.pairs import collate
from ..data.streaming import first_of
from ..families import Baseline
from ..families.base import Objective
from ..methods import Method
from ..saliency.bases import lower_base
from ..saliency.masks import Masks, kept_masks, masks_from
from ..saving.adapters import base_copy
from .config import UnlearnConfig
from .draws import Draws
from .offload import offload

BASELINE_SAMPLES = 512  # forget samples that the original's losses are measured on


class Reference:
    """The part of the trainer that knows the original model.

    Args:
        objective, args, draws: of the run.
        method: resolved for the objective.
        forget, retain, learn: the training sets, or None.
        masks: weight masks that were given (Masks, dict or path), or None: the method then computes them.
    """

    def __init__(
        self,
        objective: Objective,
        method: Method,
        args: UnlearnConfig,
        draws: Draws,
        forget: Any,
        retain: Any,
        masks: Masks | dict[str, Tensor] | str | None,
        learn: Any = None,
    ):
        self.objective, self.method, self.args, self.draws = objective, method, args, draws
        self.forget, self.retain, self.learn = forget, retain, learn
        self.masks = masks_from(masks, objective.network)
        self.baseline_losses: Tensor | None = None  # see Objective.baseline_losses
        self.original: nn.Module | None = None  # a frozen copy of the network, if the method needs one
        self.level_tables: list[Tensor] | None = None  # the same of retained and of learn samples, if it is needed
        self.method_state: Any = None  # what `method.begin` returned
        self._digest = ""

    @property
    def lacks_masks(self) -> bool:
        """Whether masks are to be computed before the first step."""
        if self.objective.adapter is not None:  # which layers have factors was chosen instead (saliency.ranks)
            return False
        changes = self.forget is not None or self.learn is not None
        return self.masks is None and changes and self.retain is not None

    @property
    def measures_first(self) -> bool:
        """Whether anything is measured on the network before training starts."""
        measured = self.method.needs_baseline or self.method.needs_levels
        return self.lacks_masks or measured or self.args.eval_strategy != "no"

    def prepare(self) -> None:
        """Keep the original, and compute masks and the original's losses.

        What is there already is kept: a second `train()` goes on from the unlearned model, which is no original.
        """
        self.keep_original()
        self.begin_method()
        if self.lacks_masks:
            self.compute_masks()
        if self.method.needs_baseline and self.baseline_losses is None:
            self.baseline_losses = self._losses_on(self.forget)

    def begin_method(self) -> None:
        """Let the method keep what its steps need of the original weights."""
        if self.method.needs_levels and self.level_tables is None:
            self.level_tables = [self._losses_on(part) for part in (self.retain, self.learn)]
            self._digest = self._digest or weights_digest(self.objective.network)
        if self.method_state is not None:  # a second run goes on with what the first one kept
            return
        with self.objective.measuring():
            self.method_state = self.method.begin(self.objective, self.forget, self.retain, self.args.draws_seed)
        if self.method_state is not None and self.original is None:  # what it kept is of this original
            self._digest = weights_digest(self.objective.network)

    def compute_masks(self) -> None:
        """Have the method compute its masks from the weights as they are."""
        if self.args.checkpoints_activations:  # stock Trainer would later
            self.objective.activation_checkpointing_enable()
        with self.objective.measuring(keep_activations=False):
            self.masks = self.method.masks_for(self.objective, self.sets, self.args.draws_seed)

    @property
    def sets(self) -> dict[str, Any]:
        """The training sets by name, None where there is none; "learn" only where there is something to learn."""
        return {"forget": self.forget, "retain": self.retain} | ({} if self.learn is None else {"learn": self.learn})

    def edit(self) -> None:
        """Have the method change the original weights."""
        with self.objective.measuring():
            self.method.edit(self.objective, self.forget, self.retain, self.args.draws_seed)

    def find_masks(self, folder: Path, described: dict[str, Any]) -> None:
        """Read the masks from `folder`, by all that they depend on, or compute them and write them there.

        Args:
            described: what the run is made of (`Checkpointer.described`).
        """
        network, stream = self.objective.network, getattr(self.method, "fisher_samples", None) or 512
        content = {
            **described,
            "options": identity_of(self.method),
            "data": [None if part is None else whole_fingerprint(part, stream) for part in self.sets.values()],
            "objective": identity_of(self.objective),
            "trained": [name for name, parameter in network.named_parameters() if parameter.requires_grad],
            "precision": [self.args.fp16, self.args.bf16],
            "seed": self.args.draws_seed,
            "code": [code_key("training.reference"), class_code(type(self.method)), class_code(type(self.objective))],
        }
        path = folder / f"{content_key(content)}.safetensors"
        self.masks = kept_masks(path, network)
        if self.masks is not None:
            return
        self.compute_masks()
        if self.masks is not None and self.args.should_save:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.masks.save(path)

    def keep_original(self) -> None:
        """Copy the network, if the method needs the original; weights that are not trained are shared."""
        if not self.method.needs_original or self.original is not None:
            return
        network = self.objective.network
        held = getattr(self.objective, "held", None)
        if held is not None:  # it is of an earlier model
            for part in (held.first, held.latest):
                if part is not None:
                    part.to(self.args.device).eval().requires_grad_(False)
            self.original = held.first
            return
        if self.objective.adapter is not None:  # the original is the network without it
            self.original = base_copy(network).eval()
            return
        low = self.args.original_precision != "fp32"
        shared: dict[int, Any] = {id(p): p for p in network.parameters() if not p.requires_grad and not low}
        self.original = copy.deepcopy(network, shared).eval().requires_grad_(False)
        if low:
            self._digest = self._digest or weights_digest(self.original)  # of the weights in full
            lower_base(self.original, self.args.original_precision)

    def place(self) -> None:
        """Keep the original in host memory, if the arguments say so."""
        if self.args.offload and self.original is not None:
            offload(self.original, self.objective.network, self.args.device)

    def digest(self) -> str | None:
        """A digest of the original's weights, taken once, before they are sharded; None if nothing is kept of it."""
        if self.original is not None and not self._digest:
            self._digest = weights_digest(self.original)
        return self._digest or None

    def baseline(self, batch: dict[str, Tensor]) -> Baseline:
        """What the original model loses on these samples at these timesteps."""
        if self.baseline_losses is None:
            raise ValueError(f"{self.method.name} uses the baseline: set needs_baseline = True on its class")
        return self.objective.baseline(self.baseline_losses, batch)

    def levels(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the original loses on average at these timesteps, (B,) each: on retained and on learn samples."""
        if self.level_tables is None:
            raise ValueError(f"{self.method.name} uses the levels: set needs_levels = True on its class")
        retain, learn = (self.objective.baseline(table, batch).own for table in self.level_tables)
        return retain, learn

    def _losses_on(self, data: Any) -> Tensor:
        """`Objective.baseline_losses` on a set. ValueError if the original's losses are not finite."""
        losses = self.objective.baseline_losses(self._baseline_batches(first_of(data)))
        if losses.isnan().any():
            raise ValueError("the original model's losses are not finite: load it in float32 or bfloat16")
        return losses

    def _baseline_batches(self, data: Any) -> list[dict[str, Tensor]]:
        """Samples of a set, met several times with fresh draws until there are BASELINE_SAMPLES."""
        size = self.args.per_device_eval_batch_size
        chosen = spread(len(data), BASELINE_SAMPLES)
        chosen = (chosen * -(-BASELINE_SAMPLES // len(chosen)))[:BASELINE_SAMPLES]
        batches = []
        for number, start in enumerate(range(0, len(chosen), size)):
            batch = collate([data[i] for i in chosen[start : start + size]])
            generator = self.draws.generator("profile", number)
            batches.append(self.draws.add(batch, generator, forget=True, split=False))
        return batches
