"""What every method must hold to: frozen configuration, run state elsewhere, losses that are returned and guarded."""

import dataclasses
import sys
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal, get_args, get_type_hints

import pytest
import torch
import yaml
from conftest import config, random_images, tiny_pipeline, tiny_vit, unlearned
from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel

from hf_unlearn import METHODS, SSD, DivergenceError, SelectiveAmnesia, SFRon, UnlearnTrainer, split_by_label
from hf_unlearn.cli import parsing
from hf_unlearn.methods import EditMethod, Losses, Method, OptimizerSpec, Registry, flag
from hf_unlearn.methods.sfron import PAPER, REFERENCE


# ---- configuration -------------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_is_frozen_and_its_flags_have_sentences(name):
    method = METHODS[name]()
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.anything = 1
    assert method == METHODS[name](**asdict(method)) == dataclasses.replace(method)
    for field in dataclasses.fields(method):
        text = field.metadata["help"]
        assert text[0].isupper() and text.endswith("."), (field.name, text)


def choice_fields():
    for name, method in METHODS.items():
        for field, kind in get_type_hints(method).items():
            if getattr(kind, "__origin__", None) is Literal and field in {f.name for f in dataclasses.fields(method)}:
                yield name, field, get_args(kind)


CHOICES = list(choice_fields())


@pytest.mark.parametrize(("name", "field", "words"), CHOICES, ids=[f"{n}-{f}" for n, f, _ in CHOICES])
def test_a_word_that_is_no_choice_is_refused_and_help_shows_the_choices(name, field, words, capsys):
    if field != "preset":
        with pytest.raises(ValueError, match=f"^{field} must be one of {', '.join(words)}, got 'bogus'$"):
            METHODS[name](**{field: "bogus"})
    with pytest.raises(SystemExit):
        parsing.parse([], ["--method", name, "--help"])
    said = capsys.readouterr()
    if name in parsing.fitting(None):
        assert f"--{field} {{{','.join(words)}}}" in said.out.replace("\n", " ")
    else:
        assert "needs data to learn" in said.err


def test_the_choices_are_those_of_twenty_seven_fields():
    assert len(CHOICES) == 27 and ("ssd", "fisher", ("sample", "batch")) in CHOICES
    with pytest.raises(ValueError, match="fisher must be one of sample, batch, got 'bogus'"):
        SSD(fisher="bogus")


def test_numbers_that_may_be_none_are_numbers_on_the_command_line():
    (method,) = parsing.parse([], ["--method", "sfron", "--bound_margin", "1.5"])
    assert method.bound_margin == 1.5 and method.forget_learning_rate is None


@pytest.mark.parametrize(("preset", "values"), [("paper", PAPER), ("reference", REFERENCE)])
def test_a_preset_gives_its_values_and_what_is_given_wins(preset, values):
    method = SFRon(preset=preset)
    assert {name: getattr(method, name) for name in values} == values
    assert asdict(method) == {**asdict(SFRon()), "preset": preset, **values}
    assert method == SFRon(preset) == SFRon.from_preset(preset)
    stable = SFRon()
    for name in values:  # also where the value given is the default of another preset
        kept = SFRon(preset=preset, **{name: getattr(stable, name)})
        assert getattr(kept, name) == getattr(stable, name) != values[name]
    assert dataclasses.replace(method, retain_steps=7) == SFRon(preset=preset, retain_steps=7)


def test_presets_on_the_command_line_and_in_its_yaml(tmp_path):
    flags = ["--preset", "reference", "--retain_steps", "2"]
    (method,) = parsing.parse([], flags)
    assert method == SFRon(preset="reference", retain_steps=2)
    (tmp_path / "run.yaml").write_text(parsing.resolved([method]))
    assert yaml.safe_load((tmp_path / "run.yaml").read_text())["retain_steps"] == 2
    assert parsing.parse([], ["--config", str(tmp_path / "run.yaml")]) == [method]


def test_edit_methods_define_no_loss():
    edits = {name: method for name, method in METHODS.items() if issubclass(method, EditMethod)}
    assert set(edits) == {"ssd", "uce"} == {name for name, method in METHODS.items() if not method.trains}
    for method in (EditMethod, *edits.values()):
        assert "loss" not in vars(method) and method.loss is Method.loss


def test_what_a_method_asks_of_the_optimizer():
    assert METHODS["finetune"]().optimizer == OptimizerSpec() and SFRon().optimizer.forget_optim == "separate"


# ---- one method, many runs -----------------------------------------------------------------------
def test_one_method_in_two_trainers_changes_neither(tmp_path):
    """Auto is ascent without labels and matching with them; the second trainer must not change the first."""
    method, before = SFRon(), asdict(SFRon())
    unet = UNet2DModel.from_config({**tiny_pipeline().unet.config, "num_class_embeds": None})
    parts = split_by_label(random_images(), 1)
    first = UnlearnTrainer(DDPMPipeline(unet, DDIMScheduler(1000)), config(tmp_path), method, *parts)
    second = UnlearnTrainer(tiny_pipeline(), config(tmp_path), method, *parts)
    third = UnlearnTrainer(tiny_vit(), config(tmp_path), method, *parts)
    found = [(t.step.method.forget_loss, t.step.method.bound, t.step.method.bound_margin) for t in (first, second)]
    assert found == [("ascent", "own", 2.0), ("match", "other", 1.0)]
    assert (third.step.method.forget_loss, third.step.method.bound) == ("ascent", "other")
    assert first.step.method.needs_baseline and not second.step.method.needs_baseline
    assert all(t.method == method.at_rate() for t in (first, second, third)) and asdict(method) == before


