"""What a finished run leaves for others: its history in the saved configuration, its report, its way to the Hub."""

from importlib import import_module
from pathlib import Path
from typing import Any

from ..families.base import Objective
from ..hub.upload import Published, publish, reserve
from ..methods import Method
from ..saliency.masks import Masks
from ..saving.export import MASKS_FILE
from ..saving.history import entry, read_history, write_history
from .config import UnlearnConfig

# A report is made of metrics, a card and a page, which lie in rooms above this one. The module is named here and
# loaded when a report is asked for; nothing of those rooms comes with the trainer.
REPORTER = f"{__package__.partition('.')[0]}.report.from_trainer"


def written_report(trainer: Any, **known: Any) -> Any:
    """Call `report_trainer` of REPORTER and return its record."""
    return import_module(REPORTER).report_trainer(trainer, **known)


class Publisher:
    """The part of the trainer that tells others of the run.

    Args:
        forgotten: what is forgotten, in words.
        forgets: whether the run has data to forget.
    """

    def __init__(self, objective: Objective, method: Method, args: UnlearnConfig, forgotten: str, forgets: bool):
        self.objective, self.method, self.args = objective, method, args
        self.forgotten, self.forgets = forgotten, forgets
        self._before = read_history(objective.network)

    def history(self, steps: int) -> list[dict[str, Any]]:
        """What the model was made to forget, oldest first, by this run too once it has taken a step."""
        if not self.forgets or (self.method.trains and not steps):
            return self._before
        return [*self._before, entry(self.forgotten, self.method.name, steps, self.objective.base_model)]

    def write_history(self, steps: int) -> None:
        """Put the history into the configuration that is saved with the weights."""
        write_history(self.objective.network, self.history(steps))

    def reserve(self, token: str | None = None, private: bool | None = None) -> str:
        """Make the repository that the arguments name, or take the one that is there; return its id.

        Raises:
            ValueError, OSError: what `reserve` raises.
        """
        args = self.args
        name = args.hub_model_id or Path(args.output_dir or ".").resolve().name
        wanted = bool(args.hub_private_repo if private is None else private)
        return reserve(name, token or args.hub_token, wanted, args.hub_revision)

    def publish(
        self, repo: str, masks: Masks | None, include_masks: bool, token: str | None, message: str
    ) -> Published:
        """Publish what is in output_dir, with the masks if `include_masks`.

        Raises:
            ValueError, OSError: what `publish` raises, or there are no masks to include.
        """
        args, folder = self.args, Path(self.args.output_dir or ".")
        if include_masks:
            if masks is None:
                raise ValueError(f"include_masks: {self.method.name} has no masks")
            masks.save(folder / MASKS_FILE)
        return publish(folder, repo, token or args.hub_token, False, args.hub_revision, include_masks, message)
