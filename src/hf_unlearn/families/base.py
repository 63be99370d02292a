"""What a model loses on each sample, with everything random passed in.

An objective registers only the network that is trained. The pipeline around it is a plain attribute: it is
neither trained nor put in train mode nor checkpointed, yet `save_pretrained` exports all of it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..common.checkpointing import checkpointable, enable_checkpointing, keeping_activations
from ..common.precisions import takes_any
from .description import Description


@dataclass
class Baseline:
    """What the original model loses on the samples of one batch, at their timesteps.

    own: (B,) under their own label; other: (B,) under another label, the level at which a sample counts as
    forgotten; gap: (B,) the distance between what it predicts under the two, None where that was not measured.
    """

    own: Tensor
    other: Tensor
    gap: Tensor | None = None


@dataclass
class Adapter:
    """That the network is trained through a low-rank adapter (`lora.add_lora`), and how it is saved.

    config: peft's LoraConfig. merge: save merged weights, not the adapter alone.
    """

    config: Any
    merge: bool = False


def class_names(model: Any) -> set[str]:
    """Names of the classes that an object is of: importing diffusers' pipelines to compare with takes seconds."""
    return {kind.__name__ for kind in type(model).__mro__}


@dataclass(frozen=True)
class Family:
    """A kind of model that the package knows, before there is an objective for one.

    classes: names of the classes, or base classes, of its models; networks: of the UNet of its pipelines, where that
    says what they are. load: (model, processor or None) of a folder or Hub id and a revision. objective: of a model.
    """

    name: str
    given: str  # what a user gives, in words
    load: Callable[[str, str | None], tuple[Any, Any]]
    objective: Callable[[Any], "Objective"]
    classes: tuple[str, ...]
    networks: tuple[str, ...] = ()

    def holds(self, model: Any) -> bool:
        """Whether `model`, a pipeline or a network, is of this family."""
        unet = class_names(getattr(model, "unet", None))
        return bool(class_names(model) & set(self.classes) or unet & set(self.networks))


