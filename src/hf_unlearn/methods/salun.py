"""SalUn: RandomLabel on the weights with the largest forget gradient only."""

from dataclasses import dataclass
from typing import ClassVar

from ..data.protocols import SizedDataset
from ..families import Objective
from ..saliency.fisher import forget_gradient
from ..saliency.masks import Masks, top_masks
from .base import RetainData, flag
from .random_label import RandomLabel


@dataclass(frozen=True)
class SalUn(RandomLabel):
    """RandomLabel under a mask: S = the `mask_density` share of all weights with the largest |Σ_i ∂l_i/∂θ_j|.

    Fan et al., ICLR 2024, arXiv 2310.12508. The mask holds for every step, retain steps included; weights outside
    stay bit-identical, as in the released code since its fix of momentum and weight decay. Published for classifiers
    with `proportional_passes`, for diffusion models with joint steps.
    """

    name: ClassVar[str] = "salun"
    paper: ClassVar[str] = "2310.12508"
    masks_every_step: ClassVar[bool] = True
    mask_density: float = flag(0.5, "Share of all weights that may move.")
    gradient_samples: int = flag(0, "Number of forget samples whose gradients are summed; 0 takes all.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mask_density <= 1:
            raise ValueError(f"mask_density must lie in (0, 1], got {self.mask_density}")

    def compute_masks(self, objective: Objective, forget: SizedDataset, retain: RetainData, seed: int) -> Masks:
        gradient, about = forget_gradient(objective, forget, max_samples=self.gradient_samples, seed=seed)
        return Masks(top_masks(gradient, self.mask_density), {"density": str(self.mask_density), **about})
