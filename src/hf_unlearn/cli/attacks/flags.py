"""What a person chooses about attacks. Imports nothing heavy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...common.limits import check_limits

SEEDS, SAMPLES = (0, 1), 36


@dataclass(frozen=True)
class AttackFlags:
    """The flags of `hf-unlearn attack`; None takes what the run's record and its command say.

    Raises:
        ValueError: flags that cannot work, before anything is loaded.
    """

    suite: str = "quick"
    attacks: Sequence[str] | None = None
    seeds: Sequence[int] = SEEDS
    samples: int = SAMPLES
    images: str | None = None
    original: str | None = None
    retrained_model: Sequence[str] = ()
    classifier_model_name_or_path: str | None = None
    classifier_revision: str | None = None
    clip_model: str | None = None
    concept: str | None = None
    anchor_concept: str | None = None
    retain_prompts: Sequence[str] | None = None
    forget_class: str | None = None
    train_data_dir: str | None = None
    validation_data_dir: str | None = None
    neighbours: str | None = None  # a file, or "" for those that lie nearest

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
        if self.neighbours and not Path(self.neighbours).is_file():
            raise ValueError(f"--neighbours {self.neighbours} is not a file: give one with a prompt or a class a line")
        for name in ("images", "train_data_dir", "validation_data_dir"):
            folder = getattr(self, name)
            if folder is not None and not Path(folder).is_dir():
                raise ValueError(f"--{name} {folder} is not a folder")
