"""The record of a trainer whose training is over."""

import platform
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..common.precisions import HALF, name_of, stored_precision, too_large_in_full
from ..data.fingerprint import fingerprint
from ..data.pairs import labels_of
from ..data.streaming import RetainStream
from ..evaluation.metric import Metric, is_attack, version_of
from ..hub.origin import describe_base
from ..saving.adapters import adapter_ranks
from .outcome import judged
from .reading import from_json
from .record import (
    AdapterRecord,
    AdapterRow,
    BaseModel,
    ClassRow,
    CostRecord,
    DataRecord,
    EnvironmentRecord,
    HistoryEntry,
    MaskRecord,
    MaskRow,
    MethodRecord,
    RunRecord,
    TrainingRecord,
    WeightsRecord,
)

TAGS = {"text to image": "text-to-image", "classifier": "image-classification"}


def record_run(
    trainer: Any,
    forgotten: str,
    figures: dict[str, dict[str, Metric]],
    base_model: str | None = None,
    revision: str | None = None,
    sources: dict[str, str] | None = None,
    per_class: Sequence[dict[str, Any]] = (),
    picture: str | None = "before_after.png",
    forgets: str | None = None,
    command: Sequence[str] | None = None,
) -> RunRecord:
    """Make the record of a trainer whose `train` is over.

    Args:
        forgotten: what was to be forgotten, in words.
        figures: metrics, {"before": {name: Metric}, "after": ...}.
        base_model: folder or Hub id; by default where the trained model was loaded from.
        sources: where the forget and the retain data come from, and those of the metrics where they are others, in
            words or as Hub ids. Folder paths are cut to their last part, because the record may be published.
        per_class: rows of `class_rows`.
        forgets: "class", "samples" or "concept"; by default what model and labels say: a class where no retain sample
            has a label of a forget sample.
        command: words of the command that made the run, without secrets. Paths in it are cut too.

    Returns:
        The record with its `outcome`.
    """
    objective, method = trainer.objective, trainer.method
    tag = next((TAGS[k] for k in reversed(objective.kinds) if k in TAGS), "unconditional-image-generation")
    library = "transformers" if tag == "image-classification" else "diffusers"
    log, masks, adapter = trainer.calls.rows(trainer.state), trainer.masks, objective.adapter
    forget = trainer.forget_dataset
    run = RunRecord(
        family=type(objective).__name__,
        library_name=library if adapter is None or adapter.merge else "peft",
        pipeline_tag=tag,
        forgotten=forgotten,
        base_model=BaseModel(**describe_base(base_model or objective.base_model, revision)),
        method=MethodRecord(method.name, asdict(method), method.paper),
        training=_training(trainer),
        data=_data({"forget": forget, "retain": trainer.retain_dataset}, sources or {}),
        figures={},
        weights=_weights(trainer),
        objective=objective.describe(labels_of(forget) or [] if forget is not None else []),
        adapter=None if adapter is None else _adapter(objective),
        per_class=[ClassRow(**row) for row in per_class],
        log=[row for row in log if "loss" in row],
        mask=MaskRecord(
            density=masks.density if masks is not None else None,
            drift=trainer.verify_mask(),
            layers=[MaskRow(*row) for row in masks.table()] if masks is not None else [],
            every_step=method.masks_every_step if masks is not None else None,
        ),
        cost=_cost(sum(row.get("train_runtime", 0.0) for row in log), trainer.args.device),
        history=[from_json(HistoryEntry, row, f"history[{i}]") for i, row in enumerate(trainer.history)],
        picture=picture,
        environment=EnvironmentRecord(
            __version__,
            version_of("torch", "transformers", "diffusers", "accelerate", "peft"),
            platform.python_version(),
        ),
        loads_with=objective.loads_with,
        created=str(date.today()),
        forgets=forgets or _forgets(trainer),
        command=None if command is None else public_command(command),
    )
    return judged(run.measured(figures))


def remeasured(
    record: RunRecord, figures: dict[str, dict[str, Metric]], command: Sequence[str] | None = None
) -> RunRecord:
    """The record of a finished run that was measured again, perhaps by a command with other flags.

    What attacks found stays: they were on the same weights.
    """
    attacks = {name: metric for name, metric in record.figures.get("after", {}).items() if is_attack(name)}
    figures = {**figures, "after": {**figures.get("after", {}), **attacks}} if attacks else figures
    return judged(replace(record, command=public_command(command) if command else record.command).measured(figures))


