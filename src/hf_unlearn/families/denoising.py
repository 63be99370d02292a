"""Denoising: the squared error of a diffusion model's prediction, whatever the network and its condition."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..common.precisions import takes_any
from ..data.class_names import in_words
from .base import Baseline, Objective, taken_precision
from .description import Anchor, Description
from .held import Held
from .label_vectors import shifted_labels
from .noise import NoiseSchedule


class Denoising(Objective):
    """Per-sample squared error of a denoiser, averaged over channels and pixels (DDPM, arXiv 2006.11239, eq. 14).

    l_i = mean_pixels (target(x_0, ε, t) - f_θ(x_t, t, c))²,   the schedule says what x_t and the target are

    A label is the number of a condition: a class, or a prompt. A family says how its network takes one (`denoise`)
    and which labels there are.

    Args:
        network: the denoiser that is trained; `pipeline` is what it comes from and is exported with.
        schedule: how images are noised and what the network predicts.
        label_dropout: probability of the null label on a retain sample (classifier-free guidance). Never applied
            to a forget sample unless `forget_label_dropout`: ascent on the null class hurts every class.
        null_class: the label that means "no class", or None.
        antithetic: draw timesteps in pairs around the middle of the schedule, which lowers the variance of a batch.
        timestep_bins: bins of the table of the original model's losses (`baseline_losses`).
    """

    kinds: ClassVar[tuple[str, ...]] = ("diffusion",)
    anchor_rule: ClassVar[str] = "the next retained class"

    def __init__(
        self,
        pipeline: Any,
        network: nn.Module,
        schedule: NoiseSchedule,
        num_classes: int | None,
        null_class: int | None = None,
        label_dropout: float = 0.1,
        antithetic: bool = True,
        forget_label_dropout: bool = False,
        timestep_bins: int = 10,
    ):
        super().__init__()
        self.anchors: dict[int, int] = {}  # label -> the label it is matched to
        self.chosen: dict[int, int] = {}  # the same, where it is given
        self.held: Held | None = None  # what retained samples are matched to, if not to the model as it is given
        self.class_names: dict[int, str] = {}  # for the record, where the data has them
        self.pipeline = pipeline
        self.network = network
        if network.dtype == torch.float16 and not takes_any(network):  # else an adapter is trained, or a copy in full
            raise ValueError("the weights are float16, which cannot be trained: load float32 and set mixed_precision")
        self.schedule = schedule
        self.num_classes = num_classes
        self.null_class = null_class
        if self.null_class is not None and not 0 <= self.null_class < (self.num_classes or 0):
            raise ValueError(
                f"null_class {self.null_class} is not one of the model's {self.num_classes or 0} class embeddings"
            )
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"label_dropout must lie in [0, 1], got {label_dropout}")
        self.label_dropout = label_dropout if self.null_class is not None else 0.0
        self.forget_label_dropout = forget_label_dropout
        self.antithetic = antithetic
        self.timestep_bins = timestep_bins

    @property
    def conditional(self) -> bool:
        return bool(self.num_classes)

    @property
    def class_labels(self) -> list[int]:
        """Labels a sample may carry (the null class is not one)."""
        return [c for c in range(self.num_classes or 0) if c != self.null_class]

    @property
    def label_tables(self) -> list[nn.Embedding]:
        """The network's embeddings of labels, each with a row for every label; none where it embeds none."""
        return []

    @property
    def conditions(self) -> list[Tensor]:
        """What the network is told of the labels: a row for each label, by way in. Empty where it is told nothing."""
        return [table.weight for table in self.label_tables]

    @contextmanager
    def shifted(self, shifts: Sequence[Tensor]) -> Iterator[None]:
        """Inside, every condition is shifted: by one tensor for each of `conditions`, a row's shape or (B, ...)."""
        with shifted_labels(self.label_tables, shifts), self.keeping_activations():
            yield

    # ---- losses ----------------------------------------------------------------------------------
    def forward(
        self,
        pixel_values: Tensor,  # (B, C, H, W) in [-1, 1]
        noise: Tensor,  # (B, C, H, W)
        timesteps: Tensor,  # (B,) int64
        labels: Tensor | None = None,  # (B,) int64
        drop_labels: Tensor | None = None,  # (B,) bool
        target: Tensor | None = None,  # (B, C, H, W)
        predict: bool = False,
    ) -> Tensor:
        """Per-sample losses (B,), fp32: errors of the prediction against what was added, or against `target`.

        `predict`: the prediction (B, C, H, W) instead.
        """
        noisy = self.schedule.add_noise(pixel_values, noise, timesteps)
        prediction = self._prediction(self.network, noisy, timesteps, self._labels(labels, drop_labels))
        if predict:
            return prediction
        return self._losses(prediction, target, pixel_values, noise, noisy, timesteps)

    def _losses(
        self,
        prediction: Tensor,
        target: Tensor | None,
        pixel_values: Tensor,
        noise: Tensor,
        noisy: Tensor,
        timesteps: Tensor,
    ) -> Tensor:
        """(B,) errors of a prediction against `target`, or what was added, as the schedule weighs them."""
        if target is None:
            target = self.schedule.target(pixel_values, noise, timesteps)
        errors = self.errors(prediction.float(), target.float(), pixel_values, noisy, timesteps)
        weights = self.schedule.weights(timesteps)
        return errors if weights is None else errors * weights

    def errors(self, prediction: Tensor, target: Tensor, images: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """(B,) of two outputs (B, C, H, W)."""
        return (prediction - target).pow(2).flatten(1).mean(1)

    def denoise(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, labels: Tensor | None) -> Tensor:
        """What `network` predicts for `noisy` (B, C, H, W), in its precision, under `labels` (B,): (B, C, H, W)."""
        raise NotImplementedError

    @torch.no_grad()
    def predict(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        noisy = self.schedule.add_noise(batch["pixel_values"], batch["noise"], batch["timesteps"])
        labels = self._labels(batch.get("labels"), batch.get("drop_labels"))
        return self._prediction(network, noisy, batch["timesteps"], labels)

    def _prediction(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, labels: Tensor | None) -> Tensor:
        return self.denoise(network, noisy.to(taken_precision(network)), timesteps, labels)

    def _labels(self, labels: Tensor | None, drop: Tensor | None) -> Tensor | None:
        if not self.conditional:
            return None
        if labels is None or drop is None or self.null_class is None:
            return labels
        return torch.where(drop, self.null_class, labels)

    # ---- randomness ------------------------------------------------------------------------------
    def draw(self, batch: dict[str, Tensor], generator: torch.Generator, rank: int = 0, world: int = 1) -> dict:
        images = batch["pixel_values"]
        size, total = len(images), len(images) * world
        mine = slice(rank * size, (rank + 1) * size)
        noise = torch.randn((total, *images.shape[1:]), generator=generator)
        timesteps = self.schedule.draw(total, generator, self.antithetic)
        draws = {"noise": noise[mine], "timesteps": timesteps[mine]}
        if self.conditional:
            draws["drop_labels"] = (torch.rand(total, generator=generator) < self.label_dropout)[mine]
        return draws

    def forget_draw(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        if "drop_labels" in draws and not self.forget_label_dropout:
            draws["drop_labels"] = torch.zeros_like(draws["drop_labels"])
        return draws

    def null_labels(self, batch: dict[str, Tensor]) -> Tensor:
        if self.null_class is None:
            return super().null_labels(batch)
        return torch.full_like(batch["labels"], self.null_class)

    def other_labels(self, batch: dict[str, Tensor]) -> Tensor:
        labels = batch["labels"]
        if not self.anchors:
            raise ValueError("no label is retained, so there is none to match: set forget_loss='ascent', bound='own'")
        table = [self.anchors.get(label, -1) for label in range(self.num_classes or 0)]
        return torch.tensor(table, device=labels.device)[labels]

    def choose_anchors(self, forgotten: set[int], samples: int, seed: int) -> None:
        """The anchor of each label: the given one, or the next retained one, round the end. None if every label is
        forgotten."""
        kept = [label for label in self.class_labels if label not in forgotten]
        self.anchors = {}
        for label in self.class_labels if kept else ():
            after = [k for k in kept if k > label] + [k for k in kept if k < label]
            self.anchors[label] = self.chosen.get(label, after[0] if after else label)

    # ---- the original model's losses -------------------------------------------------------------
    @torch.no_grad()
    def baseline_losses(self, batches: list[dict[str, Tensor]]) -> Tensor:
        """(3, bins): mean loss under the own label, under other labels, and the distance between the two predictions,
        by timestep bin.

        "Other" is the next class label (c+1 modulo the classes); without classes it equals the own row, because an
        unconditional model has no other condition to compare with.
        """
        sums = torch.zeros(4, self.timestep_bins, dtype=torch.float64)
        with self.measuring():
            for batch in batches:
                bins = self.schedule.bins(batch["timesteps"], self.timestep_bins).cpu()
                given = (batch["pixel_values"], batch["noise"], batch["timesteps"])
                drawn = (*given[:2], self.schedule.add_noise(*given), given[2])
                predicted = self.predict(self.network, batch)
                own = self._losses(predicted, None, *drawn).double().cpu()
                other, gap = own, torch.zeros_like(own)
                if self.conditional:
                    anchor = self.predict(self.network, {**batch, "labels": self.other_labels(batch)})
                    other = self._losses(anchor, None, *drawn).double().cpu()
                    gap = self._losses(predicted, anchor, *drawn).double().cpu()
                for row, values in enumerate((own, other, gap, torch.ones_like(own))):
                    sums[row].index_add_(0, bins, values)
        if (sums[3] == 0).any():
            raise ValueError("too few forget samples to fill every timestep bin: lower timestep_bins")
        return (sums[:3] / sums[3]).float()

    def baseline(self, table: Tensor, batch: dict[str, Tensor]) -> Baseline:
        bins = self.schedule.bins(batch["timesteps"], self.timestep_bins)
        rows = table.to(bins.device)[:, bins]  # two in checkpoints of older versions
        return Baseline(own=rows[0], other=rows[1], gap=rows[2] if len(rows) > 2 else None)

    # ---- input check, export ---------------------------------------------------------------------
    def check(self, example: dict[str, Tensor], labels: list[int] | None) -> None:
        config = self.network.config
        shape = tuple(example["pixel_values"].shape)
        if shape[0] != config.in_channels:
            raise ValueError(f"images have {shape[0]} channels but the model takes {config.in_channels}")
        if config.sample_size is not None and shape[1:] != sides_of(config.sample_size):
            height, width = sides_of(config.sample_size)
            raise ValueError(f"images are {shape[1]}x{shape[2]} but the model takes {height}x{width}: resize them")
        if self.conditional:
            if labels is None:
                raise ValueError("the model is class-conditional but the data has no labels: name a label column")
            outside = sorted(set(labels) - set(self.class_labels))
            if outside:
                null = f", and class {self.null_class} means none" if self.null_class in outside else ""
                raise ValueError(
                    f"labels {outside[:5]} are out of range: the model has {len(self.class_labels)} classes{null}"
                )

    @property
    def base_model(self) -> str | None:
        return self.pipeline.config.get("_name_or_path")

    def describe(self, labels: Sequence[int]) -> Description:
        """The settings of the draws, and the anchor of each forgotten label."""
        pairs = [(label, self.anchors[label]) for label in sorted(set(labels)) if label in self.anchors]
        return Description(
            label_dropout=self.label_dropout,
            forget_label_dropout=self.forget_label_dropout,
            null_class=self.null_class,
            antithetic=self.antithetic,
            scheduler=type(self.pipeline.scheduler).__name__,
            anchor_rule=self.anchor_rule if pairs else "",
            anchors=[Anchor(self.label_name(label), self.label_name(anchor)) for label, anchor in pairs],
        )

    def label_name(self, label: int) -> str:
        """A label as a person reads it."""
        return in_words(label, self.class_names)

    @property
    def exported(self) -> Any:
        return self.pipeline

    @property
    def loads_with(self) -> list[str]:
        return [type(self.pipeline).__name__]

    def save_pretrained(self, folder: str, **kwargs: Any) -> None:
        self.pipeline.save_pretrained(folder, safe_serialization=True, **kwargs)

    def noisy_probe(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two images of noise and two timesteps, for one forward."""
        config = self.network.config
        noisy = torch.randn((2, config.in_channels, *sides_of(config.sample_size or 32)), generator=generator)
        return noisy.to(self.dtype), self.schedule.examples()


def sides_of(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of what diffusers' configurations hold as one number or as two."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])
