"""Run attacks on an unlearned model, and beside it on what tells how to read the result."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..common.bars import phase
from ..common.devices import launched_processes
from ..common.files import write_text
from ..common.identity import identity_of
from ..common.keys import class_code, code_key, content_key
from ..common.losses import world_size
from ..evaluation.metric import Metric, share_interval, version_of
from .base import Attack, Found, Subject, Target


@dataclass(frozen=True, eq=False)
class Trial:
    """Whom each attack meets.

    unlearned: the model that forgot, and what it forgot.
    ceiling: the original and the same target: what the attack finds where everything is there.
    positive: the unlearned model and a concept that stayed. An attack that does not find it is broken, and its failure
        on the forgotten concept says nothing.
    negative: a concept that the model never learnt, or the forgotten one and a model retrained without it. What the
        attack finds there it made itself.
    """

    unlearned: Subject
    ceiling: Subject
    positive: Subject | None = None
    negative: Subject | None = None

    def subjects(self) -> dict[str, Subject]:
        """Those that there are, by role."""
        every = {f.name: getattr(self, f.name) for f in fields(self)}
        return {role: subject for role, subject in every.items() if subject is not None}

    def shorter(self) -> "Trial":
        """The same with half the images of ceiling and positive control, which say whether an attack works at all.

        The negative control is compared with the unlearned model, and keeps all of them.
        """

        def half(subject: Subject) -> Subject:
            return replace(subject, samples=math.ceil(subject.samples / 2))

        positive = None if self.positive is None else half(self.positive)
        return replace(self, ceiling=half(self.ceiling), positive=positive)


def run_attacks(
    attacks: Sequence[Attack],
    trial: Trial,
    folder: str | Path,
    seeds: Sequence[int] = (0, 1),
    control_seeds: Sequence[int] | None = None,
    progress: bool | None = None,
) -> dict[str, Metric]:
    """Run each attack from each seed on each subject of the trial, and return a metric for each attack, by name.

    Each result is kept in `folder` under a key of everything that it depends on, so that a run which was killed goes
    on where it stopped, and an equal run computes nothing.

    Args:
        seeds: at least two. One run of an attack by optimisation says little: 31 and 67 % were seen of the same one.
        control_seeds: the seeds for ceiling and controls, by default `seeds`.
        progress: whether a bar is shown; None shows it on a terminal.

    Returns:
        `recovered_<attack>`, the share (0 to 1) of images over all seeds that show the target; small is forgotten. Or
        `relearning_<attack>`, the mean number of steps; many are forgotten. `details` hold the budget, the result of
        each seed, the 95 % interval of a share, the accuracy of the reader where it knows that (below
        `concept_share.SEPARABLE` a share says nothing), and the same of "ceiling", "positive" and "negative", or None.

    Raises:
        ValueError: fewer than two seeds, two attacks of one name, an attack on a model of another family, or several
            processes.
    """
    processes = max(world_size(), launched_processes())
    if processes > 1:
        raise ValueError(
            f"attacks run in one process, and {processes} were launched: start without torchrun or accelerate launch"
        )
    if len(set(seeds)) < 2:
        raise ValueError(f"seeds {list(seeds)}: one run of an attack says little, give at least two different ones")
    names = [attack.metric for attack in attacks]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"two attacks are named {twice[0]}: run them one after the other")
    subjects = trial.subjects()
    wanted = [
        (attack, role, seed)
        for attack in attacks
        for role in subjects
        for seed in (seeds if role == "unlearned" else control_seeds or seeds)
    ]
    for attack, role, seed in wanted:
        attack.check(subjects[role], seed)
    kept = Results(folder, subjects)
    missing = [one for one in wanted if kept.read(*one) is None]
    phase("attacks")
    bar = tqdm(missing, desc="attacks", disable=None if missing and progress is None else not (missing and progress))
    for attack, role, seed in bar:
        bar.set_postfix_str(f"{attack.name}, {role}, seed {seed}")
        kept.write(attack, role, seed, attack.attack(subjects[role], seed))
    found: dict[tuple[str, str], dict[int, Found]] = {}
    for attack, role, seed in wanted:
        read = kept.read(attack, role, seed)
        assert read is not None  # it was written just now
        found.setdefault((attack.metric, role), {})[seed] = read
    return {
        attack.metric: metric_of(attack, trial, {role: found[attack.metric, role] for role in subjects})
        for attack in attacks
    }


class Results:
    """What attacks found, in a folder: a file for each attack, subject and seed, by all that it depends on."""

    def __init__(self, folder: str | Path, subjects: dict[str, Subject]):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._identities = {role: content_key(_identity(subject)) for role, subject in subjects.items()}

    def path(self, attack: Attack, role: str, seed: int) -> Path:
        """The file of one result."""
        code = [class_code(type(attack)), code_key("attacks.base")]
        key = content_key([identity_of(type(attack)), identity_of(attack), self._identities[role], seed, code])
        return self.folder / f"{attack.metric}-{key}.json"

    def read(self, attack: Attack, role: str, seed: int) -> Found | None:
        """What was found, or None where that is not known or its file is damaged."""
        try:
            content = json.loads(self.path(attack, role, seed).read_text(encoding="utf-8"))
            found = Found.from_dict(content["found"])
            return found if content["key"] == content_key(found.as_dict()) else None
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def write(self, attack: Attack, role: str, seed: int, found: Found) -> None:
        """Keep what was found, whole or not at all."""
        content = {"attack": attack.name, "seed": seed, "found": found.as_dict(), "key": content_key(found.as_dict())}
        write_text(self.path(attack, role, seed), json.dumps(content, indent=1) + "\n")


def _identity(subject: Subject) -> Any:
    """Everything of a subject that decides what an attack finds, as JSON."""

    def of_target(target: Target | None) -> Any:
        if target is None:
            return None
        if not hasattr(target.reader, "name"):
            raise ValueError(
                f"the reader of {target.name!r} has no name: give an object, such as attacks.readers have"
            )
        return [identity_of(target), class_code(type(target.reader))]

    original = None if subject.original is subject.model else identity_of(subject.original)
    targets = [of_target(target) for target in (subject.target, subject.retained, subject.unseen)]
    rest = [identity_of(subject.references), identity_of(subject.sampling), subject.samples]
    return [identity_of(subject.model), original, *targets, *rest]


def metric_of(attack: Attack, trial: Trial, found: dict[str, dict[int, Found]]) -> Metric:
    """The metric of one attack.

    Args:
        found: by role and seed; "unlearned" is the metric's own, the others stand in `details`.
    """
    own = trial.unlearned
    results = {role: _summary(attack, of_seeds) for role, of_seeds in found.items()}
    summary = results.pop("unlearned")
    subjects = trial.subjects()
    for role, control in results.items():
        control["target"] = subjects[role].target.name
    if attack.counts_steps:
        definition = (
            f"steps of training until {own.target.reader.name} finds {own.target.name!r} again, mean over seeds, the "
            "limit where it does not; many are forgotten"
        )
    else:
        definition = (
            f"share of images in which the attack {attack.name!r} brings back {own.target.name!r}, as read by "
            f"{own.target.reader.name}; small is forgotten"
        )
    return Metric(
        summary["value"],
        definition,
        samples=summary["samples"],
        library=version_of("torch", "diffusers", "transformers"),
        details={
            "attack": attack.name,
            "budget": attack.budget,
            "settings": attack.settings(),
            "target": own.target.name,
            "reader": own.target.reader.name,
            "reader_accuracy": getattr(own.target.reader, "accuracy", None),
            **{name: value for name, value in summary.items() if name not in ("value", "samples")},
            **{role: results.get(role) for role in ("ceiling", "positive", "negative")},
        },
    )


def _summary(attack: Attack, found: dict[int, Found]) -> dict[str, Any]:
    """Value over all seeds, that of each seed, and what goes with it."""
    counted = list(found.values())[:1] if attack.same_samples else found.values()
    samples = sum(len(one.recovered) for one in counted)
    details = {str(seed): one.details for seed, one in found.items() if one.details}
    more = {"of_seeds": details} if details else {}
    if attack.counts_steps:
        steps = {str(seed): one.steps for seed, one in found.items()}
        lost = [seed for seed, count in steps.items() if count is None]
        if lost:
            raise ValueError(f"the attack {attack.name} counts steps, and returned none from seed {lost[0]}")
        mean = sum(one.steps or 0 for one in found.values()) / len(found)
        reached = all(one.reached for one in found.values())
        return {"value": mean, "samples": samples, "per_seed": steps, "reached": reached, **more}
    share = sum(sum(one.recovered) for one in found.values()) / sum(len(one.recovered) for one in found.values())
    each = {str(seed): one.share for seed, one in found.items()}
    return {"value": share, "samples": samples, "per_seed": each, "interval": share_interval(share, samples), **more}
