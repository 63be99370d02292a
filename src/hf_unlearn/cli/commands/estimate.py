"""hf-unlearn estimate MODEL: memory and time of a run on this machine, before anything starts."""

import copy
import json
from typing import TYPE_CHECKING, Any

from ...common.limits import check_limits
from ..terminal import CommandParser

if TYPE_CHECKING:
    from ..estimates import Memory
    from ..times import Times

WORDS = {"full": "all weights", "masked": "masks", "lora": "an adapter"}
PATIENCE = 20.0  # seconds that one forward and backward may take


def estimate_command(argv: list[str]) -> None:
    """hf-unlearn estimate MODEL"""
    flags = _parser().parse_args(argv)
    counts = dict.fromkeys(("batch_size", "size", "retain_steps", "fisher_batch_size", "rank"), "[1, inf)")
    check_limits(flags, **counts, slow_rate="(0, 1]", rank_budget="(0, 1]", memory_gb="(0, inf)")
    found = estimate(flags)
    print(json.dumps(found) if flags.json else table(found))


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="hf-unlearn estimate",
        allow_abbrev=False,
        description="Estimate memory and time of an outer step of sfron with all weights, with masks, and with an "
        "adapter. Reads the model's configuration, not its weights.",
    )
    parser.add_argument("model", help="DDPM, DiT or Stable Diffusion pipeline or image classifier: folder or Hub id.")
    parser.add_argument("--revision", help="Hub revision of the model.")
    parser.add_argument(
        "--batch_size",
        type=int,
        help="Forget samples, and retain samples, per device; the default is that of the command for such a model.",
    )
    parser.add_argument("--size", type=int, help="Height and width that the network sees; the default is its own.")
    parser.add_argument("--retain_steps", type=int, default=2, help="Retain steps per outer step; the default is 2.")
    parser.add_argument("--retain_loss", choices=("match", "data"), default="match", help="The default is match.")
    parser.add_argument(
        "--forget_optim", choices=("separate", "shared"), default="separate", help="The default is separate."
    )
    parser.add_argument(
        "--slow_rate", type=float, default=1.0, help="Rate of the merge; below 1 there are slow weights."
    )
    parser.add_argument("--offload", action="store_true", help="Keep the original and slow weights on the host.")
    parser.add_argument("--fisher_batch_size", type=int, default=32, help="Samples per chunk of the Fisher pass.")
    parser.add_argument("--rank", type=int, default=4, help="LoRA rank; the default is 4.")
    parser.add_argument(
        "--rank_budget", type=float, default=0.5, help="Share of that rank on all layers; the default is 0.5."
    )
    parser.add_argument(
        "--train_method",
        choices=("full", "xattn", "noxattn", "selfattn"),
        help="Weights of a text-to-image model to train, as t2i takes them.",
    )
    parser.add_argument(
        "--lora_select", choices=("saliency", "all", "xattn"), default="saliency", help="The default is saliency."
    )
    parser.add_argument(
        "--base_precision",
        choices=("fp32", "bf16", "fp16", "nf4", "int8"),
        help="Precision of the frozen weights under an adapter; the default is that of their files.",
    )
    parser.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"), default="no", help="The default is no.")
    parser.add_argument("--gradient_checkpointing", action="store_true", help="Activations are computed twice.")
    parser.add_argument("--use_8bit_adam", action="store_true", help="Adam's moments in 8 bits.")
    parser.add_argument("--masked_moments", action="store_true", help="Forget moments of the weights in the mask.")
    parser.add_argument("--bf16_weights", action="store_true", help="Trained weights and gradients in bf16.")
    parser.add_argument(
        "--original_precision",
        choices=("fp32", "bf16", "fp16", "nf4", "int8"),
        default="fp32",
        help="Precision of the frozen original beside all weights.",
    )
    parser.add_argument("--memory_gb", type=float, help="Memory to fit, in GB; the default is what is free.")
    parser.add_argument("--no_time", action="store_true", help="Estimate memory only; nothing is run.")
    parser.add_argument("--json", action="store_true", help="Print it as JSON.")
    return parser


def usual_batch(name_or_path: str, revision: str | None = None) -> int:
    """The default --train_batch_size of the command that unlearns such a model."""
    from ...families.load import DIT, TEXT_TO_IMAGE, pipeline_class
    from ..flags import TrainingFlags
    from .dit import DiTFlags
    from .t2i import DiffusionFlags

    kind = pipeline_class(name_or_path, revision)
    flags = DiTFlags if kind in DIT.classes else DiffusionFlags if kind in TEXT_TO_IMAGE.classes else TrainingFlags
    return flags().train_batch_size


