"""The record of a run: the layout of unlearning_report.json.

The card, the page and `hf-unlearn check` read nothing else. `reading` makes a record from the file, `recording` from a
trainer. The text beside each type is what docs/report_schema.md says of the field; further texts name the keys of a
mapping.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from ..common.files import write_text
from ..evaluation.metric import Metric, Role, role_of
from ..families.description import Description

RECORD_FILE = "unlearning_report.json"
SCHEMA_VERSION = 2
LogRow = dict[str, float | None]
STATES = (
    *("FORGOTTEN", "FORGOTTEN, NOT REMOVED", "PARTLY FORGOTTEN", "NOT FORGOTTEN", "BROKE THE REST", "NOT TESTED"),
)
FORGOTTEN, NOT_REMOVED, PARTLY_FORGOTTEN, NOT_FORGOTTEN, BROKE_THE_REST, NOT_TESTED = STATES


class MaskRow(NamedTuple):
    """One parameter of the mask."""

    parameter: str
    weights: int
    share: float


class AdapterRow(NamedTuple):
    """One layer of the adapter."""

    layer: str
    rank: int


@dataclass
class BaseModel:
    """The model that the run started from."""

    name: Annotated[str | None, "Hub id or folder name; null where the run built the model"]
    on_hub: Annotated[bool, "whether `name` is a Hub id"]
    revision: Annotated[str | None, "revision that was asked for"] = None
    licence: Annotated[dict[str, Any], "licence keys of its card; empty where the licence is not known", "key"] = (
        field(default_factory=dict)
    )
    weights: Annotated[
        str | None, "hash of the weights of its networks as they were loaded; null where no command made the run"
    ] = None


@dataclass
class MethodRecord:
    """The unlearning method."""

    name: Annotated[str, "name in `--method`"]
    options: Annotated[dict[str, Any], "every option of the method, under the name of its flag", "option"]
    paper: Annotated[str | None, "arXiv id; empty where there is no paper"] = None


@dataclass
class TrainingRecord:
    """How long and how fast."""

    outer_steps: Annotated[int | None, "outer steps that were taken"] = None
    learning_rate: Annotated[
        float | None, "learning rate of the retain steps; null where the run found its strength"
    ] = None
    batch_size: Annotated[int | None, "forget samples, and as many retain samples, in a step of all processes"] = None
    seed: Annotated[int | None, "random seed"] = None
    precision: Annotated[str | None, "`fp32`, `bf16` or `fp16`: what a step computed in"] = None
    planned_steps: Annotated[int | None, "outer steps that were planned; null where the run could not be extended"] = (
        None
    )
    extend_to: Annotated[int | None, "outer steps up to which it could be extended; null where it could not"] = None


@dataclass
class WeightsRecord:
    """Which weights were trained."""

    network: Annotated[str, "class of the trained network"]
    total: Annotated[int, "number of its weights, without those of an adapter"]
    trained: Annotated[str, "`all`, `part` or `adapter`"]
    trained_share: Annotated[float, "trained weights over `total`; those of an adapter count as trained"]
    trained_weights: Annotated[int | None, "number of the trained weights; null in older files"] = None
    moved_share: Annotated[
        float | None, "share of `total` that differs from the original; null where no original was kept to compare"
    ] = None
    stored: Annotated[
        str | None, "`bf16` or `fp16` where the files of the base model have that precision, as then the saved weights"
    ] = None
    load_in: Annotated[
        str | None, "the same where the model does not load without it: an adapter's base, or very large text encoders"
    ] = None


@dataclass
class DataRecord:
    """One part of the data."""

    samples: Annotated[int | None, "number of samples; null where they were not counted"]
    fingerprint: Annotated[str | None, "hash of the content, of 64 samples spread over it"]
    source: Annotated[str | None, "where the data comes from, in words or as a Hub id"]


@dataclass
class ClassRow:
    """One class: the share of its samples that each model gets right."""

    name: Annotated[str, "name of the class"]
    forget: Annotated[bool, "whether it was to be forgotten"]
    before: Annotated[float | None, "share of the original model"]
    after: Annotated[float | None, "share of the unlearned model"]
    retrained: Annotated[float | None, "share of a model retrained without the forgotten data"] = None

    def share(self, model: str) -> float | None:
        """The share of the model "before", "after" or "retrained"."""
        return {"before": self.before, "after": self.after, "retrained": self.retrained}[model]


@dataclass
class MaskRecord:
    """Which weights a forget step may move."""

    density: Annotated[
        float | None, "share of the trained weights that a forget step may move; null without a mask"
    ] = None
    drift: Annotated[
        float | None, "largest drift of any other weight in a forget step; null if it was not measured"
    ] = None
    layers: Annotated[list[MaskRow], "trained parameter, number of its weights, share of them in the mask"] = field(
        default_factory=list
    )
    every_step: Annotated[
        bool | None, "whether the mask holds for all steps and not for forget steps alone; null in older files"
    ] = None


@dataclass
class AdapterRecord:
    """The low-rank adapter that was trained."""

    rank: Annotated[int, "LoRA rank, or the average rank that the budget assumes"]
    scale: Annotated[float, "alpha over rank"]
    merged: Annotated[bool, "whether merged weights were saved"]
    weights: Annotated[int, "number of trained weights"]
    layers: Annotated[list[AdapterRow], "layer and its rank"] = field(default_factory=list)


@dataclass
class CostRecord:
    """What the run took."""

    seconds: Annotated[float | None, "time of the outer steps"] = None
    peak_memory_mb: Annotated[int | None, "peak memory of the process until the end of the run; of a GPU if any"] = (
        None
    )
    device: Annotated[str | None, "device that both were measured on"] = None


@dataclass
class HistoryEntry:
    """One thing that the model was made to forget."""

    forgotten: Annotated[str, "what was to be forgotten, in words"] = ""
    method: Annotated[str, "name of the method"] = ""
    outer_steps: Annotated[int | None, "outer steps that were taken"] = None
    date: Annotated[str, "day of the run, `YYYY-MM-DD`"] = ""
    hf_unlearn: Annotated[str, "version that ran"] = ""
    base_model: Annotated[str | None, "Hub id or folder name of the model it started from"] = None


@dataclass
class EnvironmentRecord:
    """What the run ran with."""

    hf_unlearn: Annotated[str, "version of hf_unlearn"] = ""
    packages: Annotated[str, "versions of the packages that it builds on"] = ""
    python: Annotated[str, "version of Python"] = ""


@dataclass(frozen=True)
class Outcome:
    """What a run came to, in one word and one sentence; `outcome.outcome` says it of a record."""

    state: Annotated[
        str,
        "`FORGOTTEN`, `FORGOTTEN, NOT REMOVED`, `PARTLY FORGOTTEN`, `NOT FORGOTTEN`, `BROKE THE REST` or `NOT TESTED` "
        "(docs/tuning.md)",
    ]
    evidence: Annotated[str, "the metric that the state rests on, with its 95 % interval if it is a share"]
    next: Annotated[str, "what to try next: a command, or an argument to change where no command made the run"] = ""

    @property
    def line(self) -> str:
        """All of it, as every place shows it first."""
        return f"{self.state}: {self.evidence}. Try: {self.next}" if self.next else f"{self.state}: {self.evidence}."


@dataclass
class RunRecord:
    """One run. The file has the fields under the same names."""

    family: Annotated[str, "class of the objective: `NoisePrediction`, `DiTPrediction`, `TextToImage`, ..."]
    library_name: Annotated[str, "library that loads the result: `diffusers`, `transformers` or `peft`"]
    pipeline_tag: Annotated[str, "the Hub's task"]
    forgotten: Annotated[str, "what was to be forgotten, in words"]
    base_model: Annotated[BaseModel, "the model that the run started from"]
    method: Annotated[MethodRecord, "the unlearning method"]
    training: Annotated[TrainingRecord, "how long and how fast"]
    data: Annotated[dict[str, DataRecord], "parts `forget`, `retain` and sometimes `test`", "part"]
    figures: Annotated[
        dict[str, dict[str, Metric]], "metrics of the models `before`, `after` and `retrained`", "model", "metric"
    ]
    weights: Annotated[WeightsRecord | None, "which weights were trained; null in files of schema 1"] = None
    objective: Annotated[Description | None, "what the objective did; null in files of schema 1"] = None
    per_class: Annotated[list[ClassRow], "a row for each class"] = field(default_factory=list)
    log: Annotated[list[LogRow], "rows of the training log, each with `step` and `loss`"] = field(default_factory=list)
    mask: Annotated[MaskRecord, "which weights a forget step may move"] = field(default_factory=MaskRecord)
    cost: Annotated[CostRecord, "what the run took"] = field(default_factory=CostRecord)
    history: Annotated[list[HistoryEntry], "what the model was made to forget, this run last"] = field(
        default_factory=list
    )
    picture: Annotated[str | None, "file beside this one with samples before and after"] = None
    environment: Annotated[EnvironmentRecord, "what the run ran with"] = field(default_factory=EnvironmentRecord)
    loads_with: Annotated[list[str], "classes whose `from_pretrained` loads the result, that of the model first"] = (
        field(default_factory=list)
    )
    adapter: Annotated[AdapterRecord | None, "the trained adapter; null where the network's own weights moved"] = None
    created: Annotated[str, "day of the run, `YYYY-MM-DD`"] = ""
    forgets: Annotated[
        str | None, "what was to be forgotten is a `class`, some `samples` or a `concept`; null in older files"
    ] = None
    command: Annotated[
        list[str] | None, "words of the command that made the run, without secrets; null where Python did"
    ] = None
    outcome: Annotated[Outcome | None, "what the run came to; null in older files"] = None
    schema_version: Annotated[int, f"version of this layout: {SCHEMA_VERSION}"] = SCHEMA_VERSION

    def value(self, model: str, metric: str) -> float | None:
        """The value of a metric, or None where it was not measured."""
        found = self.figures.get(model, {}).get(metric)
        return None if found is None else found.value

    def role(self, metric: str) -> Role:
        """The role that the metric itself names, else that of its name (`role_of`)."""
        named = (row[metric].role for row in self.figures.values() if metric in row)
        return next((role for role in named if role is not None), role_of(metric))

    def measured(self, figures: dict[str, dict[str, Metric]]) -> "RunRecord":
        """The same run with these metrics, {"before": {name: Metric}, "after": ...}, and no outcome yet."""
        return replace(self, figures={model: dict(row) for model, row in figures.items()}, outcome=None)

    def write(self, folder: str | Path) -> Path:
        """Write RECORD_FILE to `folder` and return its path. A value that is not finite is null."""
        path = Path(folder) / RECORD_FILE
        write_text(path, json.dumps(_finite(asdict(self)), indent=1, allow_nan=False))
        return path


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
