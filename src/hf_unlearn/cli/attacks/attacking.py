"""Attack the model of a finished run, and put what was found into its record."""

from collections.abc import Sequence
from pathlib import Path

from ...attacks import ATTACKS, Attack, run_attacks, suite_of
from ...common.bars import phase
from ...evaluation.tables import markdown_table
from ...report.outcome import judged
from ...report.record import RunRecord
from ...report.recovery import ROLES, recoveries, shown_value
from . import classes, samples
from .case import Case, family_of_record, load_case
from .concepts import about_the_reader, concept_trial
from .flags import AttackFlags, Known
from .neighbours import audit, named_neighbours


def attack_run(
    record: RunRecord, folder: str | Path, flags: AttackFlags, known: Known | None = None
) -> tuple[RunRecord, list[str]]:
    """Attack the model in `folder`, and return its record with what was found and lines on what could not be done.

    Everything that can be wrong is found before a picture is drawn. Results are kept in `folder`/attacks, so that a
    call that was killed goes on, and an equal one computes nothing.

    Raises:
        ValueError, OSError: something that the flags or the record name is not there or does not fit.
    """
    chosen = chosen_attacks(family_of_record(record), flags.suite, flags.attacks)
    phase("loading the models")
    case = load_case(record, folder, flags, known)
    attacks, neighbours = fitting(case, chosen), named_neighbours(case)
    phase("preparing the attacks")
    if case.family == "text_to_image":
        trial = concept_trial(case, attacks)
        more = about_the_reader(trial)
    else:
        trial = (samples.samples_trial if case.family == "classifier" else classes.class_trial_of)(case, attacks)
        more = {}
    # Controls and ceiling say how to read an attack: one seed of them is enough for the short suite.
    controls = list(flags.seeds[:1]) if flags.suite == "quick" else None
    if flags.suite == "quick":
        trial = trial.shorter()
    found = run_attacks(attacks, trial, Path(folder) / "attacks", list(flags.seeds), controls)
    for metric in found.values():
        metric.details |= more
    figures = {**record.figures, "after": {**record.figures.get("after", {}), **found}}
    if flags.neighbours is not None:
        phase("looking at neighbours")
        for model, row in audit(case, trial, neighbours).items():
            figures[model] = {**figures.get(model, {}), **row}
    return judged(record.measured(figures)), case.said


def chosen_attacks(family: str, suite: str, names: Sequence[str] | None) -> list[Attack]:
    """The attacks of a suite, or those that are named, in few steps if the suite is quick.

    Raises:
        ValueError: no attack on models of the family has that name.
    """
    if names is None:
        return suite_of(family, suite)  # type: ignore[arg-type]
    every = {short_name(attack): attack for attack in suite_of(family, "full")}
    for name in names:
        if name not in every:
            raise ValueError(f"attack {name!r} is none on this model: choose from {', '.join(every)}")
    chosen = [every[name] for name in dict.fromkeys(names)]
    return [attack.quick() for attack in chosen] if suite == "quick" else chosen


def short_name(attack: Attack) -> str:
    """What a person calls an attack: "soft_prefix", "relearning_steps"."""
    return attack.metric.removeprefix("recovered_")


def every_name() -> list[str]:
    """The names of all attacks."""
    return list(dict.fromkeys(short_name(attack) for attack in ATTACKS))


def fitting(case: Case, chosen: Sequence[Attack]) -> list[Attack]:
    """Those of the chosen attacks that can be made; the case says in a line why another cannot.

    Raises:
        ValueError: one that was named cannot be made, or none can.
    """
    why_unfit = {
        "classifier": samples.why_unfit,
        "text_to_image": lambda case, attack: attack.unfit(case.unlearned),
    }.get(case.family, classes.why_unfit)
    whys = {short_name(attack): why_unfit(case, attack) for attack in chosen}
    unfit = {name: why for name, why in whys.items() if why}
    if unfit and (case.flags.attacks is not None or len(unfit) == len(chosen)):
        name, why = next(iter(unfit.items()))
        raise ValueError(f"the attack {name} cannot be made: {why}")
    case.said += [f"not attacked by {name}: {why}" for name, why in unfit.items()]
    return [attack for attack in chosen if short_name(attack) not in unfit]


def attacks_table(record: RunRecord) -> str:
    """A row for each attack of a record: what it found, its controls, its budget, how to read it; "" without one."""
    rows = [
        [read.name, *(shown_value(read, role) for role in (None, *ROLES)), read.budget, read.result]
        for read in recoveries(record)
    ]
    return markdown_table(["attack", "recovered", *ROLES, "budget", "reading"], rows) if rows else ""
