"""Ctrl-C while training: a checkpoint at the last whole outer step, from which the run goes on bit for bit."""

import signal

import pytest
from conftest import config, same, weights
from families import family_case
from transformers import TrainerCallback

from hf_unlearn import SFRon, UnlearnConfig, UnlearnTrainer
from hf_unlearn.cli import terminal

METHOD = {"slow_form": "ema", "slow_rate": 0.5}


class Press(TrainerCallback):
    """Ctrl-C `times` times within the outer step after `step` others, or an error of that kind `at` an event."""

    def __init__(self, step: int, times: int = 1, at: str = ""):
        self.step, self.times, self.at = step, times, at

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            for _ in range(0 if self.at else self.times):
                signal.raise_signal(signal.SIGINT)
            self._fail("begin")

    def on_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self._fail("within")

    def on_evaluate(self, args, state, control, **kwargs):
        if state.global_step == self.step and self.at == "evaluate" and self.times:
            self.times = 0
            signal.raise_signal(signal.SIGINT)

    def _fail(self, event: str) -> None:
        if self.at == event:
            raise KeyboardInterrupt


def trainer_of(folder, *callbacks, **values):
    objective, *data = family_case("vit")
    values = {"max_steps": 3, "lr_scheduler_type": "cosine", **values}
    return UnlearnTrainer(objective, config(folder, **values), SFRon(**METHOD), *data, callbacks=list(callbacks))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    trainer = trainer_of(tmp_path_factory.mktemp("straight"))
    trainer.train()
    return weights(trainer)


@pytest.mark.parametrize("press", [Press(0), Press(1), Press(2), Press(1, at="begin")], ids=["0", "1", "2", "begin"])
def test_resumed_after_ctrl_c_is_straight(tmp_path, straight, press):
    stopped = trainer_of(tmp_path, press, save_only_model=True)
    step = press.step + (press.at != "begin")
    said = f"interrupted after outer step {step}: --resume_from_checkpoint latest goes on from .*checkpoint-{step}"
    with pytest.raises(KeyboardInterrupt, match=said):
        stopped.train()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = trainer_of(tmp_path)
    resumed.train(resume_from_checkpoint="latest")
    assert same(weights(resumed), straight)


def test_ctrl_c_in_the_last_evaluation_keeps_the_last_step(tmp_path):
    stopped = trainer_of(tmp_path, Press(3, at="evaluate"), eval_strategy="steps", eval_steps=3)
    with pytest.raises(KeyboardInterrupt, match="after outer step 3: .*checkpoint-3"):
        stopped.train()
    assert (tmp_path / "checkpoint-3/optimizer.pt").is_file()


@pytest.mark.parametrize("press", [Press(1, times=2), Press(1, at="within")], ids=["twice", "within a step"])
def test_torn_weights_are_not_kept(tmp_path, press):
    with pytest.raises(KeyboardInterrupt, match="no checkpoint was written, so the run starts again"):
        trainer_of(tmp_path, press).train()
    assert not list(tmp_path.glob("checkpoint-*"))
    saving = trainer_of(tmp_path, press, save_strategy="steps", save_steps=1)
    with pytest.raises(KeyboardInterrupt, match="(after outer step 1|within outer step 2): .*checkpoint-1"):
        saving.train()


def test_a_run_in_a_scratch_folder_stops_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt) as stop:
        trainer_of(tmp_path, Press(1), checkpoint_on_interrupt=False).train()
    assert not str(stop.value) and not list(tmp_path.glob("checkpoint-*"))
    assert not UnlearnConfig.quiet(output_dir=str(tmp_path)).checkpoint_on_interrupt


def test_before_the_first_step_nothing_is_promised(tmp_path, monkeypatch):
    trainer = trainer_of(tmp_path)

    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.reference, "prepare", stop)
    with pytest.raises(KeyboardInterrupt, match="no checkpoint was written"):
        trainer.train()


def test_a_handler_of_the_user_is_left_alone(tmp_path):
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        trainer_of(tmp_path, Press(1)).train()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [1] and not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("error", "said"), [(KeyboardInterrupt("kept X"), "kept X"), (KeyboardInterrupt(), "interrupted")]
)
def test_a_command_says_what_the_trainer_said(capsys, error, said):
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        terminal.run(main)
    assert stop.value.code == 130 and capsys.readouterr().err == f"{said}\n"