def _forgets(trainer: Any) -> str:
    """Whether a concept, whole classes or some samples of classes that stay were to be forgotten."""
    if "text to image" in trainer.objective.kinds:
        return "concept"
    parts = (trainer.forget_dataset, trainer.retain_dataset)
    forget, retain = (None if part is None else labels_of(part) for part in parts)
    return "class" if forget and retain and not set(forget) & set(retain) else "samples"


def public_command(words: Sequence[str]) -> list[str]:
    """A command whose paths say no more about a machine than `_public` lets them: absolute ones, those from the home
    folder and those that lead upwards are cut to their last part. Others are needed to run it again as it was."""
    return [_cut(word) for word in words]


def _cut(word: str) -> str:
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    path = Path(value)
    far = value.startswith(("~", "../")) or (path.is_absolute() and len(path.parts) > 2)
    return f"{flag}{equals}{path.name}" if far else word


def _training(trainer: Any) -> TrainingRecord:
    args = trainer.args
    longer = trainer.step.strength is not None and args.extend_to > args.max_steps > 0
    return TrainingRecord(
        outer_steps=trainer.outer_steps,
        learning_rate=None if trainer.step.strength is not None else args.learning_rate,
        batch_size=args.train_batch_size * args.world_size,
        seed=args.seed,
        precision=trainer.step.precision,
        planned_steps=args.max_steps if longer else None,
        extend_to=args.extend_to if longer else None,
    )


def _data(parts: dict[str, Any], sources: dict[str, str]) -> dict[str, DataRecord]:
    """The parts of the training data, and those that only `sources` names."""
    data = {name: DataRecord(None, None, _public(source)) for name, source in sources.items()}
    for name, part in parts.items():
        if part is not None:
            count = None if isinstance(part, RetainStream) else len(part)
            source = data[name].source if name in data else None
            data[name] = DataRecord(count, fingerprint(part), source)
    return data


def _weights(trainer: Any) -> WeightsRecord:
    """How much of the network is trained, and how much of it moved if the trainer kept the original."""
    network, adapter = trainer.objective.network, trainer.objective.adapter
    sizes = {name: p.numel() for name, p in network.named_parameters()}
    free = {name for name, p in network.named_parameters() if p.requires_grad}
    trained = sum(sizes[name] for name in free)
    total = sum(sizes.values()) - (trained if adapter is not None else 0)
    moved = None
    # Sharded weights could be compared by all processes together only, and one process writes the record.
    low = trainer.args.original_precision != "fp32"
    if adapter is None and trainer.reference.original is not None and not (trainer.is_fsdp_enabled or low):
        old = dict(trainer.reference.original.named_parameters())
        pairs = [(p.detach(), old[name].to(p.device)) for name, p in network.named_parameters() if name in free]
        moved = sum(int((new != before).sum()) for new, before in pairs) / total
    kind = "adapter" if adapter is not None else "all" if trained == total else "part"
    dtype = stored_precision(network)
    stored = name_of(dtype) if dtype in HALF else None
    load_in = stored if adapter is not None or too_large_in_full(trainer.objective.exported) else None
    return WeightsRecord(type(network).__name__, total, kind, trained / total, trained, moved, stored, load_in)


def _adapter(objective: Any) -> AdapterRecord:
    """How large the adapter is, and where."""
    config, ranks = objective.adapter.config, adapter_ranks(objective)
    return AdapterRecord(
        rank=config.r,
        scale=config.lora_alpha / config.r,
        merged=objective.adapter.merge,
        weights=sum(p.numel() for p in objective.network.parameters() if p.requires_grad),
        layers=[AdapterRow(name, rank) for name, rank in ranks.items()],
    )


def _public(source: str) -> str:
    """A folder's last part: the rest of a path says more about a machine than about the data."""
    return Path(source).resolve().name if Path(source).exists() else source


def _cost(seconds: float, device: Any) -> CostRecord:
    """Time, peak memory so far, and what they were measured on."""
    if torch.device(device).type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
        return CostRecord(seconds, round(peak), torch.cuda.get_device_name(device))
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return CostRecord(
        seconds,
        round(peak),
        f"{platform.machine()} CPU, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}",
    )
