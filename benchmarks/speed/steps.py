"""An outer step over its irreducible work, and where its time goes."""

from typing import Any

from hf_unlearn import SFRon
from hf_unlearn.evaluation import markdown_table

from .bare import WARM_UP, Bare, Pairs
from .page import RATIO, Goal, ratio
from .phases import PHASES, Phases
from .setting import Profile, build, compared, scratch, trainer_for, with_lora

TITLE = "An outer step over its irreducible work"
MODES = ("full", "masked", "LoRA")
LIMIT = 1.03


def measure(profile: Profile) -> dict[str, Any]:
    return {mode: overhead(profile, mode) for mode in MODES}


def overhead(profile: Profile, mode: str) -> dict[str, Any]:
    method, lora = SFRon(use_mask=mode == "masked"), mode == "LoRA"
    pipeline = build(profile.width, profile.size)
    model = with_lora(pipeline) if lora else pipeline
    bare = Bare(profile.width, profile.size, profile.batch, method.retain_steps, lora=lora)
    with scratch() as folder:
        trainer = trainer_for(model, method, profile.batch, profile.size, folder, profile.pairs + WARM_UP)
        phases = Phases(trainer)
        timed = Pairs(bare.step, warm=phases.seconds.clear)
        trainer.add_callback(timed)
        with phases.hooked():
            trainer.train()
    return {
        **compared(timed.ours, timed.theirs),
        "parameters": sum(p.numel() for p in bare.unet.parameters()),
        "trained": sum(p.numel() for p in bare.trained),
        "phases": phases.shares(sum(span.clock for span in timed.ours)),
    }


def text(result: dict[str, Any]) -> str:
    rows = [
        [mode, f"{r['parameters'] / 1e6:.1f}M", f"{r['trained'] / 1e6:.2f}M", *ratio(r), f"{r['seconds']:.2f} s"]
        for mode, r in result.items()
    ]
    first = markdown_table(["mode", "weights", "trained", *RATIO, "outer step"], rows)
    shares = [
        [phase, *(f"{100 * r['phases'].get(phase, 0):.1f} %" for r in result.values())] for phase in (*PHASES, "rest")
    ]
    return f"""SFR-on, preset `stable`: one forget and two retain steps, data, draws, guard and logging included, over
the forwards, backwards, clips and fused Adam steps in it, written by hand and run in turns with it. On two cores a
median of ten pairs differs by about 0.02 from one run to the next; `--only step --pairs 30` is steadier.

{first}

Where the time of an outer step goes (the forward for the forget target, the anchor's, is inside `forget forward`; the
drift outside the mask is measured every 25 steps, under `mask`):

{markdown_table(["phase", *result], shares)}"""


def goals(result: dict[str, Any]) -> list[Goal]:
    return [Goal(f"outer step over its work, {mode}", r["ratio"], LIMIT) for mode, r in result.items()]
