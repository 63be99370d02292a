"""LUR: forget from where a retain step would lead, so that the two gradients learn to agree."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from ..common.limits import check_limits
from ..data.protocols import SizedDataset
from ..families import Objective
from .base import Batch, Losses, Method, RetainData, Step, flag
from .look_ahead import inner_gradient
from .reinitialise import late_weights, start_anew


@dataclass(frozen=True)
class LUR(Method):
    """min a_r L_r(θ) + a_u L_u(θ - η ∇L_r(θ)),   L_u = -mean l(forget)

    Patel and Qiu, ICCV 2025, arXiv 2503.06339; the objective and the settings as an independent implementation (code
    of arXiv 2603.11210) has them, the paper's own text was not at hand. Its settings: η 0.01, a_r = a_u = 0.5, SGD
    with rate 0.01 and momentum 0.9, 10 epochs of one (forget, retain) pair a step. The default of a_u is smaller:
    ascent has no end.

    `form="exact"`, the method, differentiates through ∇L_r. `"first_order"`, a variant, takes it as a constant and so
    drops -η a_u H_r ∇L_u; the gradient that it has looked ahead with is the retain gradient of its step too.

    Training begins from a SNIP re-initialisation: of the late layers' weights and biases the `reinit_share` with the
    largest |g w|, g = Σ ∂l/∂w over one forget batch, begin anew: weights Kaiming uniform with a = √5, biases 0.
    Normalisation layers stay. "Sparsity .97" of CIFAR-10, in layer3, layer4 and fc of a ResNet, is a share of 0.03.
    """

    name: ClassVar[str] = "lur"
    paper: ClassVar[str] = "2503.06339"
    shards: ClassVar[bool] = False
    form: Literal["exact", "first_order"] = flag(
        "exact", "Differentiate through the look-ahead's retain gradient, or take it as a constant."
    )
    look_ahead: float = flag(0.01, "Size η of the retain step that is looked ahead.")
    retain_weight: float = flag(1.0, "Weight a_r of the retain loss.")
    forget_weight: float = flag(0.1, "Weight a_u of the ascent on the forget loss.")
    reinit_share: float | None = flag(
        None, "Share of the late weights that start anew; by default 0.03 for a classifier's weights, else 0."
    )
    reinit_layers: str = flag(
        "", "Names with which these late layers begin, with commas between them; by default those of reinit_last."
    )
    reinit_last: float = flag(0.5, "Share of the layers, counted from the last one, that is late.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, look_ahead="[0, inf)", reinit_share="[0, 1)", reinit_last="(0, 1]")

    @property
    def batch_gradients(self) -> float:
        return 3 if self.form == "exact" else 2  # exact: the product with the Hessian is one more

    @property
    def second_order(self) -> bool:
        return self.form == "exact"

    def resolved(self, objective: Objective) -> Method:
        super().resolved(objective)
        if self.reinit_share and objective.adapter is not None:
            raise ValueError("an adapter's weights begin anew as it is: set reinit_share=0, or do without LoRA")
        weights = "classifier" in objective.kinds and objective.adapter is None
        share = (0.03 if weights else 0.0) if self.reinit_share is None else self.reinit_share
        ready = replace(self, reinit_share=share)
        if share:
            late_weights(objective.network, self.reinit_layers, self.reinit_last)  # or it says what is wrong
        return ready

    def edit(self, objective: Objective, forget: SizedDataset, retain: RetainData, seed: int) -> None:
        if not self.reinit_share:
            return
        late = late_weights(objective.network, self.reinit_layers, self.reinit_last)
        start_anew(objective, forget, late, self.reinit_share, seed)

    def loss(self, step: Step, batch: Batch) -> Losses:
        retain, gradient = inner_gradient(step, lambda: step.losses(batch.retain[0]).mean(), self.form == "exact")
        forget = step.losses(batch.forget, shift=[self.look_ahead * g for g in gradient]).mean()
        return Losses(forget=forget, retain=retain, total=self.retain_weight * retain - self.forget_weight * forget)
