"""`trainer.report()`: metrics, card and page of a run that Python made, and the verdict on the screen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.files import write_text
from ..data.pairs import labels_of
from ..data.streaming import first_of
from ..evaluation.classifier_rows import classifier_figures, evaluation_sets
from ..evaluation.metric import Metric
from ..evaluation.progress import progress_figures
from ..evaluation.tables import loss_metrics, write_metrics
from .cards import write_card
from .outcome import outcome
from .page import PAGE_FILE, page
from .record import RunRecord
from .recording import record_run
from .verdict import verdict

PICTURE = "before_after.png"
Metrics = dict[str, dict[str, Metric]]


def report_trainer(
    trainer: Any,
    metrics: Metrics | None = None,
    before: dict[str, float] | None = None,
    test_dataset: Any = None,
    forgotten: str | None = None,
    folder: str | Path | None = None,
    picture: str | None = PICTURE,
    sources: dict[str, str] | None = None,
    per_class: Sequence[dict[str, Any]] = (),
    base_model: str | None = None,
    forgets: str | None = None,
    show: bool = True,
) -> RunRecord | None:
    """Measure a trainer whose `train` is over, write what a command writes, and print the outcome.

    To `folder` go figures.json, figures.md, unlearning_report.json, README.md, verdict.svg and report.html. Every
    process must call it; the first one writes.

    Args:
        metrics: {"before": {name: Metric}, "after": ...} that were measured elsewhere, such as shares of pictures that
            a classifier recognises. They come beside what is measured here.
        before: what `trainer.evaluate()` gave before `train`; without it the losses have no row "before".
        test_dataset: images that a classifier was never trained on, for test accuracy and membership inference.
        forgotten: in words; default the trainer's.
        folder: default the trainer's output_dir.
        picture: file in the folder with samples before and after; left out if it is not there.
        sources, per_class, base_model, forgets: of `record_run`.
        show: whether to print.

    Returns:
        The record, with its outcome; None on all processes but the first.

    Raises:
        ValueError: nothing was trained yet.
        OSError: the folder cannot be written.
    """
    if trainer.method.trains and not trainer.outer_steps:
        raise ValueError("nothing was trained yet: call trainer.train() before trainer.report()")
    found = _measured(trainer, before, test_dataset)
    if not trainer.is_world_process_zero():
        return None
    for model, row in (metrics or {}).items():
        found[model] = {**found.get(model, {}), **row}
    place = Path(folder or trainer.args.output_dir or ".")
    place.mkdir(parents=True, exist_ok=True)
    shown = picture if picture is not None and (place / picture).is_file() else None
    words = forgotten or trainer.forgotten
    record = record_run(trainer, words, found, base_model, None, sources, per_class, shown, forgets)
    table = write_metrics(found, place)
    record.write(place)
    write_card(place, record)
    write_text(place / PAGE_FILE, page(record, place))
    if show:
        print(f"\n{outcome(record).line}\n{verdict(record)}\n\n{table}\n\n{place / PAGE_FILE} shows it.")
    return record


def _measured(trainer: Any, before: dict[str, float] | None, test: Any) -> Metrics:
    """What the trainer's own sets say: a classifier's shares, else losses, and how far the run came."""
    forget, retain = trainer.forget_dataset, trainer.retain_dataset
    progress = progress_figures(trainer.evaluator.progress())
    if forget is None or retain is None:
        return {"after": progress}
    if "classifier" in trainer.objective.kinds:
        kept = first_of(retain)
        return _of_classifier(trainer, evaluation_sets(forget, kept, test, _whole_classes(forget, kept)), progress)
    losses = {"before": before} if before is not None else {}
    found = loss_metrics({**losses, "after": trainer.evaluate()}, trainer.eval_dataset)
    found["after"] |= progress
    return found


def _of_classifier(trainer: Any, sets: dict[str, Any], progress: dict[str, Metric]) -> Metrics:
    """The original's row is there where the trainer kept the original, as methods that match it do."""
    network, seed = trainer.objective.network, trainer.args.seed
    found: Metrics = {}
    if trainer.reference.original is not None:
        found["before"] = classifier_figures(trainer.reference.original.to(trainer.args.device), sets, seed=seed)
    found["after"] = {**classifier_figures(network, sets, seed=seed), **progress}
    return found


def _whole_classes(forget: Any, retain: Any) -> bool:
    """Whether no retain sample has a label of a forget sample."""
    labels = [labels_of(part) for part in (forget, retain)]
    return None not in labels and not set(labels[0] or []) & set(labels[1] or [])
