"""Image classification: any `AutoModelForImageClassification`, with cross entropy or a distance to given logits."""

import copy
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel

from ..base import Baseline, Objective, dtype_of
from ..description import Description
from .inputs import input_channels, input_sides
from .unseen import Unseen, distances, levels, target_of, unseen_of

FIXED_SIZE = ("vit", "deit", "vit_msn", "ijepa")  # position embeddings for one image size
STRIDED = ("swin", "convnext", "convnextv2")  # patches, then a factor of 2 between stages


class Classification(Objective):
    """Per-sample cross entropy l_i = -log p_θ(y_i | x_i).

    The network is in train mode in every step, forget and retain: dropout is active, BatchNorm normalises by the
    batch and updates its running statistics (floating-point buffers, which a slow merge merges like weights; the
    retain steps that follow a forget step re-estimate them). Fishers, teachers and evaluations use eval mode.

    Args:
        model: a transformers image classifier; its label maps and configuration are saved with it.
        processor: the image processor to save beside it, if any.
    """

    auto_forget_loss: ClassVar[Literal["match", "ascent"]] = "ascent"
    kinds: ClassVar[tuple[str, ...]] = ("classifier",)
    labels_are_targets: ClassVar[bool] = True
    distils: ClassVar[bool] = True

    def __init__(self, model: PreTrainedModel, processor: Any = None):
        super().__init__()
        self.network = model
        self.processor = processor
        self.num_classes: int = model.config.num_labels or 0
        self.draws_of_anchor: Tensor | None = None  # (F,) in [0, 1), one for each forget sample
        self.kept: list[int] = list(range(self.num_classes))
        self.unseen: Unseen | None = None
        self._shape: tuple[int, ...] | None = None

    @property
    def conditional(self) -> bool:
        return self.num_classes > 1

    @property
    def chance_loss(self) -> float:
        return math.log(self.num_classes)

    @property
    def class_labels(self) -> list[int]:
        return list(range(self.num_classes))

    # ---- losses ----------------------------------------------------------------------------------
    def forward(
        self,
        pixel_values: Tensor,  # (B, C, H, W)
        labels: Tensor,  # (B,) int64
        target: Tensor | None = None,  # (B, classes) logits, or (B,) labels
        temperature: float = 1.0,
        as_unseen: bool = False,
        predict: bool = False,
    ) -> Tensor:
        """Per-sample losses (B,), fp32: cross entropy with `labels`, or with what `target` says instead.

        Integer targets are labels. Logits are a teacher's: T² KL(softmax(target / T) || softmax(logits / T)), the
        distillation loss of arXiv 1503.02531. `as_unseen`: the distances of `unseen.distances` to logits instead.
        `predict`: the logits (B, classes) instead.
        """
        logits = self.network(pixel_values=pixel_values.to(self.dtype)).logits
        if predict:
            return logits
        logits = logits.float()
        if target is None or target.ndim == 1:
            return F.cross_entropy(logits, labels if target is None else target, reduction="none")
        if as_unseen:
            assert self.unseen is not None
            return distances(self.unseen, logits, target, labels)
        teacher = F.log_softmax(target.float() / temperature, dim=1)
        student = F.log_softmax(logits / temperature, dim=1)
        return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)

    def draw(self, batch: dict[str, Tensor], generator: torch.Generator, rank: int = 0, world: int = 1) -> dict:
        return {}  # nothing random: images are not augmented

    # ---- what a batch may be matched to ------------------------------------------------------------
    @torch.no_grad()
    def predict(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Logits (B, classes) of `network`."""
        return network(pixel_values=batch["pixel_values"].to(dtype_of(network))).logits

    def choose_anchors(self, forgotten: set[int], samples: int, seed: int) -> None:
        self.kept = [label for label in self.class_labels if label not in forgotten]
        self.draws_of_anchor = torch.rand(samples, generator=torch.Generator().manual_seed(seed))

    def other_labels(self, batch: dict[str, Tensor]) -> Tensor:
        """(B,) a retained label other than its own for each sample, the same one whenever the sample is met."""
        labels, index = batch["labels"], batch["index"]
        if self.draws_of_anchor is None:
            raise ValueError("the anchors are not chosen yet: call choose_anchors")
        draws = self.draws_of_anchor.to(labels.device)[index]
        kept = torch.tensor(self.kept, device=labels.device)
        own = kept == labels[:, None]  # (B, kept)
        count = len(kept) - own.sum(1)
        if (count < 1).any():
            raise ValueError("no other label is retained, so there is none to match: use a method that needs none")
        place = (draws * count).long()
        position = own.int().argmax(1)
        return kept[place + (own.any(1) & (place >= position)).long()]

    # ---- as if never seen --------------------------------------------------------------------------
    def know(self, forget: Any, retain: Any, holdout: Any, learn: Any = None) -> None:
        self.unseen = unseen_of(self.num_classes, forget, retain, holdout, learn)

    @property
    def ends(self) -> bool:
        return self.knows_unseen

    @property
    def knows_unseen(self) -> bool:
        return self.unseen is not None and self.unseen.known

    @property
    def measurable(self) -> bool:
        return self.unseen is not None and (self.unseen.known or not self.unseen.samples)

    def unseen_levels(self, forget: Any) -> Tensor:
        assert self.unseen is not None
        return levels(self, self.unseen, forget)

    def unseen_target(self, batch: dict[str, Tensor], original: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        assert self.unseen is not None
        return target_of(self.unseen, batch["labels"], original, levels.to(original.device)[batch["index"]])

    def input_gradient(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        images = batch["pixel_values"].detach().clone().requires_grad_(True)
        logits = network(pixel_values=images.to(dtype_of(network))).logits
        loss = F.cross_entropy(logits.float(), batch["labels"], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, images)
        return gradient

    def _build(self) -> nn.Module:
        return type(self.network)(copy.deepcopy(self.network.config))

    # ---- the original model's losses -------------------------------------------------------------
    @torch.no_grad()
    def baseline_losses(self, batches: list[dict[str, Tensor]]) -> Tensor:
        """(2,): the mean loss on forget data, and chance, log(classes): a sample that loses more is forgotten."""
        with self.measuring():
            losses = torch.cat([self(**batch).cpu() for batch in batches])
        return torch.stack([losses.mean(), torch.tensor(self.chance_loss)])

    def baseline(self, table: Tensor, batch: dict[str, Tensor]) -> Baseline:
        own, other = table.to(batch["labels"].device)
        return Baseline(own=own.expand(len(batch["labels"])), other=other.expand(len(batch["labels"])))

    # ---- input check, export ---------------------------------------------------------------------
    def check(self, example: dict[str, Tensor], labels: list[int] | None) -> None:
        config, self._shape = self.network.config, tuple(example["pixel_values"].shape)
        if labels is None:
            raise ValueError("the data has no labels: name a label column")
        outside = sorted(set(labels) - set(self.class_labels))
        if outside:
            raise ValueError(f"labels {outside[:5]} are out of range: the model has {self.num_classes} classes")
        channels = input_channels(config)
        if self._shape[0] != channels:
            raise ValueError(f"images have {self._shape[0]} channels but the model takes {channels}")
        _check_sides(self._shape[1:], config)
        self._check_forward(example)

    @torch.no_grad()
    def _check_forward(self, example: dict[str, Tensor]) -> None:
        """Raise ValueError if one image does not come out as logits (1, classes): another size, or another input."""
        parameter, training = next(self.network.parameters()), self.network.training
        if parameter.is_meta:
            return
        image = example["pixel_values"][None].to(parameter.device)
        try:
            shape = tuple(self.predict(self.network.eval(), {"pixel_values": image}).shape)
        except AttributeError as error:
            if "logits" not in str(error):
                raise
            raise ValueError(
                f"the {self.network.config.model_type} gives no logits: give another classifier"
            ) from error
        except (RuntimeError, TypeError, ValueError) as error:
            said, sides = (
                " ".join(str(error).split())[:300],
                "x".join(map(str, self._shape[1:] if self._shape else ())),
            )
            raise ValueError(
                f"the {self.network.config.model_type} takes no image of {sides} ({said}): resize the images, or mend "
                "the size in its processor"
            ) from error
        finally:
            self.network.train(training)
        if shape != (1, self.num_classes):
            raise ValueError(f"one image gives logits {shape}, not (1, {self.num_classes}): give an image classifier")

    def check_range(self, low: float, high: float) -> None:
        """Raise ValueError for 0..255 where the processor would have divided by 255; normalised pixels may be
        anything within reason."""
        if getattr(self.processor, "do_rescale", False) and high > 30:
            raise ValueError(f"pixels lie in [{low:g}, {high:g}]: give what the model's image processor returns")

    @property
    def base_model(self) -> str | None:
        return self.network.config.name_or_path or None

    def describe(self, labels: Sequence[int]) -> Description:
        """How anchors are drawn: each sample has its own."""
        gone = [str(label) for label in self.class_labels if label not in self.kept]
        named = " or ".join(gone) if len(gone) <= 5 else f"one of the {len(gone)} that the retain set lacks"
        never = f", never {named}" if gone else ""
        return Description(anchor_rule=f"a random label other than its own for each forget sample{never}")

    @property
    def exported(self) -> PreTrainedModel:
        return self.network

    @property
    def loads_with(self) -> list[str]:
        return ["AutoModelForImageClassification", *(["AutoImageProcessor"] if self.processor is not None else [])]

    def save_pretrained(self, folder: str, **kwargs: Any) -> None:
        self.network.save_pretrained(folder, **kwargs)
        if self.processor is not None:
            self.processor.save_pretrained(folder)

    def reload_network(self, folder: str) -> nn.Module:
        return AutoModelForImageClassification.from_pretrained(folder, use_safetensors=True, trust_remote_code=False)

    def probe(self, generator: torch.Generator) -> tuple[tuple, dict]:
        if self._shape is None:
            raise ValueError("the size of an image is not known yet: call check with one first")
        return (torch.randn((2, *self._shape), generator=generator).to(self.dtype),), {}


def _check_sides(sides: tuple[int, ...], config: PreTrainedConfig) -> None:
    """Raise ValueError if images of `sides` do not go through: a wrong size, or nothing left after the strides."""
    given = f"images are {sides[0]}x{sides[1]} but the model takes"
    if config.model_type in FIXED_SIZE:
        wanted = input_sides(config)
        if wanted is not None and sides != wanted:
            raise ValueError(f"{given} {wanted[0]}x{wanted[1]}: resize them")
    stride = config.patch_size * 2 ** (len(config.depths) - 1) if config.model_type in STRIDED else 1
    # Swin's last stage must be one window wide: its position biases are made for whole windows.
    least = stride * (config.window_size - 1) + 1 if config.model_type == "swin" else stride
    if min(sides) < least:
        raise ValueError(f"{given} at least {least}x{least}: enlarge them")
