"""How to load a result and how to make it again: snippets for the card and the page."""

import re
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..methods import METHODS
from .card_text import generation_call, scheduler_class
from .record import RunRecord

TEMPLATE = Path(__file__).parent / "templates" / "use.md"
DTYPES = {"bf16": "torch.bfloat16", "fp16": "torch.float16"}  # diffusers loads float32 unless it is told
UNUSUAL = "# default:"  # before the default of an option that has another value
PRECISIONS = {"bf16": "bf16", "fp16": "fp16"}  # of a record -> of --mixed_precision


def loading(record: RunRecord, name: str) -> str:
    """Markdown with Python that loads the result and, where that was measured, generates as for the metrics.

    Args:
        name: the repository's id or the folder's name.

    Raises:
        ValueError: the record names what is no class, or lacks what the snippet says.
    """
    import jinja2

    foreign = [kind for kind in record.loads_with if not kind.isidentifier()]
    if foreign:
        raise ValueError(f"loads_with names {foreign[0]!r}, which is no class")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    said = dict(
        run=record,
        base=record.base_model,
        name=name,
        kind="classifier" if record.pipeline_tag == "image-classification" else "generator",
        call=generation_call(record),
        dtype=None if record.weights is None else DTYPES.get(record.weights.load_in or ""),
        scheduler=scheduler_class(record),
    )
    try:
        return template.render(said).strip()
    except jinja2.UndefinedError as error:
        raise ValueError(f"the record lacks what a card says: {error}") from error


def code_blocks(text: str) -> list[str]:
    """The Python of a snippet, a block each."""
    return [block.strip() for block in re.findall(r"```python\n(.*?)```", text, re.S)]


def command_of(record: RunRecord) -> str:
    """The command that made the run; "" where Python did."""
    return shlex.join(record.command) if record.command else ""


def recipe_flags(record: RunRecord) -> list[str]:
    """Everything that a person would set again, a flag with its value each: the training, then the method.

    A value that the run found for itself has no flag. An option of the method that is not its default says so.
    """
    training = record.training
    values: dict[str, Any] = {
        "method": record.method.name,
        "max_train_steps": training.planned_steps or training.outer_steps,
        "extend_to": training.extend_to,
        "learning_rate": training.learning_rate,
        "train_batch_size": training.batch_size,
        "seed": training.seed,
        "mixed_precision": PRECISIONS.get(training.precision or ""),
        **record.method.options,
    }
    usual = usual_options(record.method.name)
    lines = []
    for name, value in values.items():
        if value is not None:
            other = name in usual and _word(usual[name]) != _word(value)
            lines.append(f"--{name} {_word(value)}" + (f"  {UNUSUAL} {_word(usual[name])}" if other else ""))
    return lines


def usual_options(method: str) -> dict[str, Any]:
    """The options of a method as it is without any; {} of one that is not of this package or needs some."""
    kind = METHODS.get(method)
    try:
        return {} if kind is None else asdict(kind())
    except (TypeError, ValueError):
        return {}


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return " ".join(map(_word, value))
    return f"{value:g}" if isinstance(value, float) else shlex.quote(" ".join(str(value).split()))
