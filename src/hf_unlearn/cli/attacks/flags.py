"""What a person chooses about attacks. Imports nothing heavy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...common.limits import check_limits

SEEDS = (0, 1)
UNSEEN = "attacks on a classifier need images that it never saw: set --validation_data_dir"


@dataclass(frozen=True)
class AttackFlags:
    """The flags of `hf-unlearn attack`; None takes what the run's record and its command say.

    Raises:
        ValueError: flags that cannot work, before anything is loaded.
    """

    suite: str = "quick"
    attacks: Sequence[str] | None = None
    seeds: Sequence[int] = SEEDS
    samples: int | None = None  # from each seed; as many as the suite takes
    images: str | None = None
    original: str | None = None
    retrained_model: Sequence[str] = ()
    classifier_model_name_or_path: str | None = None
    classifier_revision: str | None = None
    clip_model: str | None = None
    safety_detector: str | None = None  # reads unsafe concepts
    never_concept: str | None = None  # the negative control
    never_images: str | None = None
    concept: str | None = None
    anchor_concept: str | None = None
    retain_prompts: Sequence[str] | None = None
    forget_class: str | None = None
    train_data_dir: str | None = None
    validation_data_dir: str | None = None
    neighbours: str | None = None  # a file, or "" for those that lie nearest

    @property
    def drawn(self) -> int:
        """Images from each seed."""
        from ...attacks import SAMPLES  # which imports all attacks

        return SAMPLES["full" if self.suite == "full" else "quick"] if self.samples is None else self.samples

    def __post_init__(self) -> None:
        from ...common.devices import launched_processes  # which imports what is heavy

        if launched_processes() > 1:
            raise ValueError(
                f"attacks run in one process, and {launched_processes()} were launched: start hf-unlearn attack "
                "without torchrun or accelerate launch"
            )
        if self.suite not in ("quick", "full"):
            raise ValueError(f"suite must be quick or full, got {self.suite!r}")
        check_limits(self, samples="[1, inf)")
        if len(set(self.seeds)) < 2:
            raise ValueError(
                f"--seeds {' '.join(map(str, self.seeds))}: one run of an attack says little, give at least two "
                "different ones"
            )
        if self.anchor_concept is not None and self.concept is None:
            raise ValueError("--anchor_concept goes with --concept: name both")
        if (self.never_concept is None) != (self.never_images is None):
            raise ValueError("--never_concept and --never_images go together: attacks learn it from pictures")
        if self.never_concept is not None and self.retrained_model:
            raise ValueError("--never_concept and --retrained_model are both the negative control: give one of them")
        if self.neighbours and not Path(self.neighbours).is_file():
            raise ValueError(f"--neighbours {self.neighbours} is not a file: give one with a prompt or a class a line")
        for name in ("images", "never_images", "train_data_dir", "validation_data_dir"):
            folder = getattr(self, name)
            if folder is not None and not Path(folder).is_dir():
                raise ValueError(f"--{name} {folder} is not a folder")


@dataclass(frozen=True, eq=False)
class Known:
    """What a training command has in hand when it ends, and a record alone cannot give.

    place: folder or Hub id of the original, and its revision; None looks for what the record names.
    original: the model itself, where the run trained it; retrained: models without the forget data.
    data: of a classifier, the forget samples and samples that no model was trained on.
    command: words of the command with whole paths, which the record does not keep.
    """

    place: tuple[str, str | None] | None = None
    original: Any = None
    retrained: Sequence[Any] = ()
    data: tuple[Any, Any] | None = None
    command: Sequence[str] | None = None