def estimate(flags: Any) -> dict[str, Any]:
    """{"model", "parameters", "batch_size", "device", "free_bytes", "modes": {mode: parts, peak, seconds, ...}}."""
    from ...common.bars import phase
    from ...methods import SFRon
    from ..estimates import MODES, Saving, adapted, device_at_hand, free_bytes, memory, outline
    from ..lean import first_fit, trained_by

    flags.batch_size = flags.batch_size or usual_batch(flags.model, flags.revision)
    options = ("retain_steps", "retain_loss", "forget_optim", "slow_rate", "fisher_batch_size")
    method = SFRon(**{name: getattr(flags, name) for name in options})
    device = device_at_hand()
    modes: dict[str, Any] = {}
    free = int(flags.memory_gb * 2**30) if flags.memory_gb else free_bytes(device)
    plain = trained_by(outline(flags.model, flags.revision).train(), flags.train_method)
    parameters = sum(p.numel() for p in plain.parameters())
    by_scores = flags.lora_select == "saliency"
    saving = Saving.asked(flags)
    for mode in MODES:
        phase(f"measuring a step with {WORDS[mode]}")
        network = copy.deepcopy(plain)
        if mode == "lora":
            share = flags.rank_budget if by_scores else 1.0
            network = adapted(network, flags.rank, share, "xattn" if flags.lora_select == "xattn" else "all")
        elsewhere = flags.offload and device != "cpu"
        sizes = (method, flags.batch_size, flags.size, elsewhere, mode != "lora" or by_scores, saving)
        needed = memory(network, mode, *sizes)
        if mode == "masked":  # takes what `full` does, and one multiplication a weight
            times, why = modes["full"]["_times"], modes["full"]["not_timed"]
        else:
            times, why = (None, "--no_time") if flags.no_time else _times(network, needed, flags, device, free)
        too_large = needed.too_large(free)
        modes[mode] = {**_parts(needed), "_times": times, "not_timed": why, "fits": not too_large}
        modes[mode]["too_large"] = too_large
        if times is not None:
            modes[mode]["seconds_per_outer_step"] = times.outer_step(method, flags.batch_size)
            modes[mode]["timed_at_batch"] = times.batch
    for values in modes.values():
        del values["_times"]
    whole = {"model": flags.model, "parameters": parameters, "batch_size": flags.batch_size}
    phase("looking for what fits the memory")
    found = first_fit(plain, method, "masked", flags.batch_size, flags.size, free)
    told = None if found is None else {"command": _command(flags, found[0].flags), "peak_bytes": found[1].most}
    return {**whole, "device": device, "free_bytes": free, "modes": modes, "fitting": told}


def _command(flags: Any, words: str) -> str:
    """The command that trains the model so."""
    from ...families.load import DIT, TEXT_TO_IMAGE, pipeline_class

    kind = pipeline_class(flags.model, flags.revision)
    name = "dit" if kind in DIT.classes else "t2i" if kind in TEXT_TO_IMAGE.classes else "ddpm" if kind else "classify"
    named = f"hf-unlearn {name} --pretrained_model_name_or_path {flags.model}"
    method = f"--train_method {flags.train_method}" if flags.train_method and "--use_lora" not in words else ""
    size = "" if "--train_batch_size" in words else f"--train_batch_size {flags.batch_size}"
    return " ".join(filter(None, (named, method, size, words)))


def _parts(needed: "Memory") -> dict[str, Any]:
    parts = {"lasting": needed.lasting, "passes": needed.passes, "stepping": needed.stepping}
    sums = {"peak_bytes": needed.peak, "preparation_bytes": needed.preparation}
    return {"trained": needed.trained, **parts, "preparing": needed.preparing, **sums}


def _times(network: Any, needed: "Memory", flags: Any, device: str, free: int) -> tuple["Times | None", str | None]:
    """(times, None) at the largest batch that is quick enough and fits, or (None, why not)."""
    from ..times import CHUNKS, filled, measure

    fixed = needed.lasting["weights"] + needed.stepping["gradients"] + needed.lasting["retain optimizer"]
    activations = needed.passes["activations"]

    def fits(batch: int) -> bool:
        return fixed + activations * batch / flags.batch_size <= 0.8 * free

    if not fits(1):
        return None, "one sample does not fit"
    network = filled(network, device)
    times = measure(network, 1, device, flags.size, repeats=1)
    for batch in (flags.batch_size, *(c for c in CHUNKS if c < flags.batch_size)):
        if fits(batch) and times.both * batch <= PATIENCE:
            return measure(network, batch, device, flags.size), None
    return times, None


def table(found: dict[str, Any]) -> str:
    """The parts in columns, and what they do not hold."""
    from ...evaluation.tables import markdown_table
    from ..estimates import size_text

    modes = found["modes"]
    rows = []
    for group in ("lasting", "passes", "stepping"):
        for name in modes["full"][group]:
            rows.append([name, *(size_text(values[group][name]) for values in modes.values())])
    rows.append(["**peak of training**", *(f"**{size_text(v['peak_bytes'])}**" for v in modes.values())])
    rows.append(["peak of the Fisher pass before", *(size_text(v["preparation_bytes"]) for v in modes.values())])
    fits = ("yes" if v["fits"] else f"no: {' and '.join(v['too_large'])}" for v in modes.values())
    rows.append(["fits", *fits])
    rows.append(["an outer step", *(_seconds(v) for v in modes.values())])
    timed = sorted({v["timed_at_batch"] for v in modes.values() if "timed_at_batch" in v})
    how = (
        f"timed at batch {timed[0]}"
        + (f" and scaled to {found['batch_size']}" if timed[0] != found["batch_size"] else "")
        if timed
        else "not timed"
    )
    fitting = found["fitting"]
    told = (
        "Nothing known here fits that memory."
        if fitting is None
        else (f"Fits {size_text(found['free_bytes'])} with {size_text(fitting['peak_bytes'])}: `{fitting['command']}`")
    )
    counts = ", ".join(f"{v['trained']:,} ({mode})" for mode, v in modes.items())
    return (
        f"{found['model']}: {found['parameters']:,} weights in fp32, batch {found['batch_size']}, {found['device']} "
        f"with {size_text(found['free_bytes'])} free; trained weights: {counts}\n\n"
        + markdown_table(["", *modes], rows)
        + f"\n\nThe peak is what lasts and the larger of activations and optimizer step; Python, libraries and what "
        f"the allocator keeps come on top. Time: {how}, random weights.\n\n{told}"
    )


def _seconds(values: dict[str, Any]) -> str:
    return f"{values['seconds_per_outer_step']:.3g} s" if "seconds_per_outer_step" in values else values["not_timed"]
