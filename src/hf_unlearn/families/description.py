"""What an objective tells about itself, for the record of a run."""

from dataclasses import dataclass, field
from typing import Annotated, NamedTuple


class Anchor(NamedTuple):
    """A forgotten class or prompt, and the one that it is matched to."""

    forget: str
    anchor: str


@dataclass
class Description:
    """What the objective did that no option of the method says. A field that a family does not have is None."""

    train_method: Annotated[
        str | None,
        "weights of a text-to-image model that are trained: `full`, `xattn`, `noxattn`, `selfattn` or `text_encoder`",
    ] = None
    label_dropout: Annotated[float | None, "share of the retain samples that get the null label"] = None
    forget_label_dropout: Annotated[bool | None, "whether forget samples get it too"] = None
    null_class: Annotated[int | None, "label that means no class; 0, the empty prompt, for text to image"] = None
    antithetic: Annotated[bool | None, "whether timesteps are drawn in pairs, t and T-1-t"] = None
    scheduler: Annotated[str | None, "class of the scheduler that the model is saved with and samples with"] = None
    anchor_rule: Annotated[str, "how the anchor of a forget sample is chosen, in words"] = ""
    anchors: Annotated[
        list[Anchor], "each forgotten class or prompt and its anchor; empty where each sample has its own"
    ] = field(default_factory=list)