def test_what_a_run_adds_is_the_steps(tmp_path):
    """Fisher and anchors of Selective Amnesia; the weights are not copied a second time as an original."""
    method = SelectiveAmnesia(fisher_samples=4)
    one, two = (unlearned(tiny_pipeline(seed), tmp_path / str(seed), method, max_steps=1) for seed in (0, 1))
    assert one.reference.original is None and two.reference.original is None and not one.step.method.needs_original
    assert vars(method) == vars(SelectiveAmnesia(fisher_samples=4))
    for trainer, seed in ((one, 0), (two, 1)):
        starts = {n: trainer.step.state[id(p)][1] for n, p in trainer.objective.network.named_parameters()}
        start = tiny_pipeline(seed).unet.state_dict()
        assert all(torch.equal(starts[n], start[n]) for n in starts)


# ---- losses --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Toy(Method):
    """Ascent without a bound, which returns its loss in one of several ways."""

    name: ClassVar[str] = "toy"
    streams: ClassVar[tuple[str, ...]] = ("forget",)
    way: str = flag("forget", "The way it is returned.")

    def loss(self, step, batch):
        down = -step.losses(batch.forget).mean()
        ways = {
            "forget": Losses(forget=down),
            "total": Losses(total=down),
            "other name": Losses(total=down, extra={"mine": down}),
            "tensor": down,
            "nothing": Losses(),
        }
        return ways[self.way]


@pytest.mark.parametrize("way", ["forget", "total", "other name"])
def test_a_method_that_diverges_is_stopped_whatever_it_returns(tmp_path, way):
    with pytest.raises(DivergenceError, match=r"loss -\d.* is over"):
        unlearned(tiny_pipeline(), tmp_path, Toy(way), max_steps=300, learning_rate=0.05, max_loss_ratio=10)


def test_a_step_that_returns_something_else_says_so(tmp_path):
    with pytest.raises(TypeError, match=r"Toy.loss returned Tensor: return Losses\("):
        unlearned(tiny_pipeline(), tmp_path, Toy("tensor"))
    with pytest.raises(ValueError, match="nothing to differentiate"):
        unlearned(tiny_pipeline(), tmp_path, Toy("nothing"))


def test_losses_say_what_is_differentiated_and_logged(tmp_path):
    one, two = torch.tensor(1.0, requires_grad=True), torch.tensor(2.0)
    assert Losses(forget=one).scalar == 1 and Losses(forget=one, retain=two).scalar == 3
    assert Losses(forget=one, retain=two, total=one * 5).scalar == 5
    logged = Losses(forget=one, extra={"mine": two}).logged
    assert set(logged) == {"forget_loss", "mine"} and not logged["forget_loss"].requires_grad
    trainer = unlearned(tiny_pipeline(), tmp_path, Toy("other name"), max_steps=2, logging_steps=1)
    lines = [line for line in trainer.state.log_history if "mine" in line]
    assert len(lines) == 2 and all(line["mine"] == pytest.approx(line["loss"], abs=1e-4) for line in lines)


# ---- methods of other packages -------------------------------------------------------------------
FOREIGN = """
from dataclasses import dataclass
from typing import ClassVar
from hf_unlearn.methods import FineTune

@dataclass(frozen=True)
class Mine(FineTune):
    name: ClassVar[str] = "mine"
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A function that puts a package with entry points on the path."""

    def install(package: str, code: str, **points: str) -> None:
        (tmp_path / f"{package}.py").write_text(code)
        about = tmp_path / f"{package}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (about / "entry_points.txt").write_text(f"[hf_unlearn.methods]\n{lines}")

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    for name in [name for name in sys.modules if name.startswith("foreign_")]:
        del sys.modules[name]


def registry() -> Registry:
    return Registry({name: METHODS[name] for name in ("sfron", "finetune")})


def test_another_package_adds_a_method(installed):
    installed("foreign_good", FOREIGN, mine="foreign_good:Mine")
    found = registry()
    assert found["sfron"] is SFRon and "foreign_good" not in sys.modules  # not imported before it is asked for
    assert list(found) == ["sfron", "finetune", "mine"] and len(found) == 3
    assert issubclass(found["mine"], Method) and found["mine"]().name == "mine"
    with pytest.raises(KeyError):
        found["bogus"]


@pytest.mark.parametrize(
    ("code", "points", "message"),
    [
        ("import no_such_module", {"mine": "foreign_bad:Mine"}, "does not import .ModuleNotFoundError: No module"),
        ("", {"mine": "foreign_bad:Mine"}, "does not import .AttributeError"),
        ("Mine = 3", {"mine": "foreign_bad:Mine"}, "is no subclass of hf_unlearn.methods.Method"),
        (FOREIGN, {"other": "foreign_bad:Mine"}, "its class says name = 'mine', give both the same name"),
        (FOREIGN, {"sfron": "foreign_bad:Mine"}, "hf_unlearn has a method of that name, choose another one"),
    ],
    ids=["import", "attribute", "class", "name", "taken"],
)
def test_a_broken_package_is_named_in_one_warning_and_left_out(installed, code, points, message):
    installed("foreign_bad", code, **points)
    with pytest.warns(UserWarning, match=f"^method '{next(iter(points))}' of package foreign_bad is left out: .*"):
        found = registry()
        assert list(found) == ["sfron", "finetune"] and found["sfron"] is SFRon
    with pytest.warns(UserWarning, match=message) as caught:
        list(registry())
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
