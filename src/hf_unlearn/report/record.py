"""What a run recorded, as one JSON file: the card, the report and `hf-unlearn check` read nothing else."""

import json
import platform
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date
from pathlib import Path
from types import UnionType
from typing import Any, get_origin

import torch

from .. import __version__
from ..common.files import write_text
from ..common.untrusted import read_json
from ..data.fingerprint import fingerprint
from ..data.streaming import RetainStream
from ..evaluation.metric import Metric, version_of
from ..hub.origin import describe_base
from ..saving.adapters import adapter_ranks
from .schema import PARTS, problem

RECORD_FILE = "unlearning_report.json"
SCHEMA_VERSION = 1
TAGS = {"text to image": "text-to-image", "classifier": "image-classification"}


@dataclass
class RunRecord:
    """One run. All fields are what `json` holds; the file has them under the same names.

    schema_version: of this layout; a reader refuses a newer one.
    family: the objective's class name, e.g. NoisePrediction. library_name: diffusers, transformers or peft.
    pipeline_tag: the Hub's task.
    forgotten: in words, e.g. "class 3".
    adapter: rank, scale, merged, weights, layers [[name, rank], ...]; empty where all weights were trained.
    loads_with: names of the classes whose `from_pretrained` loads the result, that of the model first.
    base_model: name (Hub id or folder name; None for a model built by the run), revision, on_hub, licence (the licence
        keys of its card, none if it is unknown).
    method: name, paper (arXiv id), options. training: outer_steps, learning_rate, batch_size, seed, precision.
    data: {"forget", "retain", maybe "test"} -> samples, fingerprint (content hash), source in words; None: unknown.
    figures: {"before", "after", maybe "retrained"} -> {figure: a Metric's fields}.
    per_class: rows of name, forget (bool), before, after, maybe retrained: shares, for bars.
    log: rows of the training log, with `step`.
    mask: density (None without mask), drift outside it (None if not measured), layers: rows of parameter, weights,
        share.
    cost: seconds of the outer steps, peak_memory_mb of the process so far, device.
    history: what was forgotten before and now, oldest first.
    """

    family: str
    library_name: str
    pipeline_tag: str
    forgotten: str
    base_model: dict[str, Any]
    method: dict[str, Any]
    training: dict[str, Any]
    data: dict[str, Any]
    figures: dict[str, dict[str, dict[str, Any]]]
    per_class: list[dict[str, Any]] = field(default_factory=list)
    log: list[dict[str, float]] = field(default_factory=list)
    mask: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    picture: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    loads_with: list[str] = field(default_factory=list)
    adapter: dict[str, Any] = field(default_factory=dict)
    created: str = ""
    schema_version: int = SCHEMA_VERSION

    def figure(self, model: str, name: str) -> float | None:
        """A value, or None where it was not measured."""
        return self.figures.get(model, {}).get(name, {}).get("value")

    def measured(self, figures: dict[str, dict[str, Metric]]) -> "RunRecord":
        """The same run with these figures: {"before": {name: Metric}, "after": ...}."""
        values = {model: {name: m.as_dict() for name, m in row.items()} for model, row in figures.items()}
        return replace(self, figures=values)

    def write(self, folder: str | Path) -> Path:
        """Write RECORD_FILE to `folder` and return its path. A value that is not finite is null."""
        path = Path(folder) / RECORD_FILE
        write_text(path, json.dumps(_finite(asdict(self)), indent=1, allow_nan=False))
        return path


