"""What passes between a method and a step: batches, losses, and what a method asks of the optimizer."""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

Samples = dict[str, Tensor]
Above = tuple[Tensor, Tensor, Tensor]  # see `Step.fast_step`
Hardest = tuple[slice, Tensor, list[Tensor]]  # see `Step.hardest`


@dataclass(frozen=True)
class Batch:
    """The data of one outer step, with everything random drawn. What a method does not take is empty."""

    forget: Samples = field(default_factory=dict)
    retain: list[Samples] = field(default_factory=list)
    learn: list[Samples] = field(default_factory=list)


@dataclass(frozen=True)
class Losses:
    """What a step returns. All are scalars.

    forget, retain: logged as forget_loss and retain_loss, and watched by the divergence guard. Their sum is
        differentiated if there is no `total`.
    extra: further numbers for the log, by name; they are not differentiated.
    total: what is differentiated, for a method that weighs its terms.
    """

    forget: Tensor | None = None
    retain: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    total: Tensor | None = None

    @property
    def scalar(self) -> Tensor:
        """The tensor that is differentiated."""
        if self.total is not None:
            return self.total
        given = [loss for loss in (self.forget, self.retain) if loss is not None]
        if not given:
            raise ValueError("Losses has nothing to differentiate: give forget, retain or total")
        return given[0] if len(given) == 1 else given[0] + given[1]

    @property
    def logged(self) -> dict[str, Tensor]:
        """The numbers for the log, by name, without gradient."""
        named = {"forget_loss": self.forget, "retain_loss": self.retain, **self.extra}
        return {name: value.detach() for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class OptimizerSpec:
    """What a method asks of the optimizer.

    forget_optim: whether forget steps have an Adam of their own or share that of the retain steps.
    forget_learning_rate: of a separate Adam; None is the learning rate of the retain steps.
    learn_optim, learn_learning_rate: the same for learn steps; None is no optimizer of their own.
    slow_rate, slow_form: how an outer step is merged into the slow weights; a rate of 1 keeps none.
    hard_mask: masked-out weights stay bit-identical; otherwise the mask acts on the gradient alone.
    """

    forget_optim: Literal["shared", "separate"] = "shared"
    forget_learning_rate: float | None = None
    learn_optim: Literal["shared", "separate"] = "shared"
    learn_learning_rate: float | None = None
    slow_rate: float = 1.0
    slow_form: Literal["lookahead", "ema"] = "lookahead"
    hard_mask: bool = True
