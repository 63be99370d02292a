"""What UnlearnTrainer takes from transformers: no base of our own, and private methods that are known by name."""

import inspect

import transformers
from transformers import Trainer

from hf_unlearn import UnlearnTrainer
from hf_unlearn.training.stock import CHECKED_WITH, OVERRIDDEN

# Parameters of each override, as transformers' CHECKED_WITH has them.
SIGNATURES = {
    "_save_checkpoint": ["self", "model", "trial"],
    "_save_optimizer_and_scheduler": ["self", "output_dir"],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
    "_load_optimizer_and_scheduler": ["self", "checkpoint"],
}


def test_the_trainer_has_no_base_of_our_own():
    ours = [base.__name__ for base in UnlearnTrainer.__mro__ if base.__module__.startswith("hf_unlearn")]
    assert ours == ["UnlearnTrainer"] and UnlearnTrainer.__mro__[1] is Trainer


def test_private_overrides_are_listed_with_their_reason():
    private = {n for n in vars(UnlearnTrainer) if n.startswith("_") and not n.startswith("__") and n in vars(Trainer)}
    assert private == set(OVERRIDDEN) == set(SIGNATURES)
    assert all(len(reason) > 20 for reason in OVERRIDDEN.values())


def test_private_overrides_have_the_signatures_they_were_checked_with():
    for name, parameters in SIGNATURES.items():
        said = f"{name} of transformers {transformers.__version__} differs from that of {CHECKED_WITH}: read it again"
        assert list(inspect.signature(getattr(Trainer, name)).parameters) == parameters, said
        assert list(inspect.signature(vars(UnlearnTrainer)[name]).parameters) == parameters


def test_no_attribute_is_born_outside_init(tmp_path, images):
    """Training adds nothing of ours to the trainer; what it adds is transformers' own."""
    from conftest import config, tiny_pipeline

    from hf_unlearn import SFRon, split_by_label

    trainer = UnlearnTrainer(tiny_pipeline(), config(tmp_path, max_steps=1), SFRon(), *split_by_label(images, 1))
    before = {id(part): set(vars(part)) for part in parts_of(trainer)}
    trainer.train()
    for part in parts_of(trainer):
        assert set(vars(part)) == before[id(part)], type(part).__name__
    source = inspect.getsource(UnlearnTrainer)
    assigned = {word.split("=")[0].strip() for word in source.split("self.")[1:] if " = " in word.split("\n")[0]}
    assert {"step", "reference", "evaluator", "checkpointer", "fsdp", "publisher"} <= set(vars(trainer)) and assigned


def parts_of(trainer) -> list:
    names = ("step", "reference", "evaluator", "checkpointer", "fsdp", "publisher", "guard", "early_stop", "merge")
    return [getattr(trainer, name) for name in names]
