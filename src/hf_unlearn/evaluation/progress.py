"""How far a run has come, as metrics."""

from ..training.progress import Progress
from .metric import Metric, version_of

DRIFT_LIMIT = 1.0  # retained outputs that have moved as far as the forgotten ones had to go are not what they were


def progress_figures(found: Progress | None) -> dict[str, Metric]:
    """forget_progress and retain_drift of the unlearned model (`training.progress`); nothing if not measured."""
    if found is None:
        return {}
    library = version_of("torch")
    details = {"by_timestep": found.parts, "off_axis": found.off_axis, "draws": found.draws}
    metrics = {
        "forget_progress": Metric(
            found.value,
            "how far the outputs for forget samples have gone from the original's, 0, to what they should become, 1: "
            "the least of the parts of the schedule, on fixed draws",
            found.draws,
            library,
            {name: value for name, value in details.items() if value is not None},
        )
    }
    if found.drift is not None:
        metrics["retain_drift"] = Metric(
            found.drift,
            "mean distance of the outputs for retained samples from the original's, in units of the way that the "
            "forgotten ones have to go",
            found.draws,
            library,
            {"limit": DRIFT_LIMIT},
        )
    return metrics
