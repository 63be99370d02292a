"""The options that a search chose, and the commands that use them again."""

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..common.files import write_text
from ..evaluation.tables import markdown_table
from .budget import steps_of
from .recipe import Recipe
from .rows import RATE, fixed_of, method_of, parts_of, row_with

INDICES = "forget_indices.txt"


def repeats(
    recipe: Recipe, searched: dict[str, dict[str, Any]], sizes: tuple[int, int], command: str, folder: Path
) -> str:
    """Markdown: for each row what it fixes and what was chosen, and the command that repeats it; add it to `searched`.

    Args:
        folder: of the results; the positions to forget are written there, where the recipe names some.
        searched: what `search` returned, by row.
        sizes: numbers of forget and of retain samples.
        command: reads the recipe.
    """
    rows, lines = [], []
    if "indices" in recipe.forget:
        write_text(folder / INDICES, "".join(f"{position}\n" for position in recipe.forget["indices"]))
    for row, found in searched.items():
        found["fixed"], found["command"] = fixed_of(row), compare_command(command, row, found["options"])
        defaults = " (the defaults)" if found["default"] else ""
        beyond = f" ({found['excess']:.2f} over the limit)" if found["excess"] else ""
        rows.append([row, _said(found["fixed"]), _said(found["values"]) + defaults, f"{found['gap']:.2f}{beyond}"])
        lines.append(found["command"])
        if recipe.original:
            found["classify"] = classify_command(recipe, row, found["options"], sizes, folder)
            lines.append(found["classify"])
    table = markdown_table(["method", "the row fixes", "the search chose", "gap in the search"], rows)
    again = "\n".join(lines)
    return f"What was searched on the validation split:\n\n{table}\n\nEach row again:\n\n```bash\n{again}\n```\n"


def compare_command(command: str, row: str, options: dict[str, Any]) -> str:
    """`command` for one row without a search: its only trial is the row, which fixes `options`."""
    return f"{command} --methods {shlex.quote(row_with(row, options))} --trials 1"


def classify_command(recipe: Recipe, row: str, options: dict[str, Any], sizes: tuple[int, int], folder: Path) -> str:
    """The run on the given original that saves the unlearned model, with the first seed or that of the subset."""
    name, preset, fixed = parts_of(row)
    seed, forget = recipe.forget.get("seed", recipe.seeds[0]), recipe.forget
    flags: dict[str, Any] = {
        "pretrained_model_name_or_path": recipe.original,
        "retrained_model": recipe.retrained,
        "train_data_dir" if Path(recipe.data).is_dir() else "dataset_name": recipe.data,
        "image_column": recipe.image_column,
        "label_column": recipe.label_column,
        "forget_class": forget.get("classes"),
        "forget_fraction": forget.get("fraction"),
        "forget_indices": str(folder / INDICES) if "indices" in forget else None,
        "method": name,
        "preset": preset or None,
        "max_train_steps": steps_of(recipe, row, options, *sizes),
        "train_batch_size": recipe.batch_size,
        "seed": seed,
    }
    if recipe.fisher_samples is not None and "fisher_samples" in {f.name for f in fields(method_of(row, {}))}:
        flags["fisher_samples"] = recipe.fisher_samples
    flags |= {option: value for option, value in {**fixed, **options}.items() if option != RATE}
    if RATE in {**fixed, **options}:
        flags[RATE] = {**fixed, **options}[RATE]
    words = ["hf-unlearn", "classify"]
    for flag, value in flags.items():
        if value is not None:
            words += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def _said(options: dict[str, Any]) -> str:
    """Options as words, rounded for the eye; the commands have all digits."""
    return ", ".join(f"{n}={f'{v:.3g}' if isinstance(v, float) else v}" for n, v in options.items())
