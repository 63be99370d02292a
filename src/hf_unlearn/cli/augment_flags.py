"""Flags of `hf-unlearn classify` that have a generator draw variants. Imports nothing heavy."""

from dataclasses import dataclass

from ..common.limits import check_limits
from .flags import flag

RULES = ("clusters", "loss", "misclassified", "random", "all")


@dataclass
class AugmentFlags:
    augment_with: str | None = flag(
        None,
        "Class-conditional or Stable Diffusion pipeline, a folder or Hub id. It draws variants of slow-learnt "
        "retained images, which are retained too, and of the forget images, on which the result is measured.",
    )
    augment_by: str = flag(
        "clusters", f"How slow-learnt images are found: {', '.join(RULES)}. All is for few retained images."
    )
    augment_factor: int = flag(2, "How often a slow-learnt image then stands in the data, itself included.")
    augment_strength: list[float] = flag([0.5], "Share of the generator's chain in (0, 1), or several in turn.")
    augment_times: int = flag(2, "How often slow-learnt images and variants are seen beside once for the others.")
    augment_steps: int = flag(50, "Steps of the generator's whole chain.")
    augment_prompt: str = flag("a photo of a {}", "What Stable Diffusion is told; {} is the class's name.")

    def check_augmentation(self) -> None:
        """Raise ValueError for flags that make no variant, or that nothing asks for."""
        if self.augment_by not in RULES:
            raise ValueError(f"augment_by {self.augment_by!r} is not one of {', '.join(RULES)}")
        check_limits(self, augment_factor="[2, inf)", augment_times="[1, inf)", augment_steps="[1, inf)")
        wrong = [s for s in self.augment_strength if not 0 < s < 1]
        if wrong:
            raise ValueError(f"augment_strength must lie in (0, 1), the share of the chain, got {wrong[0]:g}")
        if "{}" not in self.augment_prompt:
            raise ValueError("augment_prompt does not say where the class's name goes: write {} there")
        changed = [f for f in ("factor", "strength", "by", "times") if getattr(self, f"augment_{f}") != _DEFAULTS[f]]
        if self.augment_with is None and changed:
            raise ValueError(f"augment_{changed[0]} needs a generator: set --augment_with")


_DEFAULTS = {"factor": 2, "strength": [0.5], "by": "clusters", "times": 2}
