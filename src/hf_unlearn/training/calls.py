"""What earlier calls of `train` did to the weights: transformers begins its count and its log anew in each."""

from typing import Any

from transformers import TrainerState


class Calls:
    """The outer steps and the log rows of a trainer over all calls of `train`.

    Attributes:
        steps: outer steps of earlier calls.
        log: rows of earlier calls, whose steps are counted on.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.log: list[dict[str, Any]] = []

    def end(self, state: TrainerState) -> None:
        """Take in the state of a call that is over, and empty it for the next one."""
        self.log, self.steps = self.rows(state), self.total(state)
        state.global_step, state.log_history = 0, []

    def total(self, state: TrainerState) -> int:
        """Return the outer steps behind the weights."""
        return self.steps + state.global_step

    def rows(self, state: TrainerState) -> list[dict[str, Any]]:
        """Return the log rows of all calls, oldest first."""
        return [*self.log, *({**row, "step": row.get("step", 0) + self.steps} for row in state.log_history)]

    def state_dict(self) -> dict[str, Any]:
        return {"earlier": {"steps": self.steps, "log": self.log}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.log = state["earlier"]["steps"], state["earlier"]["log"]
