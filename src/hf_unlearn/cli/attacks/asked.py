"""The flags of the command that made a run, read back from its record."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ..parsing import parse, values_of

TRAINING = ("ddpm", "dit", "t2i", "sd", "classify")


class Asked:
    """What the command of a run asked for.

    Attributes:
        known: whether a command made the run; else every value is None.
        parts: the dataclasses of its flags.
    """

    def __init__(self, command: Sequence[str] | None, **instead: str | None):
        """Read the command's words as the command itself would.

        Args:
            command: of the run, from its record, where paths may be cut, or whole from the run itself.
            instead: values of flags that take the place of what the command gave.

        Raises:
            ValueError: a folder that it names is not here.
        """
        words = list(command or [])
        self.known = len(words) > 1 and words[1] in TRAINING
        self.parts: list[Any] = []
        self._values: dict[str, Any] = {}
        if self.known:
            module = import_module(f"hf_unlearn.cli.commands.{words[1]}")
            given = [word for name, value in instead.items() if value is not None for word in (f"--{name}", value)]
            options = {"prog": "hf-unlearn attack, in the flags of the run", "kinds": module.KINDS}
            hidden = getattr(module, "HIDDEN", ())
            self.parts = parse(module.flag_classes(), [*words[2:], *given], hidden=hidden, **options)
            self._values = values_of(self.parts)

    def __call__(self, name: str) -> Any:
        """The value of a flag; None where there is none."""
        return self._values.get(name)
