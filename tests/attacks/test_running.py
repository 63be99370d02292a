"""Running attacks: what is measured, resumed, refused."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from attack_cases import Brighter, Never, changed_sd, subject
from conftest import tiny_sd, tiny_vit

from hf_unlearn.attacks import Attack, Found, Subject, Trial, run_attacks, suite_of
from hf_unlearn.attacks.base import Reader
from hf_unlearn.evaluation.metric import is_share, role_of, share_interval

CALLS: list[int] = []


@dataclass(frozen=True)
class Shifted(Attack):
    """Reads random images that are brighter by `shift`."""

    shift: float = 0.0
    name: ClassVar[str] = "shifted"
    families: ClassVar[tuple[str, ...]] = ("text_to_image",)
    limits: ClassVar[dict[str, str]] = {"shift": "[-1, 1]"}

    @property
    def budget(self) -> str:
        return f"a shift of {self.shift}"

    def attack(self, subject: Subject, seed: int) -> Found:
        CALLS.append(seed)
        noise = torch.randn(subject.samples, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
        return Found(subject.read(noise + self.shift), details={"mean": noise.mean().item()})


@dataclass(frozen=True)
class Climbing(Attack):
    """Counts steps: as many as the seed says."""

    name: ClassVar[str] = "climbing"
    families: ClassVar[tuple[str, ...]] = ("text_to_image",)
    counts_steps: ClassVar[bool] = True

    @property
    def budget(self) -> str:
        return "none"

    def attack(self, subject: Subject, seed: int) -> Found:
        return Found(subject.read(subject.target.images), steps=10 * seed, reached=seed < 3)


@pytest.fixture(scope="module")
def trial() -> Trial:
    changed, original = changed_sd(), tiny_sd()
    own = subject(changed, original, samples=8)
    return Trial(own, replace(own, model=original), positive=replace(own, target=own.retained))


def test_shares_of_all_seeds_with_ceiling_and_controls(trial, tmp_path):
    found = run_attacks([Shifted(0.1)], trial, tmp_path, seeds=(3, 4), control_seeds=(7,))
    metric = found["recovered_shifted"]
    images = [torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(s)) + 0.1 for s in (3, 4, 7)]
    hits = [(part.flatten(1).mean(1) > 0).double().mean().item() for part in images]
    assert metric.value == pytest.approx((hits[0] + hits[1]) / 2) and metric.samples == 16
    assert metric.details["per_seed"] == {"3": hits[0], "4": hits[1]}
    assert metric.details["interval"] == share_interval(metric.value, 16)
    assert metric.details["ceiling"]["value"] == hits[2] and metric.details["ceiling"]["samples"] == 8
    assert metric.details["positive"]["target"] == "a dog" and metric.details["negative"] is None
    assert metric.details["budget"] == "a shift of 0.1" and metric.details["settings"] == {"shift": 0.1}
    assert "a cat" in metric.definition and metric.details["reader"] == "the mean"


def test_a_shorter_trial_halves_ceiling_and_positive_control(trial):
    whole = replace(trial, unlearned=replace(trial.unlearned, samples=7), negative=trial.unlearned)
    short = replace(whole, ceiling=replace(trial.ceiling, samples=7)).shorter()
    assert {role: subject.samples for role, subject in short.subjects().items()} == {
        "unlearned": 7,
        "ceiling": 4,
        "positive": 4,
        "negative": 8,
    }
    assert replace(trial, positive=None).shorter().positive is None


def test_steps_are_averaged_and_say_whether_they_sufficed(trial, tmp_path):
    metric = run_attacks([Climbing()], trial, tmp_path, seeds=(1, 4))["relearning_climbing"]
    assert metric.value == 25 and metric.details["per_seed"] == {"1": 10, "4": 40}
    assert metric.details["reached"] is False and "interval" not in metric.details
    assert not is_share("relearning_climbing") and is_share("recovered_shifted")
    assert role_of("relearning_climbing") == ("forget", False) and role_of("recovered_shifted") == ("forget", True)


def test_a_reader_that_says_no_gives_none_beside_the_ceiling(trial, tmp_path):
    blind = replace(trial.unlearned, target=replace(trial.unlearned.target, reader=Never()))
    metric = run_attacks([Shifted(0.5)], replace(trial, unlearned=blind), tmp_path)["recovered_shifted"]
    assert metric.value == 0 and metric.details["ceiling"]["value"] > 0.5


def test_a_killed_run_goes_on_where_it_stopped(trial, tmp_path, monkeypatch):
    straight = run_attacks([Shifted(0.1)], trial, tmp_path / "straight", seeds=(0, 1))
    wanted, attack = len(CALLS), Shifted.attack

    def killed(self, subject, seed):
        if seed == 1 and subject.model is trial.ceiling.model:
            raise KeyboardInterrupt
        return attack(self, subject, seed)

    CALLS.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Shifted, "attack", killed)
        with pytest.raises(KeyboardInterrupt):
            run_attacks([Shifted(0.1)], trial, tmp_path / "resumed", seeds=(0, 1))
    before = len(CALLS)
    assert 0 < before < 6
    assert run_attacks([Shifted(0.1)], trial, tmp_path / "resumed", seeds=(0, 1)) == straight
    assert len(CALLS) == 6 <= wanted
    assert run_attacks([Shifted(0.1)], trial, tmp_path / "resumed", seeds=(0, 1)) == straight
    assert len(CALLS) == 6


def test_what_decides_a_result_is_in_its_key(trial, tmp_path):
    def computed(attack=Shifted(0.1), trial=trial, seeds=(0, 1)) -> int:
        CALLS.clear()
        run_attacks([attack], trial, tmp_path, seeds=seeds)
        return len(CALLS)

    own = trial.unlearned
    assert computed() == 6 and computed() == 0
    assert computed(Shifted(0.2)) == 6
    assert computed(seeds=(0, 2)) == 3
    brighter = replace(own, target=replace(own.target, reader=Brighter(0.01)))
    assert computed(trial=replace(trial, unlearned=brighter)) == 2
    assert computed(trial=replace(trial, unlearned=replace(own, samples=9))) == 2
    assert computed(trial=replace(trial, unlearned=replace(own, model=own.original))) == 0  # the ceiling's results
    for path in tmp_path.glob("*.json"):
        path.write_text(path.read_text().replace("true", "false", 1))
    assert computed() > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: dict(seeds=(0,)), "at least two"),
        (lambda t: dict(seeds=(0, 0)), "at least two"),
        (lambda t: dict(seeds=(0, -1)), "seed"),
        (lambda t: dict(attacks=[Shifted(), Shifted(0.1)]), "two attacks are named recovered_shifted"),
        (lambda t: dict(trial=replace(t, unlearned=replace(t.unlearned, model=tiny_vit()))), "not classifier"),
        (
            lambda t: dict(
                trial=replace(t, unlearned=replace(t.unlearned, target=replace(t.unlearned.target, reader=abs)))
            ),
            "has no name",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(trial, tmp_path, change, said):
    given = {"attacks": [Shifted()], "trial": trial, "folder": tmp_path, **change(trial)}
    with pytest.raises(ValueError, match=said):
        run_attacks(**given)


def test_several_processes_are_refused(trial, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="attacks run in one process, and 2 were launched"):
        run_attacks([Shifted()], trial, tmp_path)


def test_a_reader_must_say_one_bool_an_image(trial):
    @dataclass
    class Wrong:
        name: str = "wrong"

        def __call__(self, images):
            return images.mean()

    reader: Reader = Wrong()
    own = replace(trial.unlearned, target=replace(trial.unlearned.target, reader=reader))
    with pytest.raises(ValueError, match="one bool each"):
        own.read(torch.zeros(2, 3, 4, 4))


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="shift must lie in"):
        Shifted(2.0)


def test_the_quick_suite_is_part_of_the_full_one():
    for family in ("text_to_image", "ddpm", "dit", "classifier"):
        quick, full = ({attack.metric for attack in suite_of(family, kind)} for kind in ("quick", "full"))
        assert quick <= full
