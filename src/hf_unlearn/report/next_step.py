"""What to try after a run: its own command with one thing changed, or the argument to change where Python made it."""

import shlex
from collections.abc import Sequence

from ..methods import METHODS
from .reading_figures import Reading, is_number
from .record import BROKE_THE_REST, FORGOTTEN, NOT_FORGOTTEN, NOT_REMOVED, NOT_TESTED, RunRecord
from .retained import only_the_anchor

# Flag -> its other spelling on the command line, and the argument of the API.
STEPS, RATE, SEED = "max_train_steps", "learning_rate", "seed"
ALIASES = {STEPS: "max_steps"}
OWN_STRENGTH = "sfron"  # the method that needs no learning rate
CROSS_ATTENTION = "attn2"  # in the names of those layers
GENTLER, STRONGER, MORE_STEPS = 3, 10, 3
DRIFT = "max_retain_drift"
ENOUGH = {"text-to-image": ("num_eval_images", "32"), "generator": ("eval_samples_per_class", "100")}


def next_step(record: RunRecord, state: str, read: Reading, diverged: bool = False) -> str:
    """What to try: "hf-unlearn sd ... --max_train_steps 300", or for Python "the same with max_steps=300"."""
    if state == NOT_TESTED:
        return _test_it(record, read.lacks)
    words = record.command or []
    if state in (NOT_FORGOTTEN, BROKE_THE_REST) and record.method.name == OWN_STRENGTH and given(words, RATE):
        return shlex.join(without_flag(words, RATE))  # it finds its own strength
    if read.lacks == "prompts" and state != BROKE_THE_REST:
        return "the same with more prompts that differ as the held-out ones do (prompt_templates)"
    if state == FORGOTTEN:
        return with_flags(record, {SEED: f"{(record.training.seed or 0) + 1}"})
    if (state == NOT_REMOVED or only_the_anchor(record)) and (deeper := _deeper(record)):
        return with_flags(record, deeper)
    method = METHODS.get(record.method.name)
    if method is not None and not method.trains:  # an edit has neither rate nor steps
        return with_flags(record, {"method": OWN_STRENGTH})
    return with_flags(record, _strength(record, state, read, diverged))


def _deeper(record: RunRecord) -> dict[str, str]:
    """All layers in the place of some: those that draw the thing have not moved. Empty where all of them did."""
    layers = [] if record.adapter is None else [row.layer for row in record.adapter.layers]
    if layers and all(CROSS_ATTENTION in layer for layer in layers):
        return {"lora_select": "all"}
    part = record.objective.train_method if record.objective is not None else None
    return {"train_method": "full"} if part not in (None, "full") and not layers else {}


def _strength(record: RunRecord, state: str, read: Reading, diverged: bool) -> dict[str, str]:
    """More or less of it: by the learning rate where the run had one, else by steps and the limit on drift."""
    found = record.method.options.get("strength") == "auto"  # a method that finds its strength took no rate
    rate, steps = None if found else record.training.learning_rate, record.training.outer_steps or 1
    longer = {STEPS: f"{MORE_STEPS * steps}"}
    if state == BROKE_THE_REST:
        if found:  # the plan is the same for every number of steps, so few of them are long ones
            return longer
        if not rate:
            drift = record.value("after", "retain_drift")
            return {DRIFT: f"{drift / 2:.2g}" if is_number(drift) and drift > 0 else "0.05"}
        gentler = {RATE: f"{rate / (STRONGER if diverged else GENTLER):.3g}"}
        return {**gentler, **longer} if read.state == NOT_FORGOTTEN else gentler
    if read.lacks == "less":
        return {STEPS: f"{max(1, steps // 2)}"}
    if state == NOT_FORGOTTEN and rate:
        return {RATE: f"{STRONGER * rate:.3g}"}
    return longer


def _test_it(record: RunRecord, lacks: str) -> str:
    """What would have tested it."""
    family = record.pipeline_tag if record.pipeline_tag in ("text-to-image", "image-classification") else "generator"
    if lacks == "samples" and record.command and family in ENOUGH:
        return with_flags(record, dict([ENOUGH[family]]))
    if lacks == "samples":
        return "the same with 30 of them or more"
    if lacks == "detector":
        return with_flags(record, {"safety_detector": "open_nsfw"})
    if lacks == "held_out":
        return with_flags(record, {"validation_data_dir": "FOLDER"})
    if lacks == "classifier" and family == "text-to-image":
        return with_flags(record, {"clip_model": "FOLDER"})
    if lacks == "classifier" and family == "generator" and given(record.command or [], ENOUGH[family][0]):
        return with_flags(record, dict([ENOUGH[family]]))  # it was 0
    if lacks == "classifier" and family == "generator" and record.forgets != "samples":
        return with_flags(record, {"classifier_model_name_or_path": "FOLDER"})
    if lacks == "shown":
        return _shown(record, family)
    return 'the metrics of "before" and "after" in record_run' if lacks in ("before", "value") else "look at samples"


def _shown(record: RunRecord, family: str) -> str:
    """How to ask the original for something that it knows."""
    if family == "text-to-image":
        return with_flags(record, {"eval_prompts": "FILE"})
    if family == "generator":
        return "samples of a class that the original generates"
    return "samples that the original was trained on longer, or has by heart"


# ---- commands --------------------------------------------------------------------------------
def with_flags(record: RunRecord, flags: dict[str, str]) -> str:
    """The command of the run with these flags, or the same as arguments of Python."""
    if not record.command:
        return f"the same with {' and '.join(f'{ALIASES.get(name, name)}={value}' for name, value in flags.items())}"
    words = list(record.command)
    for name, value in flags.items():
        words = with_flag(words, name, value)
    return shlex.join(words)


def with_flag(words: Sequence[str], name: str, value: str) -> list[str]:
    """A command with --name value, in place of what it gave for the flag under any of its spellings."""
    return [*without_flag(words, name), f"--{name}", value]


def without_flag(words: Sequence[str], name: str) -> list[str]:
    """A command without a flag, under any of its spellings, and its values."""
    kept, dropping = [], False
    for word in words:
        dropping = _flag(word) in _spellings(name) if word.startswith("--") else dropping
        if not dropping:
            kept.append(word)
    return kept


def given(words: Sequence[str], name: str) -> bool:
    """Whether a command gives a flag, under any of its spellings."""
    return any(word.startswith("--") and _flag(word) in _spellings(name) for word in words)


def _flag(word: str) -> str:
    return word[2:].partition("=")[0].replace("-", "_")


def _spellings(name: str) -> tuple[str, str]:
    return name, ALIASES.get(name, name)
