"""The last stage of a training command with --attack: what `hf-unlearn attack` does to the model that was saved."""

from typing import Any

from ...common.processes import say
from ...report.record import RunRecord
from ..attacks.flags import AttackFlags
from ..finish import renew


def attack_flags(run: Any) -> AttackFlags:
    """How the result of a run is attacked: as `hf-unlearn attack` does where no flag says anything else.

    Raises:
        ValueError: there are several processes.
    """
    return AttackFlags(suite=run.training.attack)


def check_attack(run: Any) -> None:
    """Raise ValueError where the result of a run is to be attacked and could not be, as far as the flags say."""
    if run.training.attack != "none":
        attack_flags(run)
        run.check_attack()


def check_class_attack(named: Any, classifier: Any) -> None:
    """Raise ValueError unless there is a class to bring back and a classifier to read what is drawn."""
    if not named:
        raise ValueError("--attack tries to bring back a class: name it with --forget_class")
    if not classifier:
        raise ValueError("--attack reads what is drawn: set --classifier_model_name_or_path")


def attacked(run: Any, record: RunRecord, table: str) -> tuple[RunRecord, str]:
    """The record with what attacks on the saved model found, and the table on the screen with theirs.

    The record is written before, so that an attack that is stopped loses nothing: `hf-unlearn attack` goes on.
    """
    from ..attacks.attacking import attack_run, attacks_table  # all attacks, which a run without them need not load

    folder = run.training.output_dir
    renew(folder, record)
    if hasattr(run.pipeline, "components"):
        run.pipeline.to("cpu")  # the attacks load what was saved, and need the room
    record, said = attack_run(record, folder, attack_flags(run), run.known())
    for line in said:
        say(line)
    return record, f"{table}\n\n{attacks_table(record)}"