class Objective(nn.Module):
    """Base class. A family implements `draw`, `forward`, `check` and the two pipeline methods.

    `forward(**batch)` returns per-sample losses `(B,)` in fp32 and is deterministic: the batch carries its draws.
    With `target` the losses are distances to that, and with `predict=True` it returns what the network predicts.
    Its arguments are named, because transformers' Trainer scales losses differently for a `**kwargs` forward.
    """

    network: Any  # the nn.Module that is trained
    adapter: Adapter | None = None
    still: bool = False  # whether training leaves the network in eval mode
    main_input_name: ClassVar[str] = "pixel_values"  # as transformers' Trainer asks for it

    kinds: ClassVar[tuple[str, ...]] = ()  # what methods that work for some models only ask for
    adaptable: ClassVar[bool] = True  # whether there is a format in which an adapter of the network is loaded
    labels_are_targets: ClassVar[bool] = False  # a label may be the `target` of `forward`
    distils: ClassVar[bool] = False  # `forward` takes a `temperature`: the targets are class logits

    @property
    def chance_loss(self) -> float:
        """What a model that knows nothing loses on a sample; 0 where there is no such level."""
        return 0.0

    @property
    def auto_forget_loss(self) -> Literal["match", "ascent"]:
        """What `forget_loss="auto"` means for this model: match or ascent."""
        return "match" if self.conditional else "ascent"

    def train(self, mode: bool = True) -> "Objective":
        """As in torch, unless it is `still`; with an adapter batch statistics stay as they are, because the adapter's
        file has none."""
        super().train(mode and not self.still)
        if self.adapter is not None:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the network's inputs must have: that of its weights, or float32 if it takes any."""
        return taken_precision(self.network)

    @contextmanager
    def measuring(self, keep_activations: bool = True) -> Iterator[None]:
        """Compute in eval mode and in the precision of the weights, whatever was done with the objective before.

        accelerate leaves autocast around the `forward` of a module that it has prepared: it is off inside. With
        `keep_activations` activation checkpointing is too, through which torch.func cannot differentiate.
        """
        training, hidden = self.training, vars(self).get("forward")
        device = next(self.network.parameters()).device.type
        if "_original_forward" in vars(self):
            vars(self)["forward"] = vars(self)["_original_forward"]
        self.eval()
        try:
            autocast = torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
            with autocast, self.keeping_activations() if keep_activations else nullcontext():
                yield
        finally:
            self.train(training)
            if hidden is not None:
                vars(self)["forward"] = hidden

    @contextmanager
    def keeping_activations(self) -> Iterator[None]:
        """Switch activation checkpointing off inside."""
        with keeping_activations(self.network):
            yield

    def draw(self, batch: dict[str, Tensor], generator: torch.Generator, rank: int = 0, world: int = 1) -> dict:
        """Random inputs of `forward` for this process's part of a global batch (CPU tensors).

        Draws for the whole global batch and returns the rows of `rank`, so that neither the number of processes
        nor that of data-loader workers changes what a sample sees.
        """
        raise NotImplementedError

    def forget_draw(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        """Change the draws of a forget batch (the denoising family switches label dropout off)."""
        return draws

    @property
    def conditional(self) -> bool:
        """Whether samples carry a label that another one could replace."""
        raise NotImplementedError

    @property
    def class_labels(self) -> list[int]:
        """Labels that a sample may carry and an anchor may be; none where there are no classes."""
        return []

    def choose_anchors(self, forgotten: set[int], samples: int, seed: int) -> None:
        """Pick the anchor label of each of `samples` forget samples, never one in `forgotten`, which are the labels
        that the retain set lacks."""
        raise NotImplementedError

    def other_labels(self, batch: dict[str, Tensor]) -> Tensor:
        """(B,) for each forget sample its anchor: another label that is retained. ValueError if there is none."""
        raise NotImplementedError

    def null_labels(self, batch: dict[str, Tensor]) -> Tensor:
        """(B,) the label that means "no label". ValueError where the model has none."""
        raise ValueError("negative guidance needs a null label, which the model has not: use another method")

    def predict(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """What `network`, of the same build, outputs for a batch, without gradient: a `target` of `forward`."""
        raise NotImplementedError

    def input_gradient(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Gradient with respect to `pixel_values` of what `network` loses on a batch."""
        raise ValueError(f"{type(self).__name__} gives no gradient of its images: use another method")

    def check(self, example: dict[str, Tensor], labels: list[int] | None) -> None:
        """Raise ValueError if `example` (one item, no batch axis) or the labels do not fit the model."""
        raise NotImplementedError

    def check_range(self, low: float, high: float) -> None:
        """Raise ValueError if images whose pixels lie in [low, high] are not those that the model takes."""

    def baseline_losses(self, batches: list[dict[str, Tensor]]) -> Tensor:
        """Table of what the *original* model loses on forget data, measured once before the first step."""
        raise NotImplementedError(f"{type(self).__name__} has no baseline: set adaptive and bound options off")

    def baseline(self, table: Tensor, batch: dict[str, Tensor]) -> Baseline:
        """Rows of the `table` of `baseline_losses` that belong to the samples of `batch`."""
        raise NotImplementedError

    def know(self, forget: Any, retain: Any, holdout: Any, learn: Any = None) -> None:
        """Take in what tells how the model would treat the forget samples, had it never seen them.

        Args:
            forget, retain, learn: the training sets; `learn` may be None.
            holdout: samples of the same kind that it was never trained on, or None.
        """

    @property
    def ends(self) -> bool:
        """Whether the forget loss of `auto_forget_loss` has an end that says "forgotten"."""
        return True

    @property
    def knows_unseen(self) -> bool:
        """Whether `know` was given what `unseen_levels` and `unseen_target` need."""
        return False

    @property
    def measurable(self) -> bool:
        """Whether it is known what forget samples should become, so that there is a figure for how far they are."""
        return True

    def unseen_levels(self, forget: Any) -> Tensor:
        """(F,) the loss that each forget sample would have, had the model never seen it."""
        raise NotImplementedError

    def unseen_target(self, batch: dict[str, Tensor], original: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """(the `target` of `forward` for a forget batch as if never seen, (B,) the original's losses against it).

        Args:
            original: what the original predicts for the batch.
            levels: what `unseen_levels` returned.
        """
        raise NotImplementedError

    def fresh_network(self, seed: int) -> nn.Module:
        """An untrained network of the same build, in eval mode, whose first weights `seed` decides."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self._build().to(next(self.network.parameters()).device).eval()

    def _build(self) -> nn.Module:
        return type(self.network).from_config(self.network.config)

    @property
    def base_model(self) -> str | None:
        """Folder or Hub id that the model was loaded from; None for one that was built."""
        return None

    def describe(self, labels: Sequence[int]) -> Description:
        """Say what the record of a run needs to know of this objective. `labels` are those of the forget samples."""
        return Description()

    @property
    def exported(self) -> Any:
        """The pipeline or the classifier that `save_pretrained` writes."""
        raise NotImplementedError

    @property
    def loads_with(self) -> list[str]:
        """Names of the classes whose `from_pretrained` loads what is exported, that of the model first."""
        raise NotImplementedError

    def save_pretrained(self, folder: str, **kwargs: Any) -> None:
        """Export everything a user loads with plain diffusers or transformers classes."""
        raise NotImplementedError

    def reload_network(self, folder: str) -> nn.Module:
        """The trained network as a stranger would load it from `folder`, for the check after saving."""
        raise NotImplementedError

    def probe(self, generator: torch.Generator) -> tuple[tuple, dict]:
        """Arguments of one small forward of the network, for the check after saving."""
        raise NotImplementedError

    # Trainer calls these on the model when activation_checkpointing=True, under a name that depends on its version.
    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """Have the network keep few activations and compute them again. It must be `checkpointable`."""
        enable_checkpointing(self.network, **kwargs)

    gradient_checkpointing_enable = activation_checkpointing_enable

    @property
    def checkpointable(self) -> bool:
        """Whether the network can checkpoint its activations."""
        return checkpointable(self.network)


def taken_precision(network: nn.Module) -> torch.dtype:
    """The precision that the inputs of a network must have: that of its weights, or float32 if it takes any."""
    return torch.float32 if takes_any(network) else dtype_of(network)


def dtype_of(network: nn.Module) -> torch.dtype:
    """The precision of the first floating-point weight of a network."""
    return next(p.dtype for p in network.parameters() if p.is_floating_point())
