"""An outer step that finds its strength over one at a learning rate."""

from dataclasses import replace
from typing import Any

from transformers import TrainerCallback

from hf_unlearn import SFRon
from hf_unlearn.evaluation import markdown_table

from .bare import WARM_UP
from .page import RATIO, Goal, ratio
from .setting import Profile, Span, build, compared, scratch, trainer_for, with_lora

TITLE = "A strength that is found, over a learning rate"
MODES = ("full", "masked", "LoRA")
LIMIT = 1.03


class Turns(TrainerCallback):
    """Has a run that finds its strength take every second outer step at a rate, and times both kinds."""

    def __init__(self, trainer: Any):
        self.step, self.spans = trainer.step, ([], [])
        found, rate = trainer.step.method, trainer.args.learning_rate
        self.kinds = ((found, trainer.step.strengths), (replace(found, strength="rate"), {}))
        self.rate = rate

    def on_train_begin(self, args, state, control, **kwargs):
        self.mark = Span.now()

    def on_step_end(self, args, state, control, **kwargs):
        turn = state.global_step % 2  # of the next step; the first one found its strength
        if state.global_step > 2 * WARM_UP:
            self.spans[1 - turn].append(Span.now() - self.mark)
        self.step.method, self.step.strengths = self.kinds[turn]
        if turn:
            self.step.weights.set_rate(self.rate)
        self.mark = Span.now()


def measure(profile: Profile) -> dict[str, Any]:
    return {mode: overhead(profile, mode) for mode in MODES}


def overhead(profile: Profile, mode: str) -> dict[str, Any]:
    pipeline = build(profile.width, profile.size)
    model = with_lora(pipeline) if mode == "LoRA" else pipeline
    steps = 2 * (profile.pairs + WARM_UP)
    with scratch() as folder:
        method = SFRon(use_mask=mode == "masked")
        trainer = trainer_for(model, method, profile.batch, profile.size, folder, steps, learning_rate=None)
        turns = Turns(trainer)
        trainer.add_callback(turns)
        trainer.train()
    return compared(*turns.spans)


def text(result: dict[str, Any]) -> str:
    rows = [[mode, *ratio(r), f"{r['seconds']:.2f} s"] for mode, r in result.items()]
    return f"""SFR-on, preset `stable`, without a learning rate: every second outer step of one run is taken at a rate
instead. What is more is the direction of Adam and its length (`training/directions.py`) and three numbers that are
read from tensors.

{markdown_table(["mode", *RATIO, "outer step"], rows)}"""


def goals(result: dict[str, Any]) -> list[Goal]:
    return [Goal(f"strength found over a rate, {mode}", r["ratio"], LIMIT) for mode, r in result.items()]
