"""What a method sees of the trainer, which gives it as a step."""

from typing import Any, Final, Literal, Protocol

from torch import Tensor, nn

from ..families import Baseline
from .parts import Above, Hardest, Samples

OWN: Final = "own"  # each sample's own label


class Step(Protocol):
    """All that a method sees of the trainer."""

    @property
    def state(self) -> Any:
        """What the method's `begin` returned."""

    @property
    def progress(self) -> float:
        """Share of the outer steps already done, in [0, 1)."""

    @property
    def parameters(self) -> list[Tensor]:
        """The trained weights."""

    def losses(
        self,
        batch: Samples,
        target: Tensor | None = None,
        shift: list[Tensor] | None = None,
        under: list[Tensor] | None = None,
        **options: Any,
    ) -> Tensor:
        """Per-sample losses (B,) of the trained model, with gradient.

        target: a prediction, or a classifier's labels, in place of what the data says; it has no gradient.
        shift: take the losses at the weights minus these tensors.
        under: shift what the network is told of the labels by these tensors, as `hardest` gives them.
        options: further arguments of the objective's forward; a classifier takes `temperature`.
        """

    def predict(
        self, batch: Samples, labels: Tensor | Literal["own"] | None = OWN, network: nn.Module | None = None
    ) -> Tensor:
        """What the trained model, or another `network` of its build, predicts now, without gradient.

        labels: other labels (B,) for the same samples; None is the null label. ValueError where the model has none.
        """

    def original(self, batch: Samples, labels: Tensor | Literal["own"] | None = OWN) -> Tensor:
        """What the frozen original predicts; declare `needs_original`. `labels` as in `predict`."""

    def original_gradient(self, batch: Samples) -> Tensor:
        """Gradient of the original's losses with respect to `pixel_values`; declare `needs_original`."""

    def anchor_labels(self, batch: Samples) -> Tensor:
        """(B,) the retained label that each forget sample is matched to."""

    def anchor(self, batch: Samples) -> Tensor:
        """The target that stands for the anchor label: that label for a classifier, else what the trained model
        predicts now under it."""

    def baseline(self, batch: Samples) -> Baseline:
        """What the original model loses on these samples at these timesteps; declare `needs_baseline`."""

    def hardest(self, batch: Samples) -> Hardest:
        """Have the adversary take a step on a forget batch. Set `adversary` on the method.

        Returns:
            (rows of the batch; (rows,) bool, which of them count; what each condition of theirs is shifted by).
        """

    def unseen(self, batch: Samples) -> tuple[Tensor, Tensor]:
        """(the target that a classifier's forget samples are matched to as if it had never seen them, (B,) the
        original's losses against it); declare `needs_original`, and return `Objective.unseen_levels` from `begin`."""

    def levels(self, batch: Samples) -> tuple[Tensor, Tensor]:
        """What the original loses on average at the timesteps of a learn batch, (B,) each: on retained samples, where
        learning ends, and on learn samples, where it begins; declare `needs_levels`."""

    def learn_step(self, loss: Tensor, max_norm: float | None = None, above: Above | None = None) -> None:
        """Backward, clip and step now: masked, with the learn optimizer. `above` as in `fast_step`."""

    def fast_step(
        self,
        loss: Tensor,
        forget: bool,
        max_norm: float | None = None,
        scale: float = 1.0,
        above: Above | None = None,
    ) -> None:
        """Backward, clip and step now. `forget=True`: masked, with the forget optimizer, `scale` times its rate.

        above: for a method that `finds_strength`: how far `loss`, and the original's in its place, lie above the end
            at which the samples count as forgotten, and the latter in the unit of the retain loss. They say how far
            the step goes, and what rate retain steps have.
        """
