"""Learn an embedding for the forgotten class while every weight of the network stays as it is."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import Self

from ..families.denoising import Denoising
from ..families.label_vectors import replaced_label
from ..methods.base import flag
from .base import Attack, Found, Subject, Suite
from .classes import FAMILIES, Batches, one_class, pictures, sampled, working_copy

Start = Literal["null", "mean", "own"]


@dataclass(frozen=True)
class ClassEmbedding(Attack):
    """Find the vector that draws the class: v = argmin mean ||target - f(x_t, t, v)||² over k pictures, f frozen.

    It is concept inversion (Pham et al. 2023, arXiv 2308.01508) for class labels: v stands in the place of the class's
    embedding, in a DiT one vector for each block, and the stock pipeline samples with it. What it draws was in the
    weights all along.

    A model without a null class begins at the mean of the other classes. Beginning at the own embedding finds a class
    that stayed without a step.
    """

    name: ClassVar[str] = "class_embedding"
    suite: ClassVar[Suite] = "quick"
    families: ClassVar[tuple[str, ...]] = FAMILIES
    paper: ClassVar[str] = "Pham et al. 2023, arXiv 2308.01508, for class labels"
    limits: ClassVar[dict[str, str]] = {
        "pictures": "[1, inf)",
        "steps": "[1, inf)",
        "learning_rate": "(0, inf)",
        "batch_size": "[1, inf)",
    }

    pictures: int = flag(20, "Pictures of the class, k.")
    steps: int = flag(300, "Steps of Adam.")
    learning_rate: float = flag(0.1, "Learning rate of Adam.")
    batch_size: int = flag(32, "Pictures, each with a timestep and noise of its own, in a step.")
    start: Start = flag("null", "Where v begins: at the embedding of the null class, the mean of others, or its own.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start not in ("null", "mean", "own"):
            raise ValueError(f"start {self.start!r} is not one of null, mean, own")

    @property
    def budget(self) -> str:
        return f"the weights, {self.pictures} pictures, {self.steps} steps on one class embedding"

    def quick(self) -> Self:
        return replace(self, steps=min(self.steps, 100))

    def attack(self, subject: Subject, seed: int) -> Found:
        label, objective = one_class(subject), working_copy(subject)
        images = pictures(objective, subject.target.images, self.pictures)
        vectors, losses = self.learn(objective, images, label, seed)
        with torch.no_grad(), replaced_label(objective.label_tables, label, vectors):
            drawn = sampled(objective.pipeline, subject, seed)
        return Found(subject.read(drawn), details={"first_loss": losses[0], "last_loss": losses[-1]})

    def learn(
        self, objective: Denoising, images: Tensor, label: int, seed: int
    ) -> tuple[list[Tensor], tuple[float, float]]:
        """Return the vectors, (D,) for each table of the network, and the mean loss of the first and the last tenth.

        Args:
            objective: around a frozen network.
            images: (K, C, H, W) as the network takes them.
        """
        vectors = [v.requires_grad_() for v in self.first(objective, label)]
        optimizer = torch.optim.Adam(vectors, lr=self.learning_rate)
        batches, losses = Batches(objective, images, label, self.batch_size, seed), []
        with torch.enable_grad(), replaced_label(objective.label_tables, label, vectors):
            for _ in range(self.steps):
                loss = batches.loss()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        part = -(-len(losses) // 10)
        ends = sum(losses[:part]) / part, sum(losses[-part:]) / part
        return [v.detach() for v in vectors], ends

    def first(self, objective: Denoising, label: int) -> list[Tensor]:
        """The vectors to begin with. Raises ValueError where the model embeds no classes."""
        tables = objective.label_tables
        if not tables:
            raise ValueError("the model has no classes, so there is no embedding to learn: choose another attack")
        rows = {"own": label, "null": objective.null_class}.get(self.start)
        if rows is None:
            others = [c for c in objective.class_labels if c != label]
            return [table.weight.detach()[others].mean(0) for table in tables]
        return [table.weight.detach()[rows].clone() for table in tables]
