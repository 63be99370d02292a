"""The strategies: each carries requests out, and the losses of the baselines are their formulas."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_vit
from stream import REQUESTS, images, sequence

from hf_unlearn import Classification
from hf_unlearn.data.pairs import collate
from hf_unlearn.methods.base import Batch
from hf_unlearn.sequences import STRATEGIES, strategy_of
from hf_unlearn.sequences.distillation import GONE, LwF, LwFUnlearning, UniCLUN, UniCLUNLearning
from hf_unlearn.sequences.private import DarkReplay, detected
from hf_unlearn.sequences.replay import ExperienceReplay

pytestmark = pytest.mark.xdist_group("sequences")


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_learns_forgets_and_goes_on(tmp_path, name):
    made = sequence(tmp_path, strategy_of(name, learn_rate=2e-3), max_steps=2, save_strategy="no")
    made.run("0R 1T")
    ledger = sequence(tmp_path, strategy_of(name, learn_rate=2e-3), max_steps=2, save_strategy="no").run(REQUESTS)
    first, second, third = ledger.entries
    assert {entry.state for entry in ledger.entries} == {"done"} and {e.method for e in ledger.entries} == {name}
    assert first.weights_before != first.weights_after
    assert third.steps == (0 if name == "clpu" else 4 if name == "retrain" and third.steps == 4 else 2)
    if name == "clpu":  # the main network never met task 1
        assert first.weights_after == second.weights_after == third.weights_after
        assert not list(tmp_path.glob("weights-0003-task*"))


def test_clpu_refuses_what_it_cannot_forget(tmp_path):
    made = sequence(tmp_path, strategy_of("clpu"))
    made.add("0R 1T")
    for asked in ("0F", {"forget": {"classes": [2]}}, {"forget": {"samples": [2]}}):
        with pytest.raises(ValueError, match="clpu forgets whole tasks that were learnt for a time"):
            made.add([asked])


def test_names_and_options_of_strategies():
    assert strategy_of("ascent", forget_weight=0.3).as_dict() == {
        "name": "ascent",
        "learn_rate": None,
        "forget_weight": 0.3,
    }
    with pytest.raises(ValueError, match="method 'magic' is not one of clu, sfron, retrain"):
        strategy_of("magic")
    with pytest.raises(ValueError, match="unexpected keyword argument 'speed'"):
        strategy_of("clu", speed=1)


# ---- formulas ------------------------------------------------------------------------------------
class Step:
    """A step on a network with an original and a state."""

    def __init__(self, state=None):
        self.objective, self.old, self.state = Classification(tiny_vit(0)), tiny_vit(1), state
        self.objective.eval()

    def losses(self, batch, target=None, **options):
        return self.objective(**batch, **({} if target is None else {"target": target}), **options)

    def original(self, batch):
        return self.objective.predict(self.old.eval(), batch)

    def predict(self, batch, network):
        return self.objective.predict(network.eval(), batch)


def part(seed: int):
    data = images(2, seed)
    return collate([data[i] for i in range(6)])


def logits(network, batch):
    with torch.no_grad():
        return network.eval()(pixel_values=batch["pixel_values"]).logits


def kl(teacher, student, temperature=1.0):
    """mean T² KL(teacher || student) of logits."""
    log_t, log_s = (x.div(temperature).log_softmax(1) for x in (teacher, student))
    return temperature**2 * (log_t.exp() * (log_t - log_s)).sum(1).mean()


@pytest.fixture
def setting():
    step = Step()
    new, known, gone = part(1), part(2), part(3)
    outputs = {n: logits(step.objective.network, b) for n, b in (("new", new), ("known", known), ("gone", gone))}
    old = {n: logits(step.old, b) for n, b in (("new", new), ("known", known), ("gone", gone))}
    return SimpleNamespace(step=step, new=new, known=known, gone=gone, now=outputs, old=old)


def ce(outputs, batch):
    return F.cross_entropy(outputs, batch["labels"])


def test_experience_replay(setting):
    found = ExperienceReplay(memory_weight=0.3).loss(setting.step, Batch(retain=[setting.known], learn=[setting.new]))
    wanted = ce(setting.now["new"], setting.new) + 0.3 * ce(setting.now["known"], setting.known)
    assert found.scalar.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_dark_replay(setting):
    method = DarkReplay(logit_weight=0.2, memory_weight=0.7)
    found = method.loss(setting.step, Batch(retain=[setting.known], learn=[setting.new]))
    apart = (setting.now["known"] - setting.old["known"]).square().sum(1).mean()
    wanted = ce(setting.now["new"], setting.new) + 0.2 * apart + 0.7 * ce(setting.now["known"], setting.known)
    assert found.scalar.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert apart > 0.01 and found.scalar.requires_grad


def test_learning_without_forgetting(setting):
    found = LwF(distill_weight=0.4, temperature=3.0).loss(setting.step, Batch(retain=[setting.new]))
    wanted = ce(setting.now["new"], setting.new) + 0.4 * kl(setting.old["new"], setting.now["new"], 3.0)
    assert found.scalar.item() == pytest.approx(wanted.item(), rel=1e-4)


def test_forgetting_by_distillation(setting):
    found = LwFUnlearning(temperature=2.0).loss(setting.step, Batch(forget=setting.gone, retain=[setting.known]))
    without = setting.old["gone"].clone()
    without[torch.arange(6), setting.gone["labels"]] = GONE
    wanted = kl(without, setting.now["gone"], 2.0) + kl(setting.old["known"], setting.now["known"], 2.0)
    assert found.scalar.item() == pytest.approx(wanted.item(), rel=1e-4)


def test_uniclun(setting):
    bad = tiny_vit(5)
    setting.step.state = bad
    learning = ce(setting.now["new"], setting.new) + ce(setting.now["known"], setting.known)
    learning = learning + kl(setting.old["known"], setting.now["known"])
    forgetting = kl(logits(bad, setting.gone), setting.now["gone"])
    sides = {"retain": [setting.known], "learn": [setting.new]}
    both = UniCLUN(balance=0.3).loss(setting.step, Batch(forget=setting.gone, **sides))
    assert both.scalar.item() == pytest.approx((0.3 * learning + 0.7 * forgetting).item(), rel=1e-4)
    alone = UniCLUNLearning(balance=0.3).loss(setting.step, Batch(**sides))
    assert alone.scalar.item() == pytest.approx((0.3 * learning).item(), rel=1e-4)
    assert type(UniCLUN(balance=0.3).for_data(["learn", "retain"])) is UniCLUNLearning
    assert type(UniCLUN().for_data(["learn", "forget", "retain"])) is UniCLUN


def test_networks_as_detectors_by_hand():
    """Classes 0 and 1 are main's, 2 is of one copy and 3 of another."""
    main = torch.tensor([[0.7, 0.1, 0.1, 0.1]]).log()
    one, other = torch.tensor([[0.2, 0.1, 0.6, 0.1]]).log(), torch.tensor([[0.5, 0.2, 0.1, 0.2]]).log()
    found = detected(main, [([2], one), ([3], other)]).exp()
    wanted = torch.tensor([[0.7 * 0.4 * 0.8, 0.1 * 0.4 * 0.8, 0.6 * 0.8, 0.2 * 0.4]])
    assert torch.allclose(found, wanted, atol=1e-6)
    assert torch.allclose(detected(main, []), main)