def read_record(folder: str | Path) -> RunRecord:
    """The record of a finished run.

    Raises:
        ValueError: there is none, it is not readable, or it was written by a newer version.
    """
    path = Path(folder) / RECORD_FILE
    if not path.is_file():
        raise ValueError(f"{folder} holds no {RECORD_FILE}: give the output folder of a finished run")
    try:
        values = read_json(path)
        version = values["schema_version"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is not a record of a run: {error}") from error
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ValueError(f"{path} has schema {version}, this version reads {SCHEMA_VERSION}: upgrade hf-unlearn")
    known = {
        f.name: f.type if isinstance(f.type, UnionType) else get_origin(f.type) or f.type for f in fields(RunRecord)
    }
    wrong = [n for n, kind in known.items() if n in values and not isinstance(values[n], kind)]
    if wrong:
        raise ValueError(f"{path} is not a record of a run: {wrong[0]} is a {type(values[wrong[0]]).__name__}")
    for name, shape in PARTS.items():
        said = problem(values.get(name), shape, name) if values.get(name) or name in ("base_model", "method") else ""
        if said:
            raise ValueError(f"{path} is not a record of a run: {said}")
    try:
        return RunRecord(**{name: value for name, value in values.items() if name in known})
    except TypeError as error:
        raise ValueError(f"{path} is not a record of a run: {error}") from error


def record_run(
    trainer: Any,
    forgotten: str,
    figures: dict[str, dict[str, Metric]],
    base_model: str | None = None,
    revision: str | None = None,
    sources: dict[str, str] | None = None,
    per_class: Sequence[dict[str, Any]] = (),
    picture: str | None = "before_after.png",
) -> RunRecord:
    """The record of a trainer whose `train` is over.

    Args:
        forgotten: what, in words. figures: {"before": {name: Metric}, "after": ...}. base_model: folder or Hub id,
        default where the trained model was loaded from. sources: where the forget and the retain data come from, and
        those of the figures where they are others, in words or as Hub ids; folder paths are cut to their last part,
        which may be published.
    """
    objective, method, args = trainer.objective, trainer.method, trainer.args
    tag = next((TAGS[k] for k in reversed(objective.kinds) if k in TAGS), "unconditional-image-generation")
    log = trainer.state.log_history
    masks = trainer.masks
    parts = {"forget": trainer.forget_dataset, "retain": trainer.retain_dataset}
    data = {n: {"samples": None, "fingerprint": None, "source": _public(s)} for n, s in (sources or {}).items()}
    for name, part in parts.items():
        if part is not None:
            count = None if isinstance(part, RetainStream) else len(part)
            measured = {"samples": count, "fingerprint": fingerprint(part)}
            data[name] = {"source": None, **data.get(name, {}), **measured}
    library = "transformers" if tag == "image-classification" else "diffusers"
    adapter = objective.adapter
    run = RunRecord(
        family=type(objective).__name__,
        library_name=library if adapter is None or adapter.merge else "peft",
        pipeline_tag=tag,
        forgotten=forgotten,
        base_model=describe_base(base_model or objective.base_model, revision),
        method={"name": method.name, "paper": method.paper, "options": asdict(method)},
        training={
            "outer_steps": trainer.state.global_step,
            "learning_rate": args.learning_rate,
            "batch_size": args.train_batch_size * args.world_size,
            "seed": args.seed,
            "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        },
        data=data,
        figures={},
        adapter={} if adapter is None else _adapter(objective),
        per_class=list(per_class),
        log=[row for row in log if "loss" in row],
        mask={
            "density": masks.density if masks is not None else None,
            "drift": trainer.verify_mask(),
            "layers": [list(row) for row in masks.table()] if masks is not None else [],
        },
        cost={"seconds": sum(row.get("train_runtime", 0.0) for row in log), **_machine(args.device)},
        history=trainer.history,
        picture=picture,
        environment={
            "hf_unlearn": __version__,
            "packages": version_of("torch", "transformers", "diffusers", "accelerate", "peft"),
            "python": platform.python_version(),
        },
        loads_with=objective.loads_with,
        created=str(date.today()),
    )
    return run.measured(figures)


def _adapter(objective: Any) -> dict[str, Any]:
    """How large the adapter is, and where."""
    config, ranks = objective.adapter.config, adapter_ranks(objective)
    return {
        "rank": config.r,
        "scale": config.lora_alpha / config.r,
        "merged": objective.adapter.merge,
        "weights": sum(p.numel() for p in objective.network.parameters() if p.requires_grad),
        "layers": [[name, rank] for name, rank in ranks.items()],
    }


def _public(source: str) -> str:
    """A folder's last part: the rest of a path says more about a machine than about the data."""
    return Path(source).resolve().name if Path(source).exists() else source


def _machine(device: Any) -> dict[str, Any]:
    """Peak memory so far, and what it was measured on."""
    if torch.device(device).type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
        return {"peak_memory_mb": round(peak), "device": torch.cuda.get_device_name(device)}
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {"peak_memory_mb": round(peak), "device": f"{platform.machine()} CPU, {torch.get_num_threads()} threads"}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
